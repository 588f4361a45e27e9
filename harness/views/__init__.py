"""Views of a saved run: pictures and pages, made without a model.

``attention``, ``head_view``, ``model_view``, ``effects``, ``rollout``, ``head_card`` (why a head matters), ``saliency``
(text coloured by scores) and ``follow`` (one pair of words in every head) show themselves in a notebook; ``table``,
``strongest_keys`` and ``follow_table`` are pandas DataFrames;
``write_report`` and ``write_figures`` make the files of the run directory.

>>> import harness
>>> run = harness.look("planted", " da ko li da ko").run
>>> harness.views.head_view(run, layer=1)
View(Lines of L1 (first L1H0) · da ko li da ko)
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
from harness.views.frame_height import estimate
from harness.views.head_cards import head_card as head_card
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
    fitting,
    titled,
)
from harness.views.selection import needs_patterns as _needs_patterns
from harness.views.text import markup, visible

if TYPE_CHECKING:
    from harness.results import Run

#: The parts of a page of every head: small pictures, and the head that is opened.
_MODEL = ("controls", "modelview", "headview")
#: Characters of packed patterns in a page of lines; it holds one layer where all layers have more.
_LINES_BUDGET = 3_000_000

__all__ = [
    "View",
    "attention",
    "effects",
    "figure_view",
    "follow",
    "follow_figure",
    "follow_table",
    "head_card",
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

    Weights are shares of a query's attention, 0 to 1.
    ``head`` is a name (``"L5H1"``), a `Head`, or a number within ``layer``. Without it, the layer's head with the
    largest effect on the leading metric; without either, the run's. Raises `RequestError`
    for a prompt or a head that is not there, and for a run without patterns.

    >>> import harness
    >>> run = harness.look("planted", " da ko li da ko").run
    >>> harness.views.attention(run, head="L1H4")
    View(Heads of L1 · da ko li da ko)
    """
    _needs_patterns(run)
    prompt, picked = checked_prompt(run, prompt), _picked(run, layer, head)
    title = titled(f"Heads of {picked.site}", run, prompt)
    return _view(run, title, ("controls", "head"), _row(run, prompt, picked), picked)


def head_view(
    run: "Run",
    prompt: int = 0,
    layer: int | None = None,
    head: Head | str | int | None = None,
    level: str | None = None,
) -> View:
    """Show weights as lines between the tokens written twice, layer by layer, with heads that switch on and off.

    The head view of BertViz (Vig 2019, arXiv:1906.05714), offline. Weights are shares of a query's attention, 0 to 1.
    ``layer`` and ``head`` as for `attention`, and with either the page holds that layer alone; it opens by ``level``,
    ``token`` or ``word``. Raises `RequestError` for a prompt or a head that is not there, and for a run without
    patterns.

    >>> import harness
    >>> run = harness.look("planted", " da ko li da ko").run
    >>> harness.views.head_view(run, layer=1)
    View(Lines of L1 (first L1H0) · da ko li da ko)
    """
    _needs_patterns(run)
    prompt, picked = checked_prompt(run, prompt), _picked(run, layer, head)
    every = layer is None and head is None
    kept = fitting(run, prompt, _LINES_BUDGET) if every else _row(run, prompt, picked)
    if picked not in kept.heads:
        kept = _row(run, prompt, picked)
    lines_of = "every layer" if every else str(picked.site)
    title = titled(f"Lines of {lines_of} (first {picked})", run, prompt)
    return _view(run, title, ("controls", "headview"), kept, picked, level=level)


def model_view(run: "Run", prompt: int = 0, level: str | None = None) -> View:
    """Show every head of every layer on one prompt as a small picture; the one that is opened is shown beneath.

    The model view of BertViz (Vig 2019, arXiv:1906.05714), offline. Weights are shares of a query's attention, 0 to 1.
    Where the patterns of all heads would make the page too large, the heads with the largest effects are shown, and the
    page states how many it leaves out. Raises `RequestError` for a prompt that is not there, and for a run without
    patterns.

    >>> import harness
    >>> run = harness.look("planted", " da ko li da ko").run
    >>> harness.views.model_view(run)
    View(Every head · da ko li da ko)
    """
    _needs_patterns(run)
    prompt, picked = checked_prompt(run, prompt), _picked(run, None, None)
    kept = fitting(run, prompt)
    head = picked if picked in kept.heads else kept.heads[0]
    return _view(run, titled("Every head", run, prompt), _MODEL, kept, head, level=level)


