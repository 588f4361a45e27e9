"""Effects to ``heads.csv``: one row per metric and head, with its interval, p-values and rank; an encoder-decoder has
a column `stack` before the layer. What was not computed is empty."""

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
    """Writes ``heads.csv`` where single heads were ablated or roles scored, its notes beside the effects."""

    stats: StatsSpec

    def close(self, data: xr.Dataset) -> Closed:
        if not {"effect", "role_given"} & set(data):
            return Closed(data)
        table = heads_table(data, self.stats)
        return Closed(with_notes(data, table), {"heads": table})


def heads_table(data: xr.Dataset, asked: StatsSpec) -> pd.DataFrame:
    """The table of heads from `effect` [metric, prompt, layer, head] and `clean` [metric, prompt].

    `asked.min_effect` is a share of the clean value; a distance, which is 0 when clean, has no such threshold and
    its heads are ranked only. Roles are those of `role_given`; a run that looked for roles and ablated no single heads
    has one row for each head, and no metric in it. ``attrs["notes"]`` says for each metric what its clusters of prompts
    cannot show (`harness.stats.summarize`).
    """
    notes: dict[str, str] = {}
    roles = roles_joined(data["role_given"]) if "role_given" in data else None
    if "effect" in data:
        each = [_of_metric(data, str(name), asked) for name in data["metric"].values]
        notes = {str(name): one.attrs["note"] for name, one in zip(data["metric"].values, each, strict=True)}
        table = pd.concat(each, ignore_index=True)
        table = table if roles is None else table.merge(roles, how="left")
    else:
        assert roles is not None
        table = roles
    table = table.reindex(columns=TABLES["heads"].columns_of("stack" in table))
    table.attrs = {"notes": notes}
    return table


def _of_metric(data: xr.Dataset, name: str, asked: StatsSpec) -> pd.DataFrame:
    """The rows of one metric. A distance is held against what random edits of the same size did."""
    effect = data["effect"].sel(metric=name)
    metric = meaning(name, effect.attrs)
    threshold = asked.min_effect * abs(float(data["clean"].sel(metric=name).mean()))
    table = summarized = stats.summarize(
        effect,
        clusters=data["cluster"].values,
        higher_is_better=bool(metric.higher_is_better),
        confidence=asked.confidence,
        level=asked.level,
        resamples=asked.resamples,
        min_effect=None if metric.distance else threshold,
        seed=asked.seed,
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
    """Values [layer, head] of the heads of a table."""
    return values.sel({dim: xr.DataArray(table[dim].to_numpy()) for dim in values.dims}).values


def _with_method(table: pd.DataFrame, data: xr.Dataset, name: str) -> pd.DataFrame:
    """The table with how each head was measured: how far a fast effect may be off; a screen's estimates, those of heads
    that it left at that too."""
    said = data["effect"].attrs
    if "exact" not in data:
        return table.assign(method=said.get("method", "exact"))
    if "estimate" in data:
        mean = data["estimate"].sel(metric=name).mean("prompt")
        every = mean.to_series().dropna().rename("estimate").reset_index()
        table = table.merge(every, on=list(mean.dims), how="outer")
    exact = _at(data["exact"], table)
    error = json.loads(said["errors"])[name]["rms"] if "errors" in said else np.nan
    return table.assign(method=np.where(exact, "exact", said["method"]), effect_error=np.where(exact, 0.0, error))
