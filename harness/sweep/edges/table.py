"""Make ``edges.csv``: one row per metric and measured edge, tested on the prompts that did not choose it."""

import re
from dataclasses import dataclass

import pandas as pd
import xarray as xr

from harness import stats
from harness.config import StatsSpec
from harness.execute import Closed
from harness.metrics import meaning
from harness.results.schema import TABLES
from harness.sweep.edges.halves import BOTH, testing

_SAME = "Too few clusters to divide: the edges are tested on the prompts that chose them, so that p is too small."


@dataclass(frozen=True)
class EdgeTable:
    """Write ``edges.csv`` where edges were measured; its notes go to the effects' attributes."""

    stats: StatsSpec

    def close(self, data: xr.Dataset) -> Closed:
        if "edge_effect" not in data:
            return Closed(data)
        table = edges_table(data, self.stats)
        notes = {"note": table.attrs["note"], "test": table.attrs["test"]}
        noted = data.assign(edge_effect=data["edge_effect"].assign_attrs(notes))
        return Closed(noted, {"edges": table})


def edges_table(data: xr.Dataset, spec: StatsSpec) -> pd.DataFrame:
    """Make the table of edges from `edge_effect` [metric, prompt, edge], by `harness.stats.summarize`.

    Mean, interval, tests and the mean `estimate` are over the prompts that test (`edge_half`); the tests correct over
    the measured edges. ``attrs["note"]`` holds what these prompts cannot show.
    """
    half = data["edge_half"].values
    tested = data.isel(prompt=testing(half))
    by_metric = [_of_metric(tested, str(name), spec) for name in data["metric"].values]
    table = pd.concat(by_metric, ignore_index=True).reindex(columns=list(TABLES["edges"].columns))
    notes = [_SAME if (half == BOTH).all() else "", *_sentences(by_metric[0].attrs["note"])]
    table.attrs = {"note": " ".join(filter(None, notes)), "test": by_metric[0].attrs["test"]}
    return table


def _sentences(note: str) -> list[str]:
    """Return the sentences of a note but those about q, which edges have none of."""
    return [each for each in re.split(r"(?<=\.) ", note) if "so q over" not in each]


def _of_metric(data: xr.Dataset, name: str, spec: StatsSpec) -> pd.DataFrame:
    effect = data["edge_effect"].sel(metric=name)
    metric = meaning(name, effect.attrs)
    threshold = spec.min_effect * abs(float(data["clean"].sel(metric=name).mean()))
    summary = stats.summarize(
        effect.drop_vars(["sender", "receiver", "into"]).assign_coords(edge=range(effect.sizes["edge"])),
        clusters=data["cluster"].values,
        higher_is_better=bool(metric.higher_is_better),
        confidence=spec.confidence,
        level=spec.level,
        resamples=spec.resamples,
        min_effect=None if metric.distance else threshold,
        seed=spec.seed,
        distance=metric.distance,
    )
    at = summary["edge"].to_numpy()
    names = {key: data[key].values[at] for key in ("sender", "receiver", "into")}
    estimate = data["edge_estimate"].sel(metric=name).mean("prompt").values[at]
    counts = {"n_prompts": "n_prompts_tested", "n_clusters": "n_clusters_tested"}
    table = summary.rename(columns=counts).assign(metric=name, estimate=estimate, **names)
    table.attrs = summary.attrs
    return table
