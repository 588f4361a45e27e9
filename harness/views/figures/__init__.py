"""Figures of a run for print, one kind to a file, drawn as SVG and PNG.

`base` has the shared parts. To add one: a function in a file of its own that returns a matplotlib figure, and its line
in `_drawn`.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from harness.config import RequestError
from harness.findings.position_maps import mapped
from harness.results.objects import Folder, folder_at
from harness.views.charts.describe import in_full, plain_name
from harness.views.charts.layers import swept
from harness.views.figures import changes
from harness.views.figures.activations import by_activation
from harness.views.figures.base import LOOKS, Look, Picture, as_picture
from harness.views.figures.captions import Caption, captions
from harness.views.figures.effects import effect_map, strongest
from harness.views.figures.layers import by_layer
from harness.views.figures.methods import agreement
from harness.views.figures.patterns import heatmap, heatmaps, opening_patterns
from harness.views.figures.position_maps import by_layer_and_position
from harness.views.figures.positions import by_position
from harness.views.figures.roles import roles
from harness.views.figures.rollout import compare
from harness.views.figures.segments import traced
from harness.views.figures.together import pairs, pruning, sets
from harness.views.selection import shown_prompts

if TYPE_CHECKING:
    from harness.results import Run

__all__ = ["LOOKS", "Look", "Picture", "as_picture", "captions", "pictures", "write_figures", "write_for_paper"]

#: The looks of figures for a paper.
PAPER = ("column", "page")
#: Patterns in a row of the grid.
_COLUMNS = {"column": 4, "page": 6}


#: A figure to draw: the name of its file, the report's section, the label, and the function that draws it.
Drawing = tuple[str, str, str, Callable[[], Figure]]

#: Figures of other sweeps: the variable, the section, the label, and the function that draws it for a metric.
_OTHERS = (
    ("activation_effect", "activations", "Effect of each head's activations alone", by_activation),
    ("position_effect", "positions", "Effect of ablating heads at one position", by_position),
    ("set_effect", "sets", "Effect of ablating sets of heads", sets),
    ("cumulative_effect", "pruning", "Effect of ablating one head after another", pruning),
    ("pair_effect", "pairs", "Effect of ablating heads in pairs", pairs),
)


def pictures(run: "Run", look: Look = LOOKS["screen"]) -> list[Picture]:
    """Draw every figure that the run has data for."""
    return [as_picture(name, part, label, draw(), look) for name, part, label, draw in _drawings(run, look)]


def first_figure(
    run: "Run", look: Look = LOOKS["screen"], besides: Collection[str] = ()
) -> tuple[str, Callable[[], Figure]]:
    """Return the label of the first figure that the run has data for, and a function that draws it; those of the
    sections `besides` are left out.

    Raises `RequestError` where there is none.
    """
    for _, part, label, draw in _drawings(run, look):
        if part not in besides:
            return label, draw
    raise RequestError("run", run.path, "no figure shows these arrays")


def write_figures(run: "Run", folder: str | Folder, look: Look = LOOKS["screen"]) -> list[Folder]:
    """Write every figure the run has data for as SVG and PNG into ``folder``; returns the paths.

    >>> import tempfile
    >>> import harness
    >>> run = harness.look("planted", " da ko li da ko").run
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sorted(path.name for path in harness.views.write_figures(run, folder))[-2:]
    ['rollout.png', 'rollout.svg']
    """
    return [path for picture in pictures(run, look) for path in picture.write(folder_at(folder))]


def write_for_paper(
    folder: Folder, draw: Callable[[Look], Sequence[Picture]], beside: Sequence[Caption]
) -> list[Folder]:
    """Write figures as wide as a column (``NAME_column``) and as a page (``NAME_page``), as SVG, PDF and PNG, with the
    caption (``NAME.txt``) and the numbers (``NAME.csv``) of each beside it; returns the paths."""
    drawn = [replace(each, name=f"{each.name}_{look}") for look in PAPER for each in draw(LOOKS[look])]
    paths = [path for picture in drawn for path in picture.write(folder)]
    return paths + [path for caption in beside for path in caption.write(folder)]


def _drawings(run: "Run", look: Look) -> Iterator[Drawing]:
    """Yield every figure that the run has data for, those of the answer first."""
    yield from _ablated(run, look)
    if "clean_change" in run.data:
        yield from _changed(run, look)
    if any(run.roles().values()):
        yield "roles", "roles", "Score of each head for each role", partial(roles, run, look)
    if "pattern" in run.data:
        label = "Rollout, mean pattern, top head"
        yield "rollout", "rollout", label, partial(compare, run, shown_prompts(run)[0], look)
        yield from _patterns(run, look)
    if len(run.methods):
        yield "methods", "methods", "Attribution methods against measured causes", partial(agreement, run, look)
    if len(run.parts):
        label = "What each part of the prompt gets, and what it costs to lose it"
        yield "parts", "parts", label, partial(traced, run, look)


def _ablated(run: "Run", look: Look) -> Iterator[Drawing]:
    """Yield the figures of ablations."""
    for metric in run.metrics:
        name = plain_name(metric)
        yield (
            f"effect_{name}",
            "map",
            f"Effect of each head on {in_full(metric)}",
            partial(effect_map, run, metric, look),
        )
        yield (
            f"strongest_{name}",
            "strongest",
            f"Strongest heads by {in_full(metric)}",
            partial(strongest, run, metric, look),
        )
    if swept(run):
        for metric in map(str, run.data["metric"].values):
            name, label = f"layers_{plain_name(metric)}", f"Effect of each layer, {in_full(metric)}"
            yield name, "layers", label, partial(by_layer, run, metric, look)
    for metric in map(str, run.data["metric"].values) if mapped(run) else ():
        name, label = f"maps_{plain_name(metric)}", f"Effect by layer and position, {in_full(metric)}"
        yield name, "maps", label, partial(by_layer_and_position, run, metric, look)
    for variable, part, label, draw in _OTHERS:
        for metric in map(str, run.data["metric"].values) if variable in run.data else ():
            yield f"{part}_{plain_name(metric)}", part, f"{label}, {in_full(metric)}", partial(draw, run, metric, look)


def _changed(run: "Run", look: Look) -> Iterator[Drawing]:
    """Yield the figures of two models."""
    metrics = [str(name) for name in run.data["metric"].values]
    if "effect_change" in run.data:
        for metric in metrics:
            name = f"change_{plain_name(metric)}"
            yield (
                name,
                "changed",
                f"Change of each head's effect on {in_full(metric)}",
                partial(changes.effects, run, metric, look),
            )
        yield "pattern_distance", "changed", "How far apart patterns are", partial(changes.distances, run, look)
        yield "most_changed", "changed", "Patterns of the most changed head", partial(changes.side_by_side, run, look)
    for metric in metrics:
        label = f"{in_full(metric)} of each prompt in both models"
        yield f"prompts_{plain_name(metric)}", "changed", label, partial(changes.by_prompt, run, metric, look)


def _patterns(run: "Run", look: Look) -> Iterator[Drawing]:
    """Yield the patterns of the heads that matter on the prompt shown first: a heatmap of each, and a grid of all."""
    alone, every = opening_patterns(run)
    for each in every[:alone]:
        yield f"pattern_{plain_name(each.title)}", "patterns", f"Pattern of {each.title}", partial(heatmap, each, look)
    if every:
        label = f"Patterns of the {len(every)} heads with the largest effects on {in_full(run.lead_metric)}"
        columns = _COLUMNS["column" if look.narrow else "page"]
        yield "patterns", "patterns", label, partial(heatmaps, every, columns, look)
