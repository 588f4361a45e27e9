"""Effects of replacing each head's z, query, key, value or pattern alone: a map of heads for each, on one scale."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jaxtyping import Float

from harness.findings.activations import IN_WORDS, VARIABLE
from harness.hooks import Head
from harness.views.charts.describe import Described, chart, in_full, measured, numbers, plain_name

if TYPE_CHECKING:
    from harness.results import Run


@dataclass(frozen=True)
class ActivationMap:
    """Mean effects of one activation of one stack's heads, and the heads whose effect is shown (max-T)."""

    name: str
    stack: str
    values: Float[np.ndarray, "head layer"]
    shown: list[Head]


def activation_maps(run: "Run", metric: str) -> list[ActivationMap]:
    """Return the maps, z first where it was ablated."""
    shown = {"z": run.shown(metric) if "effect" in run.data and run.tested(metric) else set()}
    table = run.activations.loc[run.activations["metric"] == metric]
    for _, row in table.loc[table["p_adjusted"] < run.level].iterrows():
        head = Head(int(row["layer"]), int(row["head"]), str(row.get("stack", "")))
        shown.setdefault(str(row["activation"]), set()).add(head)
    effects = {"z": run.data["effect"]} if "effect" in run.data else {}
    effects |= {str(name): run.data[VARIABLE].sel(activation=name) for name in run.data["activation"].values}
    return [
        each
        for name, effect in effects.items()
        for each in _by_stack(run, name, effect.sel(metric=metric).mean("prompt"), shown.get(name, set()))
    ]


def _by_stack(run: "Run", name: str, mean: xr.DataArray, shown: set[Head]) -> Iterator[ActivationMap]:
    for stack, n_layers in run.layers.items():
        values = (mean.sel(stack=stack) if stack else mean).transpose("head", "layer").values[:, :n_layers]
        if np.isfinite(values).any():
            mine = sorted(head for head in shown if head.stack == stack)
            yield ActivationMap(f"{stack} {IN_WORDS[name]}".strip(), stack, values.astype(float), mine)


def activations(run: "Run") -> Iterator[Described]:
    """Describe the maps, one chart for each metric."""
    for metric in map(str, run.data["metric"].values) if VARIABLE in run.data else ():
        maps = activation_maps(run, metric)
        rows = [int(number) for number in run.data["head"].values]
        yield chart(
            run,
            "heat",
            f"activations_{plain_name(metric)}",
            "activations",
            f"Effect of each head's activations alone, {in_full(metric)}",
            f"Mean effect on {measured(run, metric)} of replacing z, or one of what z is made of, alone; layers "
            "across, heads down; a dot marks an effect that is shown (max-T over all; of z over heads).",
            panels=[
                {
                    "name": each.name,
                    "rows": rows,
                    "columns": list(range(each.values.shape[1])),
                    "values": numbers(each.values),
                    "cells": each.stack,
                    "dots": [[rows.index(head.head), head.layer] for head in each.shown],
                }
                for each in maps
            ],
            scale="effect",
            sense=run.sense(metric),
            unit=run.unit(metric).strip(),
            value=f"effect on {measured(run, metric)}",
            axes=["head", "layer"],
            dot="shown",
        )
