"""Figures of joint ablations: named sets, one head after another, and pairs."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.views.charts.joint import MATRIX, Pairs, beyond_label, orders, pairs_of, set_label, set_rows
from harness.views.figures.base import (
    EMPTY,
    TONE,
    Look,
    color_bar,
    every_nth,
    map_of,
    measured,
    name_across,
    panels,
    ramp,
    style,
    wrapped,
)
from harness.views.text import short, visible

if TYPE_CHECKING:
    from harness.results import Run


def sets(run: "Run", metric: str, look: Look, n: int = 20) -> Figure:
    """Plot sets of heads, the largest mean effect first: a dot for each prompt, the mean and its standard error."""
    rows = set_rows(run, metric, n)
    with style(metric + "".join(each.name for each in rows), look):
        figure, (axes,) = panels(1, 1, min(7.5, look.width), (0.032 * len(rows) + 0.13) * look.letters)
        axes.axvline(0, color="0.5", linewidth=0.8)
        for row, each in enumerate(rows):
            tone, about = _tone(run, metric, each.about.mean), each.about
            axes.scatter(each.effect, np.full(len(each.effect), row), s=16, alpha=0.5, linewidths=0, color=tone)
            axes.plot([about.mean] * 2, [row - 0.3, row + 0.3], color="black", linewidth=1.6)
            if np.isfinite(about.low):
                axes.plot([about.low, about.high], [row, row], color="black", linewidth=0.9)
        axes.set_yticks(range(len(rows)), [short(each.name, 18 if look.narrow else 40) for each in rows])
        axes.invert_yaxis()
        name_across(axes, set_label(run, metric), look, 0.6 * min(7.5, look.width))
    return figure


def pruning(run: "Run", metric: str, look: Look) -> Figure:
    """Plot the metric's change as heads are ablated one after another, a line per order; random orders as a band."""
    of = orders(run, metric)
    steps = np.arange(1, of.n_steps + 1)
    lines = ("solid", "dashed", "dashdot", "dotted")
    with style(metric + "".join(of.named), look):
        figure, (axes,) = panels(1, 1, min(7.5, look.width), 0.38 * look.letters)
        axes.axhline(0, color="0.5", linewidth=0.8)
        if len(of.random):
            ends = of.random.min(axis=0), of.random.max(axis=0)
            axes.fill_between(steps, *ends, color="0.8", label="random orders")
        for number, (name, values) in enumerate(of.named.items()):
            color = (TONE["helps"], TONE["hurts"], TONE["matters"], "#222222")[number % 4]
            axes.plot(steps, values, linestyle=lines[number % 4], color=color, label=visible(name))
        axes.set_xlabel("heads ablated")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel("\n".join(wrapped(f"effect on {measured(run, metric)}", 0.3 * look.letters, look.letters)))
        axes.legend(frameon=False, fontsize=look.small)
    return figure


def pairs(run: "Run", metric: str, look: Look) -> Figure:
    """Map the joint effect of two heads less the sum of both, a matrix of heads; with many heads a list of the largest
    pairs."""
    of = pairs_of(run, metric)
    heads = of.heads
    if len(heads) > MATRIX:
        return _listed(run, metric, of, look)
    whole = of.matrix()
    most = float(np.nanmax(np.abs(whole), initial=1e-12))
    with style(metric, look):
        width = min(look.width, 0.3 * len(heads) + 2.4)
        figure, (axes,) = panels(1, 1, width, width * 0.86)
        axes.set_facecolor(EMPTY)
        colours = map_of(run, metric) if run.sense(metric) else ramp(TONE["hurts"], "#ffffff", TONE["matters"])
        image = axes.imshow(whole, cmap=colours, vmin=-most, vmax=most, aspect="auto")
        some = every_nth(len(heads), 0.86 * width - 0.6, look)
        axes.set_xticks(some, [heads[at] for at in some], rotation=90, fontsize=look.small)
        axes.set_yticks(some, [heads[at] for at in some], fontsize=look.small)
        color_bar(image, axes, beyond_label(run, metric), look, 0.86 * width - 0.6)
    return figure


def _listed(run: "Run", metric: str, of: Pairs, look: Look) -> Figure:
    order = of.largest()
    with style(metric, look):
        figure, (axes,) = panels(1, 1, min(7.5, look.width), (0.03 * len(order) + 0.12) * look.letters)
        axes.barh(range(len(order)), of.beyond[order], color=[_tone(run, metric, float(of.beyond[at])) for at in order])
        axes.axvline(0, color="0.5", linewidth=0.8)
        axes.set_yticks(range(len(order)), [" + ".join(of.ends[at]) for at in order], fontsize=look.small)
        axes.invert_yaxis()
        name_across(axes, beyond_label(run, metric), look, 0.6 * min(7.5, look.width))
    return figure


def _tone(run: "Run", metric: str, effect: float) -> str:
    return TONE[run.side(metric, effect)]
