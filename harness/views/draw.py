"""All the pictures of a run, into its directory."""

from dataclasses import asdict, replace
from pathlib import Path

from harness.config import ShowSpec
from harness.results import Run
from harness.views.figures import LOOKS, pictures, write_figures
from harness.views.report import write_report


def draw(run: Run, show: ShowSpec | None = None) -> Path:
    """``figures/`` and ``report.html`` of a saved run; gives the report. `show` says what it opens with."""
    shown = _opening(run, show)
    drawn = pictures(shown)
    for picture in drawn:
        picture.write(run.path / "figures")
    return write_report(shown, run.path / "report.html", drawn)


def draw_for_paper(run: Run, show: ShowSpec | None = None) -> list[Path]:
    """``figures/paper/``: the figures as wide as the column of a paper; gives their paths."""
    return write_figures(_opening(run, show), run.path / "figures" / "paper", LOOKS["paper"])


def _opening(run: Run, show: ShowSpec | None) -> Run:
    return run if show is None else replace(run, spec={**run.spec, "show": asdict(show)})
