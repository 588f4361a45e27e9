"""Figure of what each activation of a head does alone: a small map of layers and heads for z, q, k, v and pattern."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from harness.views.charts.activations import activation_maps
from harness.views.figures.base import Look, color_bar, map_of, measured, name_panel, style
from harness.views.figures.head_maps import head_maps

if TYPE_CHECKING:
    from harness.results import Run


def by_activation(run: "Run", metric: str, look: Look) -> Figure:
    """Map mean effects, layers across and heads down, on one scale; a dot marks a shown effect."""
    drawn, sense = activation_maps(run, metric), run.sense(metric)
    most = max(float(np.nanmax(np.abs(each.values), initial=1e-12)) for each in drawn)
    layers = max(run.layers.values())
    wide = min(4.4, 0.3 * layers + 1.4) if look.titles else max(0.085 * layers, 1.2) + 0.4
    columns = max(1, min(len(drawn), int(look.width // wide)))
    with style(metric, look):
        figure, every, high = head_maps([each.values.shape for each in drawn], columns, look, alike=True)
        for at, (axes, of) in enumerate(zip(every, drawn, strict=True)):
            shades = of.values if sense else np.abs(of.values)
            image = axes.imshow(shades, cmap=map_of(run, metric), vmin=-most if sense else 0, vmax=most)
            name_panel(axes, at, of.name, look, look.width / columns)
            places = [head.layer for head in of.shown], [head.head for head in of.shown]
            axes.scatter(*places, s=0.4 * look.letters, color="black", edgecolors="white", linewidths=0.3)
            if at == min(columns, len(drawn)) - 1:
                color_bar(image, axes, f"effect on {measured(run, metric)}", look, high[at])
    return figure
