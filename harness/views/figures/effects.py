"""Figures of the effects of single heads: a map of all, and the strongest prompt by prompt."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from harness.hooks import Head
from harness.views.charts.describe import in_full
from harness.views.figures.base import (
    INK,
    TONE,
    Look,
    color_bar,
    every_nth,
    map_of,
    measured,
    name_across,
    panels,
    style,
    wrapped,
)
from harness.views.figures.head_maps import head_maps

if TYPE_CHECKING:
    from harness.results import Run

_BESIDE = {"layer_effect": "all heads", "mlp_effect": "MLP"}
#: Heads in the figure of the strongest.
STRONGEST = 12
_HATCHED = 0.1  # share of the largest effect from which a cell that hurts is hatched, to be told without colour


def effect_map(run: "Run", metric: str, look: Look) -> Figure:
    """Map effects, layers across and heads down, a panel for each stack; below them the whole layer and its MLP.

    As on the page: blue helps, orange and hatched hurts, white is no effect, grey was not ablated; a frame marks an
    important head, a dot one that is only shown to have an effect.
    """
    maps = {stack: mean_effects(run, metric, stack) for stack in run.layers}
    most = max(float(np.nanmax(np.abs(each.values), initial=1e-12)) for each in maps.values())
    with style(metric, look):
        figure, every, high = head_maps([each.shape for each in maps.values()], 1, look, least=7.5)
        for at, (axes, (stack, values)) in enumerate(zip(every, maps.items(), strict=True)):
            image = _draw_map(axes, run, metric, values, most, stack, look, high[at])
            if not at:
                color_bar(image, axes, f"effect on {measured(run, metric)}", look, high[at])
        if look.titles:
            title = f"Mean effect on {in_full(metric)} of ablating each head ({legend(run, metric)})"
            every[0].set_title("\n".join(wrapped(title, 6.5, look.letters)))
    return figure


def mean_effects(run: "Run", metric: str, stack: str) -> xr.DataArray:
    """Return mean effects [row, layer] of one stack: a row for each head, one for the layer, one for its MLP."""
    names = [name for name in ("effect", *_BESIDE) if name in run.data]
    means = [run.data[name].sel(metric=metric).mean("prompt") for name in names]
    mine = {name: mean.sel(stack=stack) if stack else mean for name, mean in zip(names, means, strict=True)}
    mine = {name: mean for name, mean in mine.items() if name == "effect" or mean.notnull().any()}
    rows = [np.atleast_2d(mean.transpose(..., "layer").values) for mean in mine.values()]
    labels = [str(row) for row in run.data["head"].values] + [_BESIDE[name] for name in mine if name != "effect"]
    whole = xr.DataArray(np.concatenate(rows), dims=("row", "layer"), coords={"row": labels})
    whole = whole.isel(layer=slice(run.layers[stack]))
    return whole if run.sense(metric) else abs(whole)


def _draw_map(
    axes: Axes, run: "Run", metric: str, values: xr.DataArray, most: float, stack: str, look: Look, high: float
):
    signed, n_heads = run.sense(metric), run.data.sizes["head"]
    image = axes.imshow(values, cmap=map_of(run, metric), vmin=-most if signed else 0, vmax=most, aspect="equal")
    if len(values) > n_heads:
        heads = every_nth(n_heads, high * n_heads / len(values), look)
        rows = [*(at for at in heads if at < n_heads - heads.step / 2), *range(n_heads, len(values))]
        axes.set_yticks(rows, [str(values["row"].values[at]) for at in rows])
        axes.axhline(n_heads - 0.5, color="black", linewidth=1)
    axes.set_ylabel(f"{stack}, head" if stack else "head")
    for row, layer in np.argwhere(signed * values.values < -_HATCHED * most):
        ink = to_rgba(
            INK, 0.4 + 0.6 * abs(float(values.values[row, layer])) / most
        )  # strong effects are hatched darker
        cell = Rectangle((layer - 0.5, row - 0.5), 1, 1, fill=False, linewidth=0, edgecolor=ink)
        cell.set_hatch("/" * (4 if look.titles else 9))
        axes.add_patch(cell)
    important, shown = marked(run, metric, stack)
    for across, down in important:
        line = 0.16 * look.letters if look.titles else 0.1 * look.letters
        axes.add_patch(Rectangle((across - 0.42, down - 0.42), 0.84, 0.84, fill=False, edgecolor=INK, linewidth=line))
    if shown:
        axes.scatter(
            *zip(*shown, strict=True), s=(0.8 if look.titles else 0.25) * look.letters, color=INK, linewidths=0
        )
    return image


def legend(run: "Run", metric: str) -> str:
    """Return what colours and marks of a map mean."""
    parts = ["blue helps, orange hatched hurts" if run.sense(metric) else "darker matters more"]
    every = [marked(run, metric, stack) for stack in run.layers]
    share = run.threshold(metric)[0] if any(important for important, _ in every) else 0
    parts += [f"frame: important, beyond ±{100 * share:g} % of clean"] if share else []
    parts += [f"dot: {run.rule(metric)}"] if any(shown for _, shown in every) else []
    missing = any(np.isnan(mean_effects(run, metric, stack).values).any() for stack in run.layers)
    return "; ".join([*parts, *(["grey: not ablated"] if missing else [])])


def marked(run: "Run", metric: str, stack: str) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the places (across, down) on a stack's map of important heads, and of others shown to have an effect.

    There are none where the heads were not tested: all would be marked.
    """
    rows, claims = list(run.data["head"].values), run.claims(metric)
    heads = [head for head in sorted(run.shown(metric)) if head.stack == stack] if run.tested(metric) else []
    places = {head: (head.layer, rows.index(head.head)) for head in heads}
    important = [head for head in heads if head in claims and claims[head].important == 1]
    return [places[head] for head in important], [place for head, place in places.items() if head not in important]


