"""Figure of the maps of effects by layer and position, side by side."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from harness.views.charts.position_maps import shown_maps
from harness.views.figures.base import EMPTY, TONE, Look, color_bar, every_nth, map_of, name_panel, panels, ramp, style
from harness.views.text import short, visible

if TYPE_CHECKING:
    from harness.results import Run


def by_layer_and_position(run: "Run", metric: str, look: Look) -> Figure:
    """Map layers down and tokens across, a panel for each of residual stream, attention and MLP."""
    shown = shown_maps(run, metric)
    values = [each.mean / shown.far for each in shown.maps]
    most = max(float(np.nanmax(np.abs(each), initial=1e-12)) for each in values)
    signed = bool(shown.to or run.sense(metric))
    tones = ramp(TONE["hurts"], "#ffffff", TONE["helps"]) if shown.to else map_of(run, metric)
    columns = len(shown.maps) if max(len(each.columns) for each in shown.maps) < _BESIDE and not look.narrow else 1
    rows = -(-len(values) // columns)
    with style(metric + "".join(short(visible(name)) for each in shown.maps for name in each.columns), look):
        high = 0.02 * max(map(len, values)) * look.letters
        figure, every = panels(rows, columns, look.width, rows * (high + 0.16 * look.letters))
        for number, (axes, each, drawn) in enumerate(zip(every, shown.maps, values, strict=False)):
            shades = drawn if signed else np.abs(drawn)
            image = axes.imshow(shades, cmap=tones, vmin=-most if signed else 0, vmax=most, aspect="auto")
            axes.set_facecolor(EMPTY)
            across = every_nth(len(each.columns), look.width / columns - 1.0, look)
            labels = [short(visible(each.columns[at]), _LABEL) for at in across]
            axes.set_xticks(across, labels, rotation=90, fontsize=look.small)
            down = every_nth(len(each.rows), high, look)
            axes.set_yticks(down, [each.rows[at] for at in down], fontsize=look.small)
            name_panel(axes, number, each.name, look, look.width / columns)
            if number % columns == columns - 1 or number == len(values) - 1:
                color_bar(image, axes, shown.label(run, metric), look, high)
    return figure


#: Letters of a label.
_LABEL = 16
#: With fewer columns the maps stand side by side.
_BESIDE = 16
