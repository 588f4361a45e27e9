"""Figure of roles: a small map of layers and heads for each role that some head has."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from harness.views.charts.roles import role_maps
from harness.views.figures.base import ATTENTION, Look, panels, ramp, style

if TYPE_CHECKING:
    from harness.results import Run


def roles(run: "Run", look: Look) -> Figure:
    """Map the score of every head for each role, layers across and heads down; a dot marks a head with the role."""
    drawn = [each for each in role_maps(run) if each.heads]
    across, heads = max(run.layers.values()), run.data.sizes["head"]
    each = min(4.4, 0.3 * across + 1.4)
    columns = max(1, min(len(drawn), int(look.width // each)))
    rows = -(-len(drawn) // columns)
    with style("".join(each.role for each in drawn), look):
        width = min(look.width, each * columns + 0.6)
        cell = (each - 0.9) / across
        height = (min(cell, 0.3) * heads + 0.09 * look.letters) * rows
        figure, all_axes = panels(rows, columns, width, height)
        image = None
        for axes, of in zip(all_axes, drawn, strict=False):
            axes.set_facecolor("#d9d9d4")
            image = axes.imshow(np.maximum(of.scores, 0), cmap=ramp("#ffffff", ATTENTION), vmin=0, vmax=1)
            axes.set_title(of.name, fontsize=look.letters)
            places = [head.layer for head in of.heads], [head.head for head in of.heads]
            axes.scatter(*places, s=look.letters, color="black", edgecolors="white", linewidths=0.6)
            axes.tick_params(labelsize=look.small)
            axes.set(xlabel="layer", ylabel="head")
        for axes in all_axes[len(drawn) :]:
            axes.set_visible(False)
        if image is not None:
            figure.colorbar(image, ax=all_axes, shrink=0.6, aspect=30, pad=0.01).ax.tick_params(labelsize=look.small)
    return figure
