"""Figures of joint ablations: named sets, one head after another, and pairs."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from harness.hooks import STACKS, Head
from harness.views.figures.base import TONE, Look, map_of, measured, panels, ramp, style
from harness.views.text import short, visible

if TYPE_CHECKING:
    from harness.results import Run

_MATRIX = 40  # heads; with more, the pairs that matter most are listed instead


def sets(run: "Run", metric: str, look: Look, n: int = 20) -> Figure:
    """Plot sets of heads, the largest mean effect first: a dot for each prompt, the mean and its standard error."""
    effect = run.data["set_effect"].sel(metric=metric).transpose("set", "prompt").values.astype(float)
    order = np.argsort(-np.abs(effect.mean(axis=1)), kind="stable")[:n]
    names = [visible(str(run.data["set"].values[at])) for at in order]
    with style(metric + "".join(names), look):
        figure, (axes,) = panels(1, 1, min(7.5, look.width), (0.032 * len(order) + 0.13) * look.letters)
        axes.axvline(0, color="0.5", linewidth=0.8)
        for row, at in enumerate(order):
            values, mean = effect[at], effect[at].mean()
            error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
            axes.scatter(
                values, np.full(len(values), row), s=16, alpha=0.5, linewidths=0, color=_tone(run, metric, mean)
            )
            axes.plot([mean] * 2, [row - 0.3, row + 0.3], color="black", linewidth=1.6)
            axes.plot([mean - error, mean + error], [row, row], color="black", linewidth=0.9)
        axes.set_yticks(range(len(order)), [short(name, 40) for name in names])
        axes.invert_yaxis()
        kept = "kept" in run.data["set_effect"].attrs.get("together", "")
        axes.set_xlabel(f"effect{' of keeping only the set' if kept else ''} on {measured(run, metric)}")
    return figure


def pruning(run: "Run", metric: str, look: Look) -> Figure:
    """Plot the metric's change as heads are ablated one after another, a line per order; random orders as a band."""
    effect = run.data["cumulative_effect"].sel(metric=metric).mean("prompt").transpose("order", "step")
    names = [str(name) for name in effect["order"].values]
    random = [at for at, name in enumerate(names) if name.startswith("random")]
    steps = np.arange(1, effect.sizes["step"] + 1)
    lines = ("solid", "dashed", "dashdot", "dotted")
    with style(metric + "".join(names), look):
        figure, (axes,) = panels(1, 1, min(7.5, look.width), 0.38 * look.letters)
        axes.axhline(0, color="0.5", linewidth=0.8)
        if random:
            some = effect.values[random]
            axes.fill_between(steps, some.min(axis=0), some.max(axis=0), color="0.8", label="random orders")
        for number, at in enumerate(each for each in range(len(names)) if each not in random):
            color = (TONE["helps"], TONE["hurts"], TONE["matters"], "#222222")[number % 4]
            axes.plot(steps, effect.values[at], linestyle=lines[number % 4], color=color, label=visible(names[at]))
        axes.set(xlabel="heads ablated", ylabel=f"effect on {measured(run, metric)}")
        axes.legend(frameon=False, fontsize=look.small)
    return figure


def pairs(run: "Run", metric: str, look: Look) -> Figure:
    """Map the joint effect of two heads less the sum of both, a matrix of heads; with many heads a list of the largest
    pairs."""
    values, ends = _beyond_the_sum(run, metric)
    heads = list(map(str, sorted((Head.parse(end) for end in {end for pair in ends for end in pair}), key=_as_run)))
    if len(heads) > _MATRIX:
        return _listed(run, metric, values, ends, look)
    whole = np.full((len(heads), len(heads)), np.nan)
    for value, (a, b) in zip(values, ends, strict=True):
        whole[heads.index(a), heads.index(b)] = whole[heads.index(b), heads.index(a)] = value
    most = float(np.nanmax(np.abs(whole), initial=1e-12))
    with style(metric, look):
        width = min(look.width, 0.3 * len(heads) + 2.4)
        figure, (axes,) = panels(1, 1, width, width * 0.86)
        axes.set_facecolor("#d9d9d4")
        colours = map_of(run, metric) if run.sense(metric) else ramp(TONE["hurts"], "#ffffff", TONE["matters"])
        image = axes.imshow(whole, cmap=colours, vmin=-most, vmax=most, aspect="auto")
        axes.set_xticks(range(len(heads)), heads, rotation=90, fontsize=look.small)
        axes.set_yticks(range(len(heads)), heads, fontsize=look.small)
        figure.colorbar(image, ax=axes, shrink=0.8).set_label(_beyond(run, metric), fontsize=look.small)
    return figure


def _as_run(head: Head) -> tuple[int, int, int]:
    """Return the sort key of heads in the order in which they run."""
    return (*STACKS, "").index(head.stack), head.layer, head.head


def _listed(run: "Run", metric: str, values: np.ndarray, ends: list[tuple[str, str]], look: Look) -> Figure:
    order = np.argsort(-np.abs(np.nan_to_num(values)), kind="stable")[:20]
    with style(metric, look):
        figure, (axes,) = panels(1, 1, min(7.5, look.width), (0.03 * len(order) + 0.12) * look.letters)
        axes.barh(range(len(order)), values[order], color=[_tone(run, metric, float(values[at])) for at in order])
        axes.axvline(0, color="0.5", linewidth=0.8)
        axes.set_yticks(range(len(order)), [f"{ends[at][0]} + {ends[at][1]}" for at in order], fontsize=look.small)
        axes.invert_yaxis()
        axes.set_xlabel(_beyond(run, metric))
    return figure


def _beyond_the_sum(run: "Run", metric: str) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Return each pair's mean joint effect less the sum of both single effects, and the names of its heads."""
    beyond = run.data["pair_difference"].sel(metric=metric).mean("prompt")
    ends = zip(beyond["head_a"].values, beyond["head_b"].values, strict=True)
    return beyond.values.astype(float), [(str(a), str(b)) for a, b in ends]


def _beyond(run: "Run", metric: str) -> str:
    return f"effect of both less the sum of each, {measured(run, metric)}"


def _tone(run: "Run", metric: str, effect: float) -> str:
    return TONE[run.side(metric, effect)]