def layer_view(run: "Run", prompt: int = 0, layer: int = 0, level: str | None = None) -> View:
    """Show the heads of one layer on one prompt, a small picture each; the one that is opened is shown beneath.

    Of an encoder-decoder it is this layer of every stack that has it. Raises `RequestError` for a prompt or a layer
    that is not there, and for a run without patterns.

    >>> import harness
    >>> run = harness.look("planted", " da ko li da ko").run
    >>> harness.views.layer_view(run, layer=1)
    View(Every head of layer 1 · da ko li da ko)
    """
    _needs_patterns(run)
    stack = next((name for name, n_layers in run.layers.items() if layer < n_layers), next(iter(run.layers)))
    prompt, picked = checked_prompt(run, prompt), checked_head(run, first_in_layer(run, layer, stack))
    heads = tuple(head for head in run.all_heads if head.layer == picked.layer)
    selection = Selection((prompt,), heads, "Pass that layer.")
    return _view(run, titled(f"Every head of layer {layer}", run, prompt), _MODEL, selection, picked, level=level)


def effects(run: "Run", metric: str | None = None) -> View:
    """Show the layer × head map of mean effects and the strongest heads prompt by prompt, in the metric's unit.

    Raises `RequestError` for a metric that was not measured.

    >>> import harness
    >>> model = harness.load_model("planted")
    >>> effects = harness.ablate_heads(model, harness.load_prompts("induction", model, n=4), metrics="loss")
    >>> harness.views.effects(effects)
    View(Effects of ablating each head on loss)
    """
    metric = checked_metric(run, metric)
    kept = Selection((), (), "")
    title = f"Effects of ablating each head on {metric}"
    view = _view(run, title, ("map", "ranking"), kept, first_head(run), metric)
    return view.with_figure(lambda: effect_map(run, metric, LOOKS["screen"]))


def rollout(run: "Run", prompt: int = 0) -> View:
    """Show attention rollout (Abnar & Zuidema 2020) beside the mean pattern and the top head, on the same tokens.

    All three are shares, 0 to 1. Raises `RequestError` for a prompt that is not there, and for a run without patterns.

    >>> import harness
    >>> run = harness.look("planted", " da ko li da ko").run
    >>> harness.views.rollout(run)
    View(Attention rollout · da ko li da ko)
    """
    _needs_patterns(run)
    prompt, head = checked_prompt(run, prompt), first_head(run)
    shown = run.top_heads(run.lead_metric, 2) if "effect" in run.data else [head] if head else []
    kept = Selection((prompt,), tuple(shown), "Pass that prompt.")
    return _view(run, titled("Attention rollout", run, prompt), ("controls", "compare"), kept, head)


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
    run: "Run",
    title: str,
    parts: tuple[str, ...],
    kept: Selection,
    head: Head | None,
    metric: str | None = None,
    level: str | None = None,
) -> View:
    prompt = kept.prompts[0] if kept.prompts else 0
    data = payload(run, kept, prompt=prompt, head=head, metric=metric and visible(metric), only_kept=True)
    data["start"]["level"] = level or data["start"]["level"]
    places = "".join(f'<section><div class="drawn" id="draw-{part}"></div></section>' for part in parts)
    fewer = parts == _MODEL and kept.left_out.startswith("This page")
    note = f'<p class="note">{markup(kept.left_out)}</p>' if fewer else ""
    body = (
        f"<header><h1>{markup(title)}</h1>{note}</header><main>{places}</main>"
        "<noscript>This view needs scripts.</noscript>"
    )
    made = (title, body, data, "head" in parts, "view")
    framed = page(*made, asking=notebook.asking())
    return View(page(*made), estimate(run, parts, kept, data["start"]["level"]), framed, draws=True, title=title)
