"""A saved run as pictures and pages. Never sees a model.

``attention``, ``effects``, ``rollout``, ``saliency`` (text coloured by scores) and ``follow`` (one pair of words in
every head) show themselves in a notebook; ``table``, ``strongest_keys`` and ``follow_table`` are pandas DataFrames;
``write_report`` and ``write_figures`` make the files of the run directory.
"""

from typing import TYPE_CHECKING

from harness.config import RequestError
from harness.findings.reading import all_heads
from harness.hooks import Head
from harness.views.choose import (
    Kept,
    checked_head,
    checked_metric,
    checked_prompt,
    first_head,
    first_in_layer,
)
from harness.views.choose import needs_patterns as _needs_patterns
from harness.views.figures import write_figures as write_figures
from harness.views.figures.words import follow_figure as follow_figure
from harness.views.figures.words import saliency_figure as saliency_figure
from harness.views.follow import follow as follow
from harness.views.follow import follow_table as follow_table
from harness.views.page import View as View
from harness.views.page import page
from harness.views.payload import payload
from harness.views.report import write_report as write_report
from harness.views.saliency import saliency as saliency
from harness.views.text import markup, visible
from harness.views.weights import strongest_keys as strongest_keys
from harness.views.weights import table as table

if TYPE_CHECKING:
    from harness.results import Run

__all__ = [
    "View",
    "attention",
    "effects",
    "follow",
    "follow_figure",
    "follow_table",
    "rollout",
    "saliency",
    "saliency_figure",
    "strongest_keys",
    "table",
    "write_figures",
    "write_report",
]


def attention(run: "Run", prompt: int = 0, layer: int | None = None, head: Head | str | int | None = None) -> View:
    """One layer's patterns on one prompt, the picked head large in CircuitsVis.

    ``head`` is a name (``"L5H1"``), a `Head`, or a number within ``layer``. Without it, the layer's head with the
    largest effect on the leading metric; without either, the run's.
    """
    _needs_patterns(run)
    prompt, picked = checked_prompt(run, prompt), _picked(run, layer, head)
    row = tuple(other for other in all_heads(run) if other.site == picked.site)
    kept = Kept((prompt,), row, "Ask for its layer.")
    return _view(run, f"Attention in {picked.site}, prompt {prompt}", ("head",), kept, picked)


def effects(run: "Run", metric: str | None = None) -> View:
    """The layer × head map of mean effects and the strongest heads prompt by prompt."""
    metric = checked_metric(run, metric)
    kept = Kept((), (), "")
    return _view(run, "Effects of ablating each head", ("map", "strips"), kept, first_head(run), metric)


def rollout(run: "Run", prompt: int = 0) -> View:
    """Attention rollout beside the mean pattern and the top head, on the same tokens."""
    _needs_patterns(run)
    prompt, head = checked_prompt(run, prompt), first_head(run)
    kept = Kept((prompt,), (head,) if head else (), "Ask for that prompt.")
    return _view(run, f"Attention rollout on prompt {prompt}", ("compare",), kept, head)


def _picked(run: "Run", layer: int | None, head: Head | str | int | None) -> Head:
    if isinstance(head, int):
        if layer is None:
            raise RequestError("head", head, "say which layer too, or name the head, such as L5H1")
        return checked_head(run, Head(layer, head))
    if head is not None:
        return checked_head(run, head)
    if layer is not None:
        return checked_head(run, first_in_layer(run, layer))
    return checked_head(run, first_head(run) or Head(0, 0))


def _view(
    run: "Run", title: str, parts: tuple[str, ...], kept: Kept, head: Head | None, metric: str | None = None
) -> View:
    prompt = kept.prompts[0] if kept.prompts else 0
    data = payload(run, kept, prompt=prompt, head=head, metric=metric and visible(metric), only_kept=True)
    places = "".join(f'<section><div class="drawn" id="draw-{part}"></div></section>' for part in parts)
    body = (
        f"<header><h1>{markup(title)}</h1></header><main>{places}</main><noscript>This view needs scripts.</noscript>"
    )
    return View(page(title, body, data, circuitsvis="head" in parts, kind="view"))
