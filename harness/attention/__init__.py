"""Run once and keep what each head looks at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from harness.attention.capture import PREFIX, dims, sizes
from harness.attention.capture import patterns as patterns
from harness.models import Model
from harness.prompts import Prompts, batches


@dataclass(frozen=True)
class PatternStage:
    """The stage that caches attention patterns: one unit is a batch of prompts."""

    model: Model
    prompts: Prompts
    dtype: str = "float32"
    name: str = "patterns"

    def plan(self) -> dict[str, Any]:
        return {"batches": batches(self.prompts), "dtype": self.dtype}

    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]:
        """One batch's patterns."""
        return patterns(self.model, self.prompts.take(plan["batches"][unit]), plan["dtype"])

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """All units as labelled arrays, padded with zeros."""
        size, shape = sizes(self.model, self.prompts), self.model.shape
        note = {"units": "attention weight", "method": "post-softmax; rows sum to 1"}
        made: dict[str, Any] = {}
        for stack, n_layers in shape.stacks.items():
            name = PREFIX[stack] + "pattern"
            whole = np.zeros([size[dim] for dim in dims(stack)], dtype=plan["dtype"])
            whole[:, n_layers:] = np.nan
            for rows, unit in zip(plan["batches"], units, strict=True):
                part = unit[name]
                whole[rows, :, :, : part.shape[-2], : part.shape[-1]] = part
            made[name] = (dims(stack), whole, note)
        return xr.Dataset(made, coords={"layer": np.arange(shape.depth), "head": np.arange(shape.n_heads)})


def cache_attention(model: Model, prompts: Prompts, dtype: str = "float32") -> xr.Dataset:
    """The attention patterns of every head, with the tokens they belong to.

    Returns a dataset with `pattern` [prompt, layer, head, query, key] (rows sum to 1; 0 in padding) and the prompts'
    own variables (`token`, `word`, `target`, …), as in a run directory's ``data.zarr``. An encoder-decoder also gives
    `encoder_pattern` [prompt, layer, head, source_query, source_key] and `cross_pattern` [prompt, layer, head, query,
    source_key]; layers that a stack does not have are NaN.
    """
    stage = PatternStage(model, prompts, dtype)
    plan = stage.plan()
    units = [stage.compute(plan, unit) for unit in range(len(plan["batches"]))]
    return xr.merge([prompts.dataset(), stage.assemble(plan, units)])
