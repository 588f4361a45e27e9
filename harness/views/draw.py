"""All the pictures of a run, into its directory."""

from dataclasses import asdict, replace
from pathlib import Path

from harness.config import ShowSpec
from harness.results import Run
from harness.views.choose import asked_prompts, first_head
from harness.views.figures import pictures
from harness.views.report import write_report


def draw(run: Run, show: ShowSpec | None = None) -> Path:
    """``figures/`` and ``report.html`` of a saved run; gives the report. `show` says what it opens with."""
    shown = run if show is None else replace(run, spec={**run.spec, "show": asdict(show)})
    asked_prompts(shown)  # what may not be shown is refused before anything is drawn over
    first_head(shown)
    drawn = pictures(shown)
    for picture in drawn:
        picture.write(run.path / "figures")
    return write_report(shown, run.path / "report.html", drawn)
