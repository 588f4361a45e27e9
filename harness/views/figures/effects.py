"""Figures of the effects of single heads: a map of all, and the strongest prompt by prompt."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.hooks import Head
from harness.views.figures.base import TONE, Look, map_of, measured, panels, style
from harness.views.text import visible

if TYPE_CHECKING:
    from harness.results import Run

_BESIDE = {"layer_effect": "all heads", "mlp_effect": "MLP"}
_HATCHED = 0.1  # share of the largest effect from which a hurting head is struck through, to be visible without colour


def effect_map(run: "Run", metric: str, look: Look) -> Figure:
    """Map effects, layers across and heads down, a panel for each stack; below them the whole layer and its MLP.

    Blue helps, orange (struck through) hurts, white is no effect, grey was not ablated.
    """
    maps = {stack: _map(run, metric, stack) for stack in run.layers}
    most = max(float(np.nanmax(np.abs(each.values), initial=1e-12)) for each in maps.values())
    across, down = max(each.sizes["layer"] for each in maps.values()), sum(len(each) for each in maps.values())
    width = min(look.width, max(0.75 * look.letters, 0.3 * across + 2))
    cell = (width - 2) / across if width < look.width else (width - 0.12 * look.letters) / across
    with style(metric, look):
        figure, all_axes = panels(len(maps), 1, width, min(cell, 0.3) * down + 0.14 * look.letters * len(maps))
        images = [
            _draw_map(axes, run, metric, values, most, stack, look)
            for axes, (stack, values) in zip(all_axes, maps.items(), strict=True)
        ]
        bar = figure.colorbar(images[0], ax=all_axes, shrink=0.9, aspect=16, pad=0.01)
        bar.set_label(f"effect on {measured(run, metric)}", fontsize=look.small)
        bar.ax.tick_params(labelsize=look.small)
        if look.titles:
            all_axes[0].set_title(_map_title(run, metric, any(np.isnan(each.values).any() for each in maps.values())))
    return figure


def _map(run: "Run", metric: str, stack: str) -> xr.DataArray:
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


def _draw_map(axes: Axes, run: "Run", metric: str, values: xr.DataArray, most: float, stack: str, look: Look):
    signed = run.sense(metric)
    axes.set_facecolor("#d9d9d4")
    image = axes.imshow(values, cmap=map_of(run, metric), vmin=-most if signed else 0, vmax=most, aspect="equal")
    n_rows, n_layers = values.shape
    step = -(-n_layers // (34 if look.titles else 12))
    axes.set_xticks(range(0, n_layers, step), map(str, range(0, n_layers, step)), fontsize=look.small)
    axes.set_yticks(range(n_rows), [str(label) for label in values["row"].values], fontsize=look.small)
    axes.set(xlabel="layer", ylabel=f"{stack}, head" if stack else "head")
    n_heads = run.data.sizes["head"]
    if n_rows > n_heads:
        axes.axhline(n_heads - 0.5, color="black", linewidth=1)
    for row, layer in np.argwhere(signed * values.values < -_HATCHED * most):
        axes.plot([layer - 0.42, layer + 0.42], [row + 0.42, row - 0.42], color="#222222", linewidth=0.7)
    sure = _sure(run, metric, stack)
    if sure:
        axes.scatter(
            *zip(*sure, strict=True),
            s=(1.2 if look.titles else 0.5) * look.letters,
            color="black",
            edgecolors="white",
            linewidths=0.08 * look.small,
        )
    return image


def _map_title(run: "Run", metric: str, missing: bool) -> str:
    legend = "blue helps, orange struck through hurts" if run.sense(metric) else "darker matters more"
    if any(_sure(run, metric, stack) for stack in run.layers):
        legend += f"; dot: {run.rule(metric)}"
    legend += "; grey: not ablated" if missing else ""
    return f"Mean effect on {visible(metric)} of ablating each head ({legend})"


def _sure(run: "Run", metric: str, stack: str) -> list[tuple[int, int]]:
    """Return the places (across, down) of the heads beyond chance on a stack's map."""
    rows = list(run.data["head"].values)
    return [(head.layer, rows.index(head.head)) for head in sorted(run.shown(metric)) if head.stack == stack]


def strongest(run: "Run", metric: str, look: Look, n: int = 12) -> Figure:
    """Plot the n heads with the largest mean effects: a dot for each prompt, the mean and its interval."""
    heads = run.top_heads(metric, n)
    with style(metric, look):
        height = (0.032 * len(heads) + 0.13) * look.letters
        figure, (axes,) = panels(1, 1, min(7.5, look.width), height)
        axes.axvline(0, color="0.5", linewidth=0.8)
        for row, head in enumerate(heads):
            _strip(axes, run, metric, head, row)
        axes.set_yticks(range(len(heads)), map(str, heads))
        axes.invert_yaxis()
        spread = run.estimate(metric, heads[0]).kind if heads else ""
        dots = f" (one dot per prompt; lines: mean, {spread})" if look.titles else ""
        axes.set(xlabel=f"effect on {measured(run, metric)}{dots}")
        doubtful = any(run.verdict(metric, head) == "unsure" for head in heads)
        doubt = f" (hollow: not shown, {run.rule(metric)})" if doubtful else ""
        if look.titles:
            axes.set_title(f"Largest mean effects on {visible(metric)}{doubt}")
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
