"""Figures of changes from one model to another: maps over heads, prompt by prompt, and the most changed head."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from matplotlib import colors
from matplotlib.figure import Figure

from harness.views.charts.changes import (
    DISTANCE,
    by_stack,
    clean_values,
    furthest_prompt,
    mean_change,
    mean_distance,
    model_names,
    most_changed,
    pattern_of,
)
from harness.views.figures.base import ATTENTION, TONE, Look, map_of, measured, panels, ramp, style
from harness.views.text import short

if TYPE_CHECKING:
    from harness.results import Run


def distances(run: "Run", look: Look) -> Figure:
    """Map the distance of each head's patterns in the two models, layers across and heads down."""
    return _map(run, mean_distance(run), DISTANCE, ramp("#ffffff", ATTENTION), (0.0, None), look)


def effects(run: "Run", metric: str, look: Look) -> Figure:
    """Map the change of each head's effect."""
    mean = mean_change(run, metric)
    most = max(float(np.nanmax(np.abs(mean.values), initial=0)), 1e-12)
    tones = map_of(run, metric) if run.sense(metric) else ramp(TONE["hurts"], "#ffffff", TONE["matters"])
    return _map(run, mean, f"change of effect on {measured(run, metric)}", tones, (-most, most), look)


def _map(
    run: "Run", mean: xr.DataArray, label: str, tones: colors.Colormap, ends: tuple[float, float | None], look: Look
) -> Figure:
    stacks, heads = run.layers, run.data.sizes["head"]
    across = max(stacks.values())
    width = min(look.width, 0.3 * across + 2)
    cell = min((width - 2) / across, 0.3)
    with style(label, look):
        figure, all_axes = panels(len(stacks), 1, width, max(cell * heads + 0.1 * look.letters, 3.0) * len(stacks))
        most = ends[1] if ends[1] is not None else max(float(np.nanmax(mean.values, initial=0)), 1e-12)
        for axes, (stack, values) in zip(all_axes, by_stack(run, mean).items(), strict=True):
            axes.set_facecolor("#d9d9d4")
            image = axes.imshow(values, cmap=tones, vmin=ends[0], vmax=most)
            axes.set(xlabel="layer", ylabel=f"{stack}, head" if stack else "head")
            axes.tick_params(labelsize=look.small)
            figure.colorbar(image, ax=axes, shrink=0.9, aspect=16, pad=0.01).set_label(label, fontsize=look.small)
    return figure


def by_prompt(run: "Run", metric: str, look: Look) -> Figure:
    """Plot the metric of each prompt in both models."""
    base, other = clean_values(run, metric)
    names = model_names(run)
    with style(metric + "".join(names), look):
        figure, (axes,) = panels(1, 1, min(7.5, look.width), 0.32 * look.letters)
        at = np.arange(len(base))
        axes.vlines(at, base, other, color="0.6", linewidth=1)
        axes.scatter(at, base, s=18, color=TONE["helps"], label=names[0])
        axes.scatter(at, other, s=18, color=TONE["hurts"], marker="s", label=names[1])
        axes.set(xlabel="prompt", ylabel=measured(run, metric))
        axes.legend(frameon=False, fontsize=look.small)
    return figure


def side_by_side(run: "Run", look: Look) -> Figure:
    """Show the patterns of the most changed head in both models, on the prompt on which they are furthest apart."""
    head = most_changed(run)
    prompt = furthest_prompt(run, head)
    side = min(6.0, look.width / (2 if look.titles else 1))
    rows, columns = (1, 2) if look.titles else (2, 1)
    patterns = [pattern_of(run, prompt, head, of) for of in ("", "other_")]
    shown = [(weights, list(map(short, queries)), list(map(short, keys))) for weights, queries, keys in patterns]
    text = "".join(token for _, queries, keys in shown for token in (*queries, *keys))
    with style(text, look):
        figure, all_axes = panels(rows, columns, side * columns, side * rows)
        for axes, (weights, queries, keys), name in zip(all_axes, shown, model_names(run), strict=True):
            axes.imshow(weights, cmap=ramp("#ffffff", ATTENTION), norm=colors.PowerNorm(0.5, 0, 1))
            for tokens, ticks, turn in ((keys, axes.set_xticks, 90), (queries, axes.set_yticks, 0)):
                step = -(-len(tokens) // 48)
                ticks(range(0, len(tokens), step), tokens[::step], rotation=turn, fontsize=look.small)
            axes.set_title(f"{head} of {name}\nprompt {prompt}", fontsize=look.letters)
    return figure
