"""Figures of a run for print, one kind to a file, drawn as SVG and PNG.

`base` has the shared parts. To add one: a function in a file of its own that returns a matplotlib figure, and its line
in `_drawn`.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from harness.results.objects import Folder, folder_at
from harness.views.figures import changes
from harness.views.figures.base import LOOKS, Look, Picture, as_picture
from harness.views.figures.effects import effect_map, strongest
from harness.views.figures.layers import SWEPT, by_layer
from harness.views.figures.methods import agreement
from harness.views.figures.positions import by_position
from harness.views.figures.roles import roles
from harness.views.figures.rollout import compare
from harness.views.figures.segments import traced
from harness.views.figures.together import pairs, pruning, sets
from harness.views.selection import shown_prompts

if TYPE_CHECKING:
    from harness.results import Run

__all__ = ["LOOKS", "Look", "Picture", "as_picture", "pictures", "write_figures"]


#: Figures of other sweeps: the variable, the section, the label, and the function that draws it for a metric.
_OTHERS = (
    ("position_effect", "positions", "Effect of ablating heads at one position", by_position),
    ("set_effect", "sets", "Effect of ablating sets of heads", sets),
    ("cumulative_effect", "pruning", "Effect of ablating one head after another", pruning),
    ("pair_effect", "pairs", "Effect of ablating heads in pairs", pairs),
)


def pictures(run: "Run", look: Look = LOOKS["screen"]) -> list[Picture]:
    """Draw every figure that the run has data for."""
    return [as_picture(name, part, label, figure, look) for name, part, label, figure in _drawn(run, look)]


def write_figures(run: "Run", folder: str | Folder, look: Look = LOOKS["screen"]) -> list[Folder]:
    """Write every figure the run has data for as SVG and PNG into ``folder``; returns the paths."""
    return [path for picture in pictures(run, look) for path in picture.write(folder_at(folder))]


def _drawn(run: "Run", look: Look) -> Iterator[tuple[str, str, str, Figure]]:
    """Yield the file's name, the report's section, the label, and the figure."""
    yield from _ablated(run, look)
    if "clean_change" in run.data:
        yield from _changed(run, look)
    if any(run.roles().values()):
        yield "roles", "roles", "Score of each head for each role", roles(run, look)
    if "pattern" in run.data:
        label = "Rollout, mean pattern, top head"
        yield "rollout", "rollout", label, compare(run, shown_prompts(run)[0], look)
    if len(run.methods):
        yield "methods", "methods", "Attribution methods against measured causes", agreement(run, look)
    if len(run.parts):
        yield "parts", "parts", "What each part of the prompt gets, and what it costs to lose it", traced(run, look)


def _ablated(run: "Run", look: Look) -> Iterator[tuple[str, str, str, Figure]]:
    """Yield the figures of ablations."""
    for metric in run.metrics:
        name = _plain(metric)
        yield f"effect_{name}", "map", f"Effect of each head on {metric}", effect_map(run, metric, look)
        yield f"strongest_{name}", "strongest", f"Strongest heads by {metric}", strongest(run, metric, look)
    if "effect" not in run.data and SWEPT.keys() & {*run.data}:
        for metric in map(str, run.data["metric"].values):
            yield f"layers_{_plain(metric)}", "layers", f"Effect of each layer, {metric}", by_layer(run, metric, look)
    for variable, part, label, draw in _OTHERS:
        for metric in map(str, run.data["metric"].values) if variable in run.data else ():
            yield f"{part}_{_plain(metric)}", part, f"{label}, {metric}", draw(run, metric, look)


def _changed(run: "Run", look: Look) -> Iterator[tuple[str, str, str, Figure]]:
    """Yield the figures of two models."""
    metrics = [str(name) for name in run.data["metric"].values]
    if "effect_change" in run.data:
        for metric in metrics:
            name = f"change_{_plain(metric)}"
            yield name, "changed", f"Change of each head's effect on {metric}", changes.effects(run, metric, look)
        yield "pattern_distance", "changed", "How far apart patterns are", changes.distances(run, look)
        yield "most_changed", "changed", "Patterns of the most changed head", changes.side_by_side(run, look)
    for metric in metrics:
        label = f"{metric} of each prompt in both models"
        yield f"prompts_{_plain(metric)}", "changed", label, changes.by_prompt(run, metric, look)


def _plain(metric: str) -> str:
    """Write a metric as part of a file's name."""
    return "".join(letter if letter.isalnum() else "_" for letter in metric)
