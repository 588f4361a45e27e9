"""Draw all pictures and pages of a run into its directory."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from harness.config import ShowSpec
from harness.results import Run
from harness.results.objects import Folder
from harness.views.figures import captions, pictures, write_for_paper
from harness.views.figures.captions import saliency_caption
from harness.views.figures.words import saliency_figure
from harness.views.report import write_report
from harness.views.saliency import saliency
from harness.views.selection import first_head, shown_prompts

#: Bytes of arrays that are read into memory before they are drawn.
_READ_WHOLE = 512 * 2**20


def draw_views(run: Run, views: Sequence[str], show: ShowSpec) -> list[Folder]:
    """Draw the requested pages, each with its figures: ``report``, ``saliency``; returns their paths."""
    makers = {"report": draw, "saliency": draw_saliency}
    return [makers[view](run, show) for view in views]


def draw_saliency(run: Run, show: ShowSpec) -> Folder:
    """Draw ``saliency.html`` and its figure; returns the page.

    It shows the prompts of `show`, by the attention of its first head or by the run's own attributions.
    """
    options = _saliency_options(show)
    saliency_figure(run, **options).write(run.path / "figures")
    return saliency(run, **options).save(run.path / "saliency.html")


def draw(run: Run, show: ShowSpec | None = None) -> Folder:
    """Draw ``figures/`` and ``report.html`` of a saved run; returns the report. `show` selects what it opens with."""
    shown = _opening(run, show)
    drawn = pictures(shown)
    for picture in drawn:
        picture.write(run.path / "figures")
    return write_report(shown, run.path / "report.html", drawn)


def draw_for_paper(run: Run, show: ShowSpec | None = None, views: Sequence[str] = ("report",)) -> list[Folder]:
    """Draw ``figures/paper/``: each figure of the views for a column and a page, with caption and data beside it;
    returns the paths."""
    shown, folder = _opening(run, show), run.path / "figures" / "paper"
    written: list[Folder] = []
    if "report" in views:
        written += write_for_paper(folder, partial(pictures, shown), captions(shown))
    if "saliency" in views:
        options = _saliency_options(show or ShowSpec())
        beside = [saliency_caption(shown, **options)]
        written += write_for_paper(folder, lambda look: [saliency_figure(shown, look=look, **options)], beside)
    return written


def _saliency_options(show: ShowSpec) -> dict[str, Any]:
    """Return which prompts are coloured, and by the attention of which head (None: by the run's attributions)."""
    return {"prompts": list(show.prompts) or None, "head": next(iter(show.heads), None)}


def _opening(run: Run, show: ShowSpec | None) -> Run:
    """Return the run with `show` in its spec, checked before any old file is overwritten."""
    shown = run if show is None else replace(run, spec={**run.spec, "show": asdict(show)})
    if run.data.nbytes <= _READ_WHOLE:  # hundreds of small reads take longer than a large one
        shown = replace(shown, data=run.data.load())
    shown_prompts(shown)
    first_head(shown)
    return shown
