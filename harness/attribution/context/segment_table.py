"""Tables of parts (``parts.csv``), and of the heads that carry one (``part_heads.csv``)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, Shaped

from harness.attribution.evaluate.method_table import intervals
from harness.config import StatsSpec
from harness.execute import Closed
from harness.results.schema import TABLES, TableName


@dataclass(frozen=True)
class SegmentTables:
    """Write ``parts.csv``, and ``part_heads.csv`` where heads were knocked out."""

    stats: StatsSpec

    def close(self, data: xr.Dataset) -> Closed:
        tables: dict[TableName, pd.DataFrame] = {"parts": parts_table(data, self.stats)}
        if "part_head_cause" in data:
            tables["part_heads"] = parts_heads_table(data, self.stats)
        return Closed(data, tables)


def parts_table(data: xr.Dataset, spec: StatsSpec) -> pd.DataFrame:
    """Make one row per measure and part: means with intervals, ranked from the largest.

    Measures are shares of the prompt's ``tokens``, of ``attention`` (mean over layers and heads), of ``rollout`` and of
    ``gradient``, and each cause (nats per scored token). Intervals are `over` prompts (clusters resampled) where there
    are several, else over the scored tokens of the one prompt.
    """
    rows = []
    for measure, values in measures(data):
        samples, clusters, over = sampled(data, values)
        table = intervals(samples, clusters, spec)
        table = table.assign(measure=measure, part=[str(name) for name in data["part"].values], over=over)
        known = table["mean"].notna().to_numpy()
        table["n_prompts"] = np.isfinite(values).any(axis=1).sum(axis=0)
        rows.append(table[known].assign(rank=lambda each: each["mean"].rank(ascending=False).astype(int)))
    return pd.concat(rows, ignore_index=True).reindex(columns=list(TABLES["parts"].columns))


def measures(data: xr.Dataset) -> Iterator[tuple[str, Float[np.ndarray, "prompt traced part"]]]:
    """Yield every measure of the parts, by prompt and scored token."""
    cause = data["part_cause"].transpose("taken", "prompt", "traced", "part")
    there = np.isfinite(data["part_rollout"].transpose("prompt", "traced", "part").values)
    tokens = data["part_tokens"].transpose("prompt", "part").values
    share = tokens / tokens.sum(axis=1, keepdims=True)
    yield "tokens", np.where(there, share[:, None], np.nan)
    yield "attention", data["part_attention"].mean(["layer", "head"]).transpose("prompt", "traced", "part").values
    yield "rollout", data["part_rollout"].transpose("prompt", "traced", "part").values
    if "part_gradient" in data:
        norms = data["part_gradient"].transpose("prompt", "traced", "part").values
        total = np.nansum(norms, axis=2, keepdims=True)
        yield "gradient", norms / np.where(total > 0, total, np.nan)
    for kind in cause["taken"].values:
        yield str(kind), cause.sel(taken=kind).values


def sampled(
    data: xr.Dataset, values: Float[np.ndarray, "prompt traced part"]
) -> tuple[Float[np.ndarray, "sample part"], Shaped[np.ndarray, " sample"], str]:
    """Return the samples of an interval: prompt means with their clusters, or the scored tokens of one cluster."""
    clusters = data["cluster"].values
    if len(np.unique(clusters)) > 1:
        n = np.isfinite(values).sum(axis=1)
        return np.where(n > 0, np.nansum(values, axis=1) / np.maximum(n, 1), np.nan), clusters, "prompts"
    flat = values.reshape(-1, values.shape[2])
    flat = flat[np.isfinite(flat).any(axis=1)]
    return flat, np.arange(len(flat)), "scored tokens"


def parts_heads_table(data: xr.Dataset, spec: StatsSpec) -> pd.DataFrame:
    """Make one row per part and head that was knocked out for it: the increase of the loss, and the head's attention
    on the part; ranked within the part from the largest."""
    rows = []
    for part in data["part"].values:
        chosen = data["part_head_cause"].sel(part=part).transpose("prompt", "traced", "layer", "head")
        values = chosen.values.reshape(*chosen.shape[:2], -1).astype(float)
        known = np.isfinite(values).any(axis=(0, 1))
        if not known.any():
            continue
        prompts = np.isfinite(values).any(axis=(1, 2))
        picked = data.isel(prompt=prompts)
        samples, clusters, _ = sampled(picked, values[prompts][:, :, known])
        attention = picked["part_attention"].sel(part=part).mean(["prompt", "traced"]).values.ravel()[known]
        layer, head = (grid.ravel()[known] for grid in np.meshgrid(data["layer"], data["head"], indexing="ij"))
        table = intervals(samples, clusters, spec)
        table = table.assign(part=str(part), layer=layer, head=head, attention=attention, n_prompts=int(prompts.sum()))
        rows.append(table.assign(rank=table["mean"].abs().rank(ascending=False, method="first").astype(int)))
    if not rows:
        return pd.DataFrame(columns=np.array(TABLES["part_heads"].columns))
    return pd.concat(rows, ignore_index=True).reindex(columns=list(TABLES["part_heads"].columns))
