"""Make ``methods.csv``, one row per method, cause, policy and statistic, and the paired differences of methods."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, Shaped

from harness import stats
from harness.attribution.evaluate.statistics import AGREEMENT, BETTER, agreement, curves, shares
from harness.attribution.evaluate.top_head import with_top_head
from harness.config import AttributionSpec, StatsSpec
from harness.execute import Closed
from harness.results.schema import TABLES


@dataclass(frozen=True)
class MethodTable:
    """Add the top head as a method and each method's `agreement` with each cause; write ``methods.csv``."""

    spec: AttributionSpec
    stats: StatsSpec

    def close(self, data: xr.Dataset) -> Closed:
        wider = with_top_head(data)
        wider = wider.assign(agreement=agreement(wider, self.spec.top_k, self.spec.level))
        return Closed(wider, {"methods": methods_table(wider, self.spec, self.stats)})


@dataclass(frozen=True)
class PairTable:
    """Write ``method_pairs.csv``, of all methods in the arrays."""

    spec: AttributionSpec
    stats: StatsSpec

    def close(self, data: xr.Dataset) -> Closed:
        return Closed(data, {"method_pairs": pairs_table(data, self.spec, self.stats)})


class Group(NamedTuple):
    """One statistic of all methods, prompt by prompt."""

    cause: str
    policy: str
    statistic: str
    values: Float[np.ndarray, "prompt method"]


def groups(data: xr.Dataset, spec: AttributionSpec) -> Iterator[Group]:
    """Yield every statistic that the arrays allow; curves belong to no cause in particular."""
    agreeing = agreement(data, spec.top_k, spec.level)
    for cause in data["cause_kind"].values:
        for policy in data["policy"].values:
            for statistic in AGREEMENT:
                chosen = agreeing.sel(statistic=statistic, policy=policy, cause_kind=cause)
                yield Group(str(cause), str(policy), statistic, chosen.values)
    if "erased" in data:
        drawn = curves(data)
        for policy in data["policy"].values:
            for statistic in drawn["statistic"].values:
                yield Group("", str(policy), str(statistic), drawn.sel(statistic=statistic, policy=policy).values)


def methods_table(data: xr.Dataset, spec: AttributionSpec, stats_spec: StatsSpec) -> pd.DataFrame:
    """Make ``methods.csv``: means over prompts with cluster bootstrap intervals; empty where no prompt has a number.

    `q_value` is of the paired difference to the random order (where that is among the methods), sign flips of whole
    clusters, Benjamini–Hochberg over the methods of one cause, policy and statistic. The rows ``first_share`` and
    ``own_share`` are the share of each method (and, with no method named, of each cause) on the first token and on the
    one at which the target is predicted.
    """
    methods, clusters = [str(name) for name in data["attribution_method"].values], data["cluster"].values
    parts = []
    for group in groups(data, spec):
        made = intervals(group.values, clusters, stats_spec)
        made["q_value"] = _against_chance(group.values, methods, clusters, stats_spec)
        parts.append(made.assign(method=methods, cause=group.cause, policy=group.policy, statistic=group.statistic))
    shared = shares(data)
    n = len(methods)
    for statistic in shared["statistic"].values:
        made = intervals(shared.sel(statistic=statistic).values, clusters, stats_spec)
        which = [str(name) for name in shared["which"].values]
        names = {"method": [*which[:n], *[""] * (len(which) - n)], "cause": [*[""] * n, *which[n:]]}
        parts.append(made.assign(**names, policy="keep", statistic=str(statistic), q_value=np.nan))
    return pd.concat(parts, ignore_index=True).reindex(columns=list(TABLES["methods"].columns))


def pairs_table(data: xr.Dataset, spec: AttributionSpec, stats_spec: StatsSpec) -> pd.DataFrame:
    """Make the paired differences between methods, one row for each two, cause, policy and statistic.

    `difference` is the first's number less the second's on the same prompts, `p_adjusted` corrected over all pairs of
    one cause, policy and statistic by max-T (`harness.stats`). Random orders are left out: `methods_table` has them.
    """
    methods, clusters = [str(name) for name in data["attribution_method"].values], data["cluster"].values
    two = [(a, b) for a, b in combinations(range(len(methods)), 2) if "random" not in (methods[a], methods[b])]
    if not two:
        return pd.DataFrame(columns=np.array(TABLES["method_pairs"].columns))
    first, second = (np.array(side) for side in zip(*two, strict=True))
    parts = []
    for group in groups(data, spec):
        made = intervals(group.values[:, first] - group.values[:, second], clusters, stats_spec)
        names = {"method": [methods[at] for at in first], "against": [methods[at] for at in second]}
        made = made.assign(**names, cause=group.cause, policy=group.policy, statistic=group.statistic)
        parts.append(made.rename(columns={"mean": "difference"}))
    return pd.concat(parts, ignore_index=True).reindex(columns=list(TABLES["method_pairs"].columns))


def _against_chance(
    values: Float[np.ndarray, "prompt method"],
    methods: list[str],
    clusters: Shaped[np.ndarray, " prompt"],
    stats_spec: StatsSpec,
) -> Float[np.ndarray, " method"]:
    if "random" not in methods:
        return np.full(len(methods), np.nan)
    floor = methods.index("random")
    rest = [at for at in range(len(methods)) if at != floor]
    q_value = np.full(len(methods), np.nan)
    if rest:
        q_value[rest] = intervals(values[:, rest] - values[:, [floor]], clusters, stats_spec)["q_value"]
    return q_value


def intervals(
    values: Float[np.ndarray, "prompt column"], clusters: Shaped[np.ndarray, " prompt"], stats_spec: StatsSpec
) -> pd.DataFrame:
    """Compute mean, interval, q and max-T p of columns; those finite on the same prompts are corrected together."""
    names = ["mean", "ci_low", "ci_high", "q_value", "p_adjusted"]
    table = pd.DataFrame(np.nan, index=range(values.shape[1]), columns=names)
    patterns, which = np.unique(np.isfinite(values), axis=1, return_inverse=True)
    for at in range(patterns.shape[1]):
        known, columns = patterns[:, at], np.flatnonzero(which == at)
        if not known.any():
            continue
        summary = stats.summarize(
            xr.DataArray(values[np.ix_(known, columns)], dims=("prompt", "column")),
            clusters=clusters[known],
            confidence=stats_spec.confidence,
            level=stats_spec.level,
            resamples=stats_spec.resamples,
            seed=stats_spec.seed,
        )
        table.loc[columns, names] = summary[["effect_mean", *names[1:]]].to_numpy()
    return table


def ranked(table: pd.DataFrame, statistic: str, policy: str, cause: str = "") -> list[dict[str, Any]]:
    """Return the rows of one statistic with a finite mean, the best method first."""
    wanted = {"statistic": statistic, "policy": policy, "cause": cause}
    rows = [row for row in table.to_dict("records") if all(row[name] == value for name, value in wanted.items())]
    known = [{str(name): value for name, value in row.items()} for row in rows if np.isfinite(row["mean"])]
    return sorted(known, key=lambda row: row["mean"], reverse=BETTER[statistic])
