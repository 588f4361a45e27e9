"""Figure of roles: a small map of layers and heads for each role that some head has."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from harness.views.charts.roles import role_maps
from harness.views.figures.base import ATTENTION, Look, color_bar, name_panel, ramp, style
from harness.views.figures.head_maps import head_maps

if TYPE_CHECKING:
    from harness.results import Run


def roles(run: "Run", look: Look) -> Figure:
    """Map the score of every head for each role, layers across and heads down; a dot marks a head with the role."""
    drawn = [each for each in role_maps(run) if each.heads]
    layers = max(run.layers.values())
    wide = min(4.4, 0.3 * layers + 1.4) if look.titles else max(0.085 * layers, 1.2) + 0.4
    columns = max(1, min(len(drawn), int(look.width // wide)))
    with style("".join(each.role for each in drawn), look):
        figure, every, high = head_maps([each.scores.shape for each in drawn], columns, look, alike=True)
        for at, (axes, of) in enumerate(zip(every, drawn, strict=True)):
            image = axes.imshow(np.maximum(of.scores, 0), cmap=ramp("#ffffff", ATTENTION), vmin=0, vmax=1)
            name_panel(axes, at, of.name.replace("_", " "), look, look.width / columns)
            places = [head.layer for head in of.heads], [head.head for head in of.heads]
            size = look.letters if look.titles else 0.4 * look.letters
            axes.scatter(*places, s=size, color="black", edgecolors="white", linewidths=0.06 * look.letters)
            if at == min(columns, len(drawn)) - 1:
                color_bar(image, axes, "score", look, high[at])
    return figure
