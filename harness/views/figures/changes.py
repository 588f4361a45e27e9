"""Figures of changes from one model to another: maps over heads, prompt by prompt, and the most changed head."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from matplotlib import colors
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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
from harness.views.figures.base import ATTENTION, TONE, Look, color_bar, map_of, measured, panels, ramp, style
from harness.views.figures.head_maps import head_maps
from harness.views.figures.patterns import Matrix, matrices
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
    most = ends[1] if ends[1] is not None else max(float(np.nanmax(mean.values, initial=0)), 1e-12)
    maps = by_stack(run, mean)
    with style(label, look):
        figure, every, high = head_maps([values.shape for values in maps.values()], 1, look)
        for at, (axes, (stack, values)) in enumerate(zip(every, maps.items(), strict=True)):
            image = axes.imshow(values, cmap=tones, vmin=ends[0], vmax=most)
            axes.set_ylabel(f"{stack}, head" if stack else "head")
            if not at:
                color_bar(image, axes, label, look, high[at])
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
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False, fontsize=look.small)
    return figure


def side_by_side(run: "Run", look: Look) -> Figure:
    """Show the patterns of the most changed head in both models, on the prompt on which they are furthest apart."""
    head = most_changed(run)
    prompt = furthest_prompt(run, head)
    made = []
    for of, name in zip(("", "other_"), model_names(run), strict=True):
        weights, queries, keys = pattern_of(run, prompt, head, of)
        made.append(
            Matrix(f"{head} of {name}\nprompt {prompt}", weights, list(map(short, queries)), list(map(short, keys)))
        )
    return matrices(made, look)
