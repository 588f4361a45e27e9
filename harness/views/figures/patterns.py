"""Attention patterns as figures: one heatmap with its tokens, a grid of heads, and lines from queries to keys."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from harness.views.figures.base import (
    ATTENTION,
    LOOKS,
    Look,
    color_bar,
    every_nth,
    name_panel,
    panels,
    ramp,
    style,
)
from harness.views.pattern_table import weights
from harness.views.selection import shown_prompts
from harness.views.text import short, visible

if TYPE_CHECKING:
    import pandas as pd

    from harness.results import Run
    from harness.views.pattern_table import Weights

#: Of the heads with the largest effects: how many have a heatmap, and how many are in the grid.
_ALONE, _IN_GRID = 4, 12
#: Weights too small to be seen as lines.
_FAINT = 0.01
#: Inches of a colour bar with its label, of a matrix at least and at most, and of a printed page.
_BAR, _LEAST, _MOST, _PAGE = 0.75, 1.0, 12.0, 8.8


@dataclass(frozen=True)
class Matrix:
    """Weights with their name and the labels of their rows and columns."""

    name: str
    values: Float[np.ndarray, "query key"]
    queries: Sequence[str]
    keys: Sequence[str]


def opening_patterns(run: "Run") -> tuple[int, list["Weights"]]:
    """Return the patterns of the heads that matter on the prompt shown first, and how many of them have a figure of
    their own; all are in the grid."""
    heads = run.top_heads(run.lead_metric, _IN_GRID) if "effect" in run.data else []
    prompt, level = shown_prompts(run)[0], (run.spec.get("show") or {}).get("level", "token")
    return _ALONE, [weights(run, prompt, head, level) for head in heads]


def labels_of(shown: "Weights") -> tuple[list[str], list[str]]:
    """Return the labels of queries and keys, cut to what an axis has room for."""
    queries, keys = ([short(visible(label)) for label in axis.labels] for axis in (shown.queries, shown.keys))
    return queries, keys


def heatmap(shown: "Weights", look: Look = LOOKS["screen"]) -> Figure:
    """One pattern, queries down and keys across, white where the weight is 0 and full where it is 1.

    Of other numbers, scores or weighted values, white is the least and full the most; what is masked is grey.
    """
    return matrices([Matrix(shown.title, shown.values, *labels_of(shown))], look, _scale(shown), shown.unit)


def matrices(
    shown: Sequence[Matrix], look: Look, scale: Normalize | None = None, label: str = "attention weight"
) -> Figure:
    """Matrices on one scale, by default the square root of weights from 0 to 1; in a column of a paper one below the
    other, else side by side. Tokens that all have in common are written once."""
    scale = PowerNorm(0.5, 0, 1) if scale is None else scale  # as on the page: of small weights something is to be seen
    n, down = len(shown), look.narrow
    common = len({(*each.queries, "", *each.keys) for each in shown}) == 1
    texts = {text for each in shown for text in (*each.queries, *each.keys)}
    with style("".join(texts) + "".join(each.name for each in shown), look):
        left, bottom = (_room([text for each in shown for text in side(each)], look) for side in _SIDES)
        wide, ratio = _side(shown, left, bottom, common, look)
        high = wide * ratio
        columns, rows = (1, n) if down else (n, 1)
        width = left * (1 if common or down else n) + columns * (wide + 0.08) + _BAR
        title = 2.6 * look.letters / 72 * (look.titles or n > 1)
        height = bottom * (1 if common or not down else n) + rows * (high + title + 0.08)
        figure, every = panels(rows, columns, min(look.width, width), height)
        image: Any = None
        for at, (axes, each) in enumerate(zip(every, shown, strict=True)):
            image = _drawn(axes, each.values, scale)
            _label(axes, each, (wide, high), look, bool(at) and common and not down, common and down and at < n - 1)
            if n > 1:
                name_panel(axes, at, each.name, look, look.width - left if down else wide + (0 if common else left))
            elif look.titles:
                axes.set_title(each.name)
        color_bar(image, every[-1], label, look, high)
    return figure


#: The texts that stand left of a matrix, and those below it.
_SIDES = (lambda each: each.queries, lambda each: each.keys)


def _side(shown: Sequence[Matrix], left: float, bottom: float, common: bool, look: Look) -> tuple[float, float]:
    """Return the width in inches of each matrix, and how much higher than wide the highest is."""
    n, longest = len(shown), max(max(len(each.queries), len(each.keys)) for each in shown)
    ratio = max(min(max(len(each.queries) / max(len(each.keys), 1), 0.25), 2.5) for each in shown)
    want = min(max(0.026 * look.letters * longest, 1.6), _MOST)
    if look.narrow:
        room = look.width - left - _BAR
        down = (_PAGE - bottom * (1 if common else n)) / n - 0.4
        return max(min(want, room, down / ratio), _LEAST), ratio
    return max(min(want, (look.width - left * (1 if common else n) - _BAR) / n - 0.08), _LEAST), ratio


def _room(labels: Sequence[str], look: Look) -> float:
    """Return the inches of labels beside an axis, and of the name of the axis."""
    wide = max((sum(1 + (unicodedata.east_asian_width(each) in "WF") for each in text) for text in labels), default=1)
    return (0.58 * wide * look.small + 2.4 * look.letters) / 72


def _label(axes: Axes, of: Matrix, size: tuple[float, float], look: Look, no_queries: bool, no_keys: bool) -> None:
    """Label rows and columns of a matrix of this width and height, as many as can be read."""
    down, across = every_nth(len(of.queries), size[1], look), every_nth(len(of.keys), size[0], look)
    axes.set_yticks(down, ["" if no_queries else of.queries[at] for at in down], fontsize=look.small)
    axes.set_xticks(across, ["" if no_keys else of.keys[at] for at in across], fontsize=look.small, rotation=90)
    axes.set(xlabel="" if no_keys else "key (attended to)", ylabel="" if no_queries else "query")


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
            tall = min(4.0, (side + gap) * rows - gap)
            pane = figure.add_axes(
                ((width - bar + 0.15) / width, 1 - (gap + tall) / height, 0.12 / width, tall / height)
            )
            ticks = [0, 0.25, 1] if tall < 1 else [0, 0.1, 0.25, 0.5, 1]
            figure.colorbar(image, cax=pane, ticks=ticks)
            pane.tick_params(labelsize=look.small)
            pane.set_ylabel("attention weight", fontsize=look.small)
    return figure


def lines(shown: "Weights", look: Look = LOOKS["screen"]) -> Figure:
    """The tokens twice, queries on the left and keys on the right, a line for each weight, the darker the larger."""
    queries, keys = labels_of(shown)
    longest = max(len(queries), len(keys))
    with style("".join({*queries, *keys}) + shown.title, look):
        figure, (axes,) = panels(1, 1, min(5.0, look.width), 0.026 * look.letters * longest + 0.8)
        for query, row in enumerate(shown.values):
            for key in np.flatnonzero(row >= _FAINT):
                weight = float(row[key])
                axes.plot(
                    (0, 1), (query, int(key)), color=ATTENTION, alpha=min(1.0, weight), linewidth=0.4 + 1.6 * weight
                )
        for at, label in enumerate(queries):
            axes.text(-0.03, at, label, ha="right", va="center")
        for at, label in enumerate(keys):
            axes.text(1.03, at, label, ha="left", va="center")
        axes.set(xlim=(-0.6, 1.6), ylim=(longest - 0.5, -0.5))
        axes.set_axis_off()
        if look.titles:
            axes.set_title(shown.title)
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
        if look.titles and title:
            panes[0].set_title(short(visible(title), 60))
    return figure


def _scale(shown: "Weights") -> Normalize:
    if shown.unit in ("attention weight", "rollout"):
        return PowerNorm(0.5, 0, 1)
    there = shown.values[np.isfinite(shown.values)]
    return Normalize(min(0.0, float(there.min(initial=0))), float(there.max(initial=1e-12)))


def _drawn(axes: Axes, values: np.ndarray, scale: Normalize) -> Any:
    axes.set_facecolor("0.92")  # of masked keys
    axes.spines[["top", "right"]].set_visible(True)
    axes.spines[:].set_color("0.75")
    return axes.imshow(values, cmap=ramp("#ffffff", ATTENTION), norm=scale, aspect="auto", interpolation="nearest")
