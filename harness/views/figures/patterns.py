"""Attention patterns as figures: one heatmap with its tokens, a grid of heads, and lines from queries to keys."""

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from harness.views.figures.base import ATTENTION, LOOKS, Look, panels, ramp, style
from harness.views.text import short, visible

if TYPE_CHECKING:
    import pandas as pd

    from harness.views.pattern_table import Weights

#: Tokens on an axis whose labels can still be read side by side; of more, every n-th is written.
_LABELLED = 48
#: Weights too small to be seen as lines.
_FAINT = 0.01


def heatmap(weights: "Weights", look: Look = LOOKS["screen"]) -> Figure:
    """One pattern, queries down and keys across, white where the weight is 0 and full where it is 1.

    Of other numbers, scores or weighted values, white is the least and full the most; what is masked is grey.
    """
    queries, keys = ([short(visible(label)) for label in axis.labels] for axis in (weights.queries, weights.keys))
    size = 0.026 * look.letters
    with style("".join({*queries, *keys}) + weights.title, look):
        width = min(look.width, max(3.0, size * len(keys) + 2.2))
        figure, (axes,) = panels(1, 1, width, max(2.6, (width - 2.2) * len(queries) / max(len(keys), 1) + 1.6))
        image = _drawn(axes, weights.values, _scale(weights))
        _ticks(axes, queries, keys, look)
        axes.set(xlabel="key (attended to)", ylabel="query")
        if look.titles:
            axes.set_title(weights.title)
        figure.colorbar(image, ax=axes, label=weights.unit, fraction=0.04)
    return figure


def heatmaps(every: Sequence["Weights"], columns: int, look: Look = LOOKS["screen"]) -> Figure:
    """Small heatmaps side by side, `columns` in a row, each with its own name, on one scale from 0 to 1.

    All are images on one pair of axes: with axes of its own for each, 270 of them take four times as long.
    """
    rows, frames = ceil(len(every) / columns), []
    with style("".join(each.title for each in every), look):
        side, gap, bar = min(1.3, (look.width - 0.9) / columns), look.small / 72 * 2, 0.9
        width, height = side * columns + bar, (side + gap) * rows + 0.1
        figure, _ = panels(0, 0, width, height)
        figure.set_layout_engine("none")
        # In inches from the upper left corner; masked keys are grey.
        axes, tones = figure.add_axes((0, 0, 1, 1)), ramp("#ffffff", ATTENTION).with_extremes(bad="0.92")
        axes.set_axis_off()
        image = None
        for at, each in enumerate(every):
            left, top = side * (at % columns) + 0.04, (side + gap) * (at // columns) + gap
            place = (left, left + side - 0.08, top + side, top)
            image = axes.imshow(
                each.values, tones, norm=PowerNorm(0.5, 0, 1), aspect="auto", interpolation="nearest", extent=place
            )
            frames.append(Rectangle((left, top), side - 0.08, side))
            axes.text(left, top - 6 / 72, visible(each.title), fontsize=look.small, va="baseline")
        axes.add_collection(PatchCollection(frames, facecolor="none", edgecolor="0.75", linewidth=0.8))
        axes.set(xlim=(0, width), ylim=(height, 0))
        if image is not None:
            tall = min(2.5, height - 0.4)
            pane = figure.add_axes(
                ((width - bar + 0.15) / width, 1 - (gap + tall) / height, 0.12 / width, tall / height)
            )
            figure.colorbar(image, cax=pane, label="attention weight")
    return figure


def lines(weights: "Weights", look: Look = LOOKS["screen"]) -> Figure:
    """The tokens twice, queries on the left and keys on the right, a line for each weight, the darker the larger."""
    queries, keys = ([short(visible(label)) for label in axis.labels] for axis in (weights.queries, weights.keys))
    with style("".join({*queries, *keys}) + weights.title, look):
        figure, (axes,) = panels(1, 1, 5.0, 0.026 * look.letters * max(len(queries), len(keys)) + 0.8)
        for query, row in enumerate(weights.values):
            for key in np.flatnonzero(row >= _FAINT):
                weight = float(row[key])
                axes.plot(
                    (0, 1), (query, int(key)), color=ATTENTION, alpha=min(1.0, weight), linewidth=0.4 + 1.6 * weight
                )
        for at, label in enumerate(queries):
            axes.text(-0.03, at, label, ha="right", va="center")
        for at, label in enumerate(keys):
            axes.text(1.03, at, label, ha="left", va="center")
        axes.set(xlim=(-0.6, 1.6), ylim=(max(len(queries), len(keys)) - 0.5, -0.5))
        axes.set_axis_off()
        if look.titles:
            axes.set_title(weights.title)
    return figure


def products(table: "pd.DataFrame", look: Look = LOOKS["screen"]) -> Figure:
    """A query, a key and their product, a column for each dimension of the head, each row on a scale of its own."""
    title = str(table.attrs["title"])
    with style(title, look):
        figure, panes = panels(3, 1, look.width * 0.7, 3.4)
        for axes, name, label in zip(panes, ("q", "k", "product"), ("query", "key", "query × key"), strict=True):
            row = table[name].to_numpy()
            most = float(np.abs(row).max(initial=1e-12))
            axes.bar(np.arange(len(row)), row, color=ATTENTION, width=0.9)
            axes.axhline(0, color="0.6", linewidth=0.6)
            axes.set(ylim=(-1.05 * most, 1.05 * most), xlim=(-0.5, len(row) - 0.5))
            axes.set_ylabel(label, fontsize=look.small)
        panes[-1].set_xlabel("dimension of the head")
        if look.titles:
            panes[0].set_title(short(visible(title), 60))
    return figure


def _scale(weights: "Weights") -> Normalize:
    if weights.unit in ("attention weight", "rollout"):
        return PowerNorm(0.5, 0, 1)  # as on the page: of small weights something is to be seen
    there = weights.values[np.isfinite(weights.values)]
    return Normalize(min(0.0, float(there.min(initial=0))), float(there.max(initial=1e-12)))


def _drawn(axes: Axes, values: np.ndarray, scale: Normalize) -> Any:
    axes.set_facecolor("0.92")  # of masked keys
    axes.spines[["top", "right"]].set_visible(True)
    axes.spines[:].set_color("0.75")
    return axes.imshow(values, cmap=ramp("#ffffff", ATTENTION), norm=scale, aspect="auto", interpolation="nearest")


def _ticks(axes: Axes, queries: Sequence[str], keys: Sequence[str], look: Look) -> None:
    down, across = (range(0, len(labels), ceil(len(labels) / _LABELLED) or 1) for labels in (queries, keys))
    axes.set_yticks(down, [queries[at] for at in down], fontsize=look.small)
    axes.set_xticks(across, [keys[at] for at in across], fontsize=look.small, rotation=90)
