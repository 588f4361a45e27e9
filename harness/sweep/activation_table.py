"""Make ``activations.csv``: one row per metric, activation (q, k, v, pattern) and head, beside the effect of its z."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from harness import stats
from harness.config import StatsSpec
from harness.execute import Closed
from harness.metrics import meaning
from harness.results.schema import TABLES
from harness.sweep.head_inputs import VARIABLE


@dataclass(frozen=True)
class ActivationTable:
    """Write ``activations.csv`` where q, k, v or patterns were ablated; its note goes to the effects' attributes."""

    stats: StatsSpec

    def close(self, data: xr.Dataset) -> Closed:
        if VARIABLE not in data:
            return Closed(data)
        table = activations_table(data, self.stats)
        noted = data.assign({VARIABLE: data[VARIABLE].assign_attrs(note=table.attrs["note"])})
        return Closed(noted, {"activations": table})


def activations_table(data: xr.Dataset, spec: StatsSpec) -> pd.DataFrame:
    """Make the table from `activation_effect` [metric, prompt, activation, layer, head], by `harness.stats.summarize`.

    The tests correct over all activations and heads of a metric. `z_effect_mean` is the mean effect of the head's z,
    empty where z was not ablated. ``attrs["note"]`` holds what the clusters of prompts cannot show.
    """
    each = [_of_metric(data, str(name), spec) for name in data["metric"].values]
    columns = TABLES["activations"].columns_of("stack" in data[VARIABLE].dims)
    table = pd.concat(each, ignore_index=True).reindex(columns=columns)
    table.attrs = {"note": each[0].attrs["note"]}
    return table


def _of_metric(data: xr.Dataset, name: str, spec: StatsSpec) -> pd.DataFrame:
    effect = data[VARIABLE].sel(metric=name)
    metric = meaning(name, effect.attrs)
    summary = stats.summarize(
        effect,
        clusters=data["cluster"].values,
        higher_is_better=bool(metric.higher_is_better),
        confidence=spec.confidence,
        level=spec.level,
        resamples=spec.resamples,
        min_effect=None if metric.distance else spec.min_effect * abs(float(data["clean"].sel(metric=name).mean())),
        seed=spec.seed,
        distance=metric.distance,
    )
    table = summary.assign(metric=name, z_effect_mean=np.nan)
    if "effect" in data:
        mean = data["effect"].sel(metric=name).mean("prompt")
        table["z_effect_mean"] = mean.sel({dim: xr.DataArray(table[dim].to_numpy()) for dim in mean.dims}).values
    table.attrs = summary.attrs
    return table
