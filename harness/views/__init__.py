"""Views of a saved run: pictures and pages, made without a model.

``attention``, ``head_view``, ``model_view``, ``effects``, ``rollout``, ``saliency`` (text coloured by scores) and
``follow`` (one pair of words in every head) show themselves in a notebook; ``table``, ``strongest_keys`` and
``follow_table`` are pandas DataFrames;
``write_report`` and ``write_figures`` make the files of the run directory.
"""

from typing import TYPE_CHECKING

from harness.config import RequestError
from harness.hooks import Head
from harness.views import notebook
from harness.views.figures import LOOKS
from harness.views.figures import write_figures as write_figures
from harness.views.figures.effects import effect_map
from harness.views.figures.view import figure_view as figure_view
from harness.views.figures.words import follow_figure as follow_figure
from harness.views.figures.words import saliency_figure as saliency_figure
from harness.views.follow import follow as follow
from harness.views.follow import follow_table as follow_table
from harness.views.notebook import View as View
from harness.views.page import page
from harness.views.pattern_table import strongest_keys as strongest_keys
from harness.views.pattern_table import table as table
from harness.views.payload import payload
from harness.views.report import write_report as write_report
from harness.views.saliency import saliency as saliency
from harness.views.selection import (
    Selection,
    checked_head,
    checked_metric,
    checked_prompt,
    first_head,
    first_in_layer,
)
from harness.views.selection import needs_patterns as _needs_patterns
from harness.views.text import markup, visible

if TYPE_CHECKING:
    from harness.results import Run

__all__ = [
    "View",
    "attention",
    "effects",
    "figure_view",
    "follow",
    "follow_figure",
    "follow_table",
    "head_view",
    "layer_view",
    "model_view",
    "rollout",
    "saliency",
    "saliency_figure",
    "strongest_keys",
    "table",
    "write_figures",
    "write_report",
]


def attention(run: "Run", prompt: int = 0, layer: int | None = None, head: Head | str | int | None = None) -> View:
    """Show one layer's patterns on one prompt, the picked head large in CircuitsVis.

    ``head`` is a name (``"L5H1"``), a `Head`, or a number within ``layer``. Without it, the layer's head with the
    largest effect on the leading metric; without either, the run's.
    """
    _needs_patterns(run)
    prompt, picked = checked_prompt(run, prompt), _picked(run, layer, head)
    return _view(
        run, f"Attention in {picked.site}, prompt {prompt}", ("controls", "head"), _row(run, prompt, picked), picked
    )


def head_view(run: "Run", prompt: int = 0, layer: int | None = None, head: Head | str | int | None = None) -> View:
    """Show one layer's weights as lines between the tokens written twice, with heads that switch on and off.

    ``layer`` and ``head`` as for `attention`.
    """
    _needs_patterns(run)
    prompt, picked = checked_prompt(run, prompt), _picked(run, layer, head)
    title = f"Head view of {picked.site}, prompt {prompt}"
    return _view(run, title, ("controls", "headview"), _row(run, prompt, picked), picked)


def model_view(run: "Run", prompt: int = 0) -> View:
    """Show every head of every layer on one prompt as a small picture; the one that is opened is shown beneath."""
    _needs_patterns(run)
    prompt, picked = checked_prompt(run, prompt), _picked(run, None, None)
    kept = Selection((prompt,), tuple(run.all_heads), "Pass that prompt.")
    return _view(run, f"Model view, prompt {prompt}", ("controls", "modelview", "headview"), kept, picked)


def layer_view(run: "Run", prompt: int = 0, layer: int = 0) -> View:
    """The heads of one layer on one prompt, a small picture each; the one that is opened is shown beneath."""
    _needs_patterns(run)
    prompt, picked = checked_prompt(run, prompt), _picked(run, layer, None)
    heads = tuple(head for head in run.all_heads if head.layer == picked.layer)
    selection = Selection((prompt,), heads, "Ask for that layer.")
    return _view(run, f"Layer {layer}, prompt {prompt}", ("controls", "modelview", "headview"), selection, picked)


def effects(run: "Run", metric: str | None = None) -> View:
    """Show the layer × head map of mean effects and the strongest heads prompt by prompt."""
    metric = checked_metric(run, metric)
    kept = Selection((), (), "")
    view = _view(run, "Effects of ablating each head", ("map", "strips"), kept, first_head(run), metric)
    return view.with_figure(lambda: effect_map(run, metric, LOOKS["screen"]))


def rollout(run: "Run", prompt: int = 0) -> View:
    """Show attention rollout beside the mean pattern and the top head, on the same tokens."""
    _needs_patterns(run)
    prompt, head = checked_prompt(run, prompt), first_head(run)
    shown = run.top_heads(run.lead_metric, 2) if "effect" in run.data else [head] if head else []
    kept = Selection((prompt,), tuple(shown), "Pass that prompt.")
    return _view(run, f"Attention rollout on prompt {prompt}", ("controls", "compare"), kept, head)


def _row(run: "Run", prompt: int, picked: Head) -> Selection:
    """Select the heads of the picked one's layer on one prompt."""
    row = tuple(other for other in run.all_heads if other.site == picked.site)
    return Selection((prompt,), row, "Pass its layer.")


def _picked(run: "Run", layer: int | None, head: Head | str | int | None) -> Head:
    if isinstance(head, int):
        if layer is None:
            raise RequestError("head", head, "pass the layer too, or name the head, such as L5H1")
        return checked_head(run, Head(layer, head))
    if head is not None:
        return checked_head(run, head)
    if layer is not None:
        return checked_head(run, first_in_layer(run, layer))
    return checked_head(run, first_head(run) or Head(0, 0))


def _view(
    run: "Run", title: str, parts: tuple[str, ...], kept: Selection, head: Head | None, metric: str | None = None
) -> View:
    prompt = kept.prompts[0] if kept.prompts else 0
    data = payload(run, kept, prompt=prompt, head=head, metric=metric and visible(metric), only_kept=True)
    places = "".join(f'<section><div class="drawn" id="draw-{part}"></div></section>' for part in parts)
    body = (
        f"<header><h1>{markup(title)}</h1></header><main>{places}</main><noscript>This view needs scripts.</noscript>"
    )
    made = (title, body, data, "head" in parts, "view")
    return View(page(*made), asking=page(*made, asking=notebook.asking()))
