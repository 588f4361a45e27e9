"""Make ``heads.csv`` of the effects: one row per metric and head, with its interval, p-values and rank.

An encoder-decoder has a column `stack` before the layer. Values that were not computed are empty.
"""

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from harness import stats
from harness.config import StatsSpec
from harness.execute import Closed
from harness.metrics import meaning
from harness.results.schema import TABLES, roles_joined, with_notes


@dataclass(frozen=True)
class HeadTable:
    """Write ``heads.csv`` where single heads were ablated or roles scored; its notes go to the effects' attributes."""

    stats: StatsSpec

    def close(self, data: xr.Dataset) -> Closed:
        if not {"effect", "role_given"} & set(data):
            return Closed(data)
        table = heads_table(data, self.stats)
        return Closed(with_notes(data, table), {"heads": table})


def heads_table(data: xr.Dataset, spec: StatsSpec) -> pd.DataFrame:
    """Make the table of heads from `effect` [metric, prompt, layer, head] and `clean` [metric, prompt].

    `spec.min_effect` is a share of the clean value; a distance, which is 0 when clean, has no such threshold and its
    heads are ranked only. Roles are those of `role_given`; a run that scored roles and ablated no single heads has one
    row for each head, without a metric. ``attrs["notes"]`` holds for each metric what its clusters of prompts cannot
    show (`harness.stats.summarize`).
    """
    notes: dict[str, str] = {}
    roles = roles_joined(data["role_given"]) if "role_given" in data else None
    if "effect" in data:
        each = [_of_metric(data, str(name), spec) for name in data["metric"].values]
        notes = {str(name): one.attrs["note"] for name, one in zip(data["metric"].values, each, strict=True)}
        table = pd.concat(each, ignore_index=True)
        table = table if roles is None else table.merge(roles, how="left")
    else:
        assert roles is not None
        table = roles
    table = table.reindex(columns=TABLES["heads"].columns_of("stack" in table))
    table.attrs = {"notes": notes}
    return table


def _of_metric(data: xr.Dataset, name: str, spec: StatsSpec) -> pd.DataFrame:
    """Return the rows of one metric. A distance is tested against the effects of random edits of the same size."""
    effect = data["effect"].sel(metric=name)
    metric = meaning(name, effect.attrs)
    threshold = spec.min_effect * abs(float(data["clean"].sel(metric=name).mean()))
    table = summarized = stats.summarize(
        effect,
        clusters=data["cluster"].values,
        higher_is_better=bool(metric.higher_is_better),
        confidence=spec.confidence,
        level=spec.level,
        resamples=spec.resamples,
        min_effect=None if metric.distance else threshold,
        seed=spec.seed,
        distance=metric.distance,
        null=data["null_effect"].sel(metric=name) if metric.distance and "null_effect" in data else None,
        tested=int(data["estimate"].sel(metric=name).notnull().any("prompt").sum()) if "estimate" in data else None,
    )
    if "direct" in data:
        table["direct_mean"] = _at(data["direct"].sel(metric=name).mean("prompt"), table)
    made = _with_method(table, data, name).assign(metric=name)
    made.attrs = {"note": summarized.attrs["note"]}
    return made


def _at(values: xr.DataArray, table: pd.DataFrame) -> np.ndarray:
    """Select the values [layer, head] of a table's heads."""
    return values.sel({dim: xr.DataArray(table[dim].to_numpy()) for dim in values.dims}).values


def _with_method(table: pd.DataFrame, data: xr.Dataset, name: str) -> pd.DataFrame:
    """Add how each head was measured: the error of a fast effect; a screen's estimates, also of unverified heads."""
    attrs = data["effect"].attrs
    if "exact" not in data:
        return table.assign(method=attrs.get("method", "exact"))
    if "estimate" in data:
        mean = data["estimate"].sel(metric=name).mean("prompt")
        every = mean.to_series().dropna().rename("estimate").reset_index()
        table = table.merge(every, on=list(mean.dims), how="outer")
    exact = _at(data["exact"], table)
    error = json.loads(attrs["errors"])[name]["rms"] if "errors" in attrs else np.nan
    return table.assign(method=np.where(exact, "exact", attrs["method"]), effect_error=np.where(exact, 0.0, error))
