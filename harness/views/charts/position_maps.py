"""Maps of effects by layer and position: residual stream, attention and MLP side by side."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.findings.next_tokens import next_tokens
from harness.findings.position_maps import PositionMap, destination, mapped, maps_of_prompt, position_maps
from harness.views.charts.describe import Described, chart, in_full, measured, numbers, plain_name
from harness.views.selection import shown_prompts
from harness.views.text import visible

if TYPE_CHECKING:
    from harness.results import Run


@dataclass(frozen=True)
class ShownMaps:
    """The maps of a chart: over all prompts, or of the prompt that is shown first where positions do not correspond.

    Values are shares of the way `to` the run that a patch leads to, `far` in the metric's unit; else effects.
    """

    maps: list[PositionMap]
    over: str
    to: str
    far: float

    def label(self, run: "Run", metric: str) -> str:
        """Return what the values are."""
        return f"share of the way to the {self.to} run" if self.to else f"effect on {measured(run, metric)}"


def shown_maps(run: "Run", metric: str) -> ShownMaps:
    """Return the maps to draw for a metric."""
    maps, n = position_maps(run, metric), run.data.sizes["prompt"]
    over = f"mean over {n} prompts" if n > 1 else "one prompt"
    if not maps:
        prompt = shown_prompts(run)[0]
        maps, over = maps_of_prompt(run, metric, prompt), f"prompt {prompt}"
    to, far = destination(run, metric) or ("", 1.0)
    return ShownMaps(maps, over, to, far)


def maps(run: "Run") -> Iterator[Described]:
    """Describe the maps, one chart for each metric."""
    for metric in map(str, run.data["metric"].values) if mapped(run) else ():
        shown = shown_maps(run, metric)
        panels = [
            {
                "name": each.name,
                "rows": each.rows,
                "columns": list(map(visible, each.columns)),
                "values": numbers(each.mean / shown.far),
                "notes": {f"{cell.row} {cell.column}": visible(cell.in_words) for cell in next_tokens(run, each)},
            }
            for each in shown.maps
        ]
        words = {"helps": f"towards the {shown.to} run", "hurts": "away from it"}
        yield chart(
            run,
            "heat",
            f"maps_{plain_name(metric)}",
            "maps",
            f"Effect by layer and position, {in_full(metric)}",
            f"{shown.label(run, metric)[0].upper()}{shown.label(run, metric)[1:]}, {shown.over}; rows: the layer "
            f"(of the residual stream: before it), columns: the token.{scale(run, metric, shown)}",
            panels=panels,
            scale="effect",
            sense=1 if shown.to else run.sense(metric),
            unit="" if shown.to else run.unit(metric).strip(),
            value=shown.label(run, metric),
            axes=["layer", "token"],
            **({"words": words} if shown.to else {}),
        )


def scale(run: "Run", metric: str, shown: ShownMaps) -> str:
    """Return what 1 is on the scale of a patch."""
    if not shown.to:
        return ""
    clean, corrupted = (float(run.data[name].sel(metric=metric).mean()) for name in ("clean", "corrupted"))
    unit = run.unit(metric)
    return f" Clean run: {clean:.3g}{unit}; corrupted: {corrupted:.3g}{unit}."
