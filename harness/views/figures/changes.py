"""Figures of changes from one model to another: maps over heads, prompt by prompt, and the most changed head."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from matplotlib import colors
from matplotlib.figure import Figure

from harness.findings.changes import other_name, rows_of
from harness.findings.format import named
from harness.hooks import Head
from harness.results.schema import pattern_variable
from harness.views.figures.base import ATTENTION, TONE, Look, map_of, measured, panels, ramp, style
from harness.views.text import short, visible

if TYPE_CHECKING:
    from harness.results import Run


def distances(run: "Run", look: Look) -> Figure:
    """Map the distance of each head's patterns in the two models, layers across and heads down."""
    mean = run.data["pattern_distance"].mean("prompt")
    return _map(run, mean, "Jensen–Shannon distance of patterns", ramp("#ffffff", ATTENTION), (0.0, None), look)


def effects(run: "Run", metric: str, look: Look) -> Figure:
    """Map the change of each head's effect."""
    mean = run.data["effect_change"].sel(metric=metric).mean("prompt")
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
        for axes, (stack, n) in zip(all_axes, stacks.items(), strict=True):
            values = (mean.sel(stack=stack) if stack else mean).transpose("head", "layer").values[:, :n]
            axes.set_facecolor("#d9d9d4")
            image = axes.imshow(values, cmap=tones, vmin=ends[0], vmax=most)
            axes.set(xlabel="layer", ylabel=f"{stack}, head" if stack else "head")
            axes.tick_params(labelsize=look.small)
            figure.colorbar(image, ax=axes, shrink=0.9, aspect=16, pad=0.01).set_label(label, fontsize=look.small)
    return figure


def by_prompt(run: "Run", metric: str, look: Look) -> Figure:
    """Plot the metric of each prompt in both models."""
    base, other = (run.data[name].sel(metric=metric).values.astype(float) for name in ("clean", "other_clean"))
    names = [visible(name) for name in (named(run.spec.get("model")), other_name(run))]
    with style(metric + "".join(names), look):
        figure, (axes,) = panels(1, 1, min(7.5, look.width), 0.32 * look.letters)
        at = np.arange(len(base))
        axes.vlines(at, base, other, color="0.6", linewidth=1)
        axes.scatter(at, base, s=18, color=TONE["helps"], label=names[0])
        axes.scatter(at, other, s=18, color=TONE["hurts"], marker="s", label=names[1])
        axes.set(xlabel="prompt", ylabel=measured(run, metric))
        axes.legend(frameon=False, fontsize=look.small)
    return figure


def most_changed(run: "Run") -> Head:
    """Return the head whose patterns are furthest apart; of equal patterns, the one whose effect changed most."""
    rows = rows_of(run, run.lead_metric)
    return max(rows, key=lambda each: np.nan_to_num([each[1]["distance_mean"], abs(each[1]["change_mean"])]).tolist())[
        0
    ]


def side_by_side(run: "Run", look: Look) -> Figure:
    """Show the patterns of the most changed head in both models, on the prompt on which they are furthest apart."""
    head = most_changed(run)
    apart = run.data["pattern_distance"].sel(head.place).values
    prompt = int(np.nan_to_num(apart).argmax())
    side = min(6.0, look.width / (2 if look.titles else 1))
    rows, columns = (1, 2) if look.titles else (2, 1)
    shown = [_pattern(run, prompt, head, of) for of in ("", "other_")]
    text = "".join(token for _, queries, keys in shown for token in (*queries, *keys))
    with style(text, look):
        figure, all_axes = panels(rows, columns, side * columns, side * rows)
        names = (named(run.spec.get("model")), other_name(run))
        for axes, (weights, queries, keys), name in zip(all_axes, shown, names, strict=True):
            axes.imshow(weights, cmap=ramp("#ffffff", ATTENTION), norm=colors.PowerNorm(0.5, 0, 1))
            for tokens, ticks, turn in ((keys, axes.set_xticks, 90), (queries, axes.set_yticks, 0)):
                step = -(-len(tokens) // 48)
                ticks(range(0, len(tokens), step), tokens[::step], rotation=turn, fontsize=look.small)
            axes.set_title(f"{head} of {visible(name)}\nprompt {prompt}", fontsize=look.letters)
    return figure


def _pattern(run: "Run", prompt: int, head: Head, of: str) -> tuple[np.ndarray, list[str], list[str]]:
    """Return one model's weights on a prompt, and the tokens along queries and keys."""
    name, *sides = pattern_variable(head.stack)
    mine = of if f"{of}token" in run.data else ""
    weights = run.data[f"{of}{name}"].isel(prompt=prompt).sel(layer=head.layer, head=head.head).values.astype(float)
    tokens = []
    for side in sides:
        prefix = "source_" if side.startswith("source_") else ""
        row, n = run.data[f"{mine}{prefix}token"].values[prompt], int(run.data[f"{mine}{prefix}length"].values[prompt])
        tokens.append([short(visible(str(token))) for token in row[:n]])
    return weights[: len(tokens[0]), : len(tokens[1])], tokens[0], tokens[1]
