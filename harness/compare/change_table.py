"""Make ``changes.csv``, one row per metric and head: the change from one model to the other; and roles side by side."""

import numpy as np
import pandas as pd
import xarray as xr

from harness import stats
from harness.config import StatsSpec
from harness.metrics import meaning
from harness.results.schema import TABLES, roles_joined

PLACE = ("stack", "layer", "head")


def changes_table(data: xr.Dataset, spec: StatsSpec) -> pd.DataFrame:
    """Make the table of changes: the distance of each head's patterns, and by each metric the change of its effect.

    Distances have mean, interval and standard deviation over prompts; changes are tested over all heads as effects are;
    empty for heads that have none.
    """
    distances = _distances(data, spec)
    parts = [_of_metric(data, str(name), spec).merge(distances, how="outer") for name in data["metric"].values]
    table = pd.concat(parts, ignore_index=True)
    table["metric"] = np.repeat([str(name) for name in data["metric"].values], [len(part) for part in parts])
    for name, of in (("roles_base", ""), ("roles_other", "other_")):
        table = table.merge(roles_joined(data[f"{of}role_given"]).rename(columns={"roles": name}), how="left")
    return table.reindex(columns=TABLES["changes"].columns_of("stack" in table))


def _of_metric(data: xr.Dataset, name: str, spec: StatsSpec) -> pd.DataFrame:
    """Summarise the changes of one metric. A distance's change has a sign, so it is tested as any other."""
    change = data["effect_change"].sel(metric=name)
    table = stats.summarize(
        change,
        clusters=data["cluster"].values,
        higher_is_better=bool(meaning(name, data["clean"].attrs).higher_is_better),
        confidence=spec.confidence,
        level=spec.level,
        resamples=spec.resamples,
        seed=spec.seed,
    ).rename(columns={"effect_mean": "change_mean"})
    at = {dim: xr.DataArray(table[dim].to_numpy()) for dim in PLACE if dim in table}
    for column, of in (("effect_base", "effect"), ("effect_other", "other_effect")):
        table[column] = data[of].sel(metric=name).mean("prompt").sel(at).values
    return table.assign(metric=name)


def _distances(data: xr.Dataset, spec: StatsSpec) -> pd.DataFrame:
    distance = data["pattern_distance"]
    table = stats.summarize(
        distance,
        clusters=data["cluster"].values,
        confidence=spec.confidence,
        resamples=spec.resamples,
        seed=spec.seed,
        distance=True,
    )
    at = {dim: xr.DataArray(table[dim].to_numpy()) for dim in PLACE if dim in table}
    table["distance_sd"] = distance.std("prompt", ddof=1).sel(at).values if distance.sizes["prompt"] > 1 else np.nan
    names = {"effect_mean": "mean", "ci_low": "low", "ci_high": "high", "rank": "rank"}
    table = table.rename(columns={name: f"distance_{new}" for name, new in names.items()})
    kept = [name for name in table.columns if name in PLACE or name.startswith("distance_")]
    return table.reindex(columns=kept)


def by_role(data: xr.Dataset) -> pd.DataFrame:
    """Count the heads of each role in both models, with the largest scores; roles without heads are left out."""
    rows = []
    for role in map(str, data["role"].values):
        row: dict[str, object] = {"role": role}
        for side, of in (("base", ""), ("other", "other_")):
            score, has_role = (data[f"{of}role_{name}"].sel(role=role) for name in ("score", "given"))
            row |= {f"heads_{side}": int(has_role.sum()), f"of_{side}": int(score.notnull().sum())}
            row[f"score_{side}"] = float(score.max())
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.query("heads_base > 0 or heads_other > 0").reset_index(drop=True)