def strongest(run: "Run", metric: str, look: Look, n: int = STRONGEST) -> Figure:
    """Plot the n heads with the largest mean effects: a dot for each prompt, the mean and its interval."""
    heads = run.top_heads(metric, n)
    with style(metric, look):
        height = ((0.032 if look.titles else 0.024) * len(heads) + 0.13) * look.letters
        figure, (axes,) = panels(1, 1, min(7.5, look.width), height)
        axes.axvline(0, color="0.5", linewidth=0.8)
        for row, head in enumerate(heads):
            _strip(axes, run, metric, head, row)
        axes.set_yticks(range(len(heads)), map(str, heads))
        axes.invert_yaxis()
        spread = run.estimate(metric, heads[0]).kind if heads else ""
        lines = f"mean, {spread}{'; dashed: direct' if 'direct' in run.data else ''}"
        dots = f" (one dot per prompt; lines: {lines})" if look.titles else ""
        name_across(axes, f"effect on {measured(run, metric)}{dots}", look, 0.75 * min(7.5, look.width))
        doubtful = any(run.verdict(metric, head) == "unsure" for head in heads)
        doubt = f" (hollow: not shown, {run.rule(metric)})" if doubtful else ""
        if look.titles:
            axes.set_title(f"Largest mean effects on {in_full(metric)}{doubt}")
    return figure


def _strip(axes: Axes, run: "Run", metric: str, head: Head, row: int) -> None:
    effect: Float[np.ndarray, " prompt"] = run.effect(metric, head)
    about = run.estimate(metric, head)
    offset = (np.arange(len(effect)) * 7 % 5 - 2) * 0.06
    tone = TONE[run.side(metric, about.mean)]
    if run.verdict(metric, head) == "unsure":
        axes.scatter(effect, row + offset, s=14, alpha=0.8, facecolors="none", edgecolors=tone, linewidths=0.8)
    else:
        axes.scatter(effect, row + offset, s=16, alpha=0.5, linewidths=0, color=tone)
    axes.plot([about.mean] * 2, [row - 0.3, row + 0.3], color="black", linewidth=1.6)
    if np.isfinite(about.low):
        axes.plot([about.low, about.high], [row, row], color="black", linewidth=0.9)
    if "direct" in run.data and np.isfinite(direct := float(run.effect(metric, head, "direct").mean())):
        axes.plot([direct] * 2, [row - 0.4, row + 0.4], color=INK, linewidth=0.9, linestyle=(0, (2, 1.2)))
