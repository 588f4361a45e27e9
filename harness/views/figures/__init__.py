"""A run's figures for print, one kind to a file: each is drawn once, as SVG and PNG.

`base` holds what they share. To add one: a function in a file of its own that gives a matplotlib figure, and its line
in `_drawn`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from harness.findings.reading import by_lead
from harness.views.choose import asked_prompts
from harness.views.figures.base import LOOKS, Look, Picture, as_picture
from harness.views.figures.effects import effect_map, strongest
from harness.views.figures.looking import compare
from harness.views.figures.methods import agreement
from harness.views.figures.positions import by_position

if TYPE_CHECKING:
    from harness.results import Run

__all__ = ["LOOKS", "Look", "Picture", "as_picture", "pictures", "write_figures"]


def pictures(run: "Run", look: Look = LOOKS["screen"]) -> list[Picture]:
    """Every figure that the run has data for, drawn."""
    return [as_picture(name, part, label, figure, look) for name, part, label, figure in _drawn(run, look)]


def write_figures(run: "Run", folder: str | Path, look: Look = LOOKS["screen"]) -> list[Path]:
    """Write every figure the run has data for as SVG and PNG into ``folder``; returns the paths."""
    return [path for picture in pictures(run, look) for path in picture.write(Path(folder))]


def _drawn(run: "Run", look: Look) -> Iterator[tuple[str, str, str, Figure]]:
    """Name of the file, section of the report, what it shows, and the figure."""
    for metric in by_lead(run):
        name = "".join(letter if letter.isalnum() else "_" for letter in metric)
        yield f"effect_{name}", "map", f"Effect of each head on {metric}", effect_map(run, metric, look)
        yield f"strongest_{name}", "strongest", f"Strongest heads by {metric}", strongest(run, metric, look)
    if "position_effect" in run.data:
        for metric in map(str, run.data["metric"].values):
            name = "".join(letter if letter.isalnum() else "_" for letter in metric)
            label = f"Effect on {metric} of ablating heads at one position"
            yield f"positions_{name}", "positions", label, by_position(run, metric, asked_prompts(run)[0], look)
    if "pattern" in run.data:
        label = "Rollout, mean pattern, top head"
        yield "rollout", "rollout", label, compare(run, asked_prompts(run)[0], look)
    if len(run.methods):
        yield "methods", "methods", "Attribution methods against measured causes", agreement(run, look)
