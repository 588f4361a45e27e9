"""Figures of many runs: their maps on one scale with the differences to the first, and effect against effect."""

from collections.abc import Sequence
from itertools import combinations
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.results.schema import by_head
from harness.views.figures.base import EMPTY, LOOKS, TONE, Look, map_of, measured, panels, style
from harness.views.text import short, visible

if TYPE_CHECKING:
    from harness.compare.many_runs import Runs

#: Runs whose maps are drawn, and pairs whose effects are drawn against each other; the tables have all.
MAPS, PAIRS = 12, 12
_NAMED = 8  # heads named in a scatter


def maps(runs: "Runs", metric: str, look: Look = LOOKS["screen"]) -> Figure:
    """Map each run's mean effects, layers across and heads down, all on one scale; beneath each but the first the
    difference to the first, on the same scale."""
    first, names = runs.runs[0], runs.names[:MAPS]
    effect = runs.data["effect"].sel(metric=metric)
    effect = effect if "stack" not in effect.dims else effect.stack(row=["stack", "head"]).rename(row="head")
    values = effect.transpose("run", "head", "layer").values[:MAPS]
    signed = first.sense(metric) != 0
    values = values if signed else np.abs(values)
    most = max(float(np.nanmax(np.abs(values), initial=1e-12)), float(np.nanmax(np.abs(values - values[0]), initial=0)))
    columns = columns_of(runs.settings, len(names))
    rows = ceil(len(names) / columns)
    height = min(0.22 * values.shape[1] + 0.75, 6.0)
    with style(" ".join(names) + metric, look):
        figure, panes = panels(2 * rows, columns, min(look.width, 3.4 * columns + 0.8), 2 * rows * height)
        for axes in panes:
            axes.set_axis_off()
        image = None
        for at, name in enumerate(names):
            row, column = divmod(at, columns)
            image = _map(
                panes[2 * row * columns + column], values[at], most, short(visible(name), 34), runs, metric, look
            )
            if at:
                below = panes[(2 * row + 1) * columns + column]
                _map(below, values[at] - values[0], most, "less the first run", runs, metric, look)
        assert image is not None
        bar = figure.colorbar(image, ax=panes, fraction=0.02, aspect=30)
        bar.ax.tick_params(labelsize=look.small)
        bar.set_label(f"effect on {measured(first, metric)}", fontsize=look.small)
    return figure


def columns_of(settings: pd.DataFrame, n: int) -> int:
    """Return how many of n maps stand side by side, at most four: those with one value of the first of the `settings`
    [run, key] where the runs are a grid of these, else as many as leave the fewest empty places."""
    if n == len(settings) and len(settings.columns) > 1:
        n_alike = {*settings.iloc[:, 0].astype(str).value_counts()}
        if len(n_alike) == 1 and 1 < max(n_alike) <= 4:
            return max(n_alike)
    return min(n, 4) if n <= 4 else min((4, 3), key=lambda columns: -n % columns)


def _map(axes: Axes, values: np.ndarray, most: float, title: str, runs: "Runs", metric: str, look: Look):
    axes.set_axis_on()
    axes.set_facecolor(EMPTY)
    run = runs.runs[0]
    low = -most if run.sense(metric) or np.nanmin(values, initial=0) < 0 else 0
    image = axes.imshow(values, cmap=map_of(run, metric), vmin=low, vmax=most, aspect="auto", interpolation="nearest")
    axes.set_title(title, fontsize=look.small)
    axes.tick_params(labelsize=look.small)
    for line in (axes.xaxis, axes.yaxis):
        line.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("layer", fontsize=look.small)
    axes.set_ylabel("head", fontsize=look.small)
    return image


def against(runs: "Runs", metric: str, look: Look = LOOKS["screen"]) -> Figure:
    """Draw each run's effects against another's, a point for each head, with the diagonal."""
    pairs = list(combinations(range(len(runs)), 2))[:PAIRS]
    flat = [by_head(each) for each in runs.data["effect"].sel(metric=metric).transpose("run", ...)]
    columns = min(len(pairs), 4)
    rows = ceil(len(pairs) / columns)
    with style(" ".join(runs.names) + metric, look):
        figure, panes = panels(rows, columns, min(look.width, 3.3 * columns), 3.3 * rows)
        for axes in panes[len(pairs) :]:
            axes.set_axis_off()
        for axes, (a, b) in zip(panes, pairs, strict=False):
            (heads, across), (_, up) = flat[a], flat[b]
            ends = [float(np.nanmin([across, up])), float(np.nanmax([across, up]))]
            axes.plot(ends, ends, color="0.6", linewidth=0.8)
            axes.scatter(across, up, s=8, color=TONE["helps"], alpha=0.6, linewidths=0)
            size = np.nan_to_num(np.maximum(np.abs(across), np.abs(up)))
            for at in np.argsort(-size, kind="stable")[:_NAMED]:
                place, beside = (across[at], up[at]), (3, 2)
                axes.annotate(
                    str(heads[at]), place, beside, textcoords="offset points", fontsize=look.small * 0.85, alpha=0.9
                )
            axes.set_xlabel(short(visible(runs.names[a]), 34), fontsize=look.small)
            axes.set_ylabel(short(visible(runs.names[b]), 34), fontsize=look.small)
            axes.tick_params(labelsize=look.small)
    return figure


def depths(table, names: Sequence[str], unit: str, look: Look = LOOKS["screen"]) -> Figure:
    """Draw the sum of effects by relative depth, a line for each run."""
    with style(" ".join(names), look):
        figure, (axes,) = panels(1, 1, min(look.width, 8.0), 3.6)
        for name in names:
            for stack, mine in table.loc[table["run"] == name].groupby("stack"):
                axes.plot(mine["depth"], mine["effect_sum"], marker="o", label=visible(f"{name} {stack}".strip()))
        axes.axhline(0, color="0.6", linewidth=0.8)
        axes.set(xlabel="relative depth (0 first layer, 1 last)", ylabel=f"sum of effects, {unit}")
        axes.legend(frameon=False, fontsize=look.small)
    return figure
