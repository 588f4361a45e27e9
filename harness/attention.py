"""Run once and keep what each head looks at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from harness import hooks
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
        batch = self.prompts.take(plan["batches"][unit])
        return {"pattern": patterns(self.model, batch).astype(plan["dtype"])}

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """All units as one labelled array, padded with zeros."""
        n, end = self.prompts.token_id.shape
        shape = self.model.shape
        pattern = np.zeros((n, shape.n_layers, shape.n_heads, end, end), dtype=plan["dtype"])
        for rows, unit in zip(plan["batches"], units, strict=True):
            size = unit["pattern"].shape[-1]
            pattern[rows, :, :, :size, :size] = unit["pattern"]
        attributes = {"units": "attention weight", "method": "post-softmax; rows sum to 1"}
        return xr.Dataset(
            {"pattern": (("prompt", "layer", "head", "query", "key"), pattern, attributes)},
            coords={"layer": np.arange(shape.n_layers), "head": np.arange(shape.n_heads)},
        )


@torch.no_grad()
def patterns(model: Model, prompts: Prompts) -> Float[np.ndarray, "prompt layer head query key"]:
    """The post-softmax attention of every head on a batch of prompts; 0 where query or key is padding.

    Raises `RuntimeError` if a hook point did not fire.
    """
    token_id = torch.as_tensor(prompts.token_id, device=model.device)
    mask = token_id >= 0
    shape = model.shape
    kept = torch.zeros((len(prompts), shape.n_layers, shape.n_heads, token_id.shape[1], token_id.shape[1]))
    fired: set[int] = set()
    real = (mask[:, None, :, None] & mask[:, None, None, :]).to(kept)

    def keep(pattern: torch.Tensor, hook: Any, layer: int) -> None:
        kept[:, layer] = pattern.to(kept) * real
        fired.add(layer)

    with model.bridge.hooks(
        fwd_hooks=[
            (hooks.hook_name("pattern", layer), lambda pattern, hook, layer=layer: keep(pattern, hook, layer))
            for layer in range(shape.n_layers)
        ]
    ):
        model.forward(token_id.clamp(min=0), mask.long(), torch.as_tensor(prompts.segment, device=model.device))
    silent = set(range(shape.n_layers)) - fired
    if silent:
        raise RuntimeError(f"hook_pattern did not fire in layers {sorted(silent)} of {model.name}")
    return kept.numpy()


def cache_attention(model: Model, prompts: Prompts, dtype: str = "float32") -> xr.Dataset:
    """The attention patterns of every head, with the tokens they belong to.

    Returns a dataset with `pattern` [prompt, layer, head, query, key] (rows sum to 1; 0 in padding) and the prompts'
    own variables (`token`, `word`, `target`, …), as in a run directory's ``data.zarr``.
    """
    stage = PatternStage(model, prompts, dtype)
    plan = stage.plan()
    units = [stage.compute(plan, unit) for unit in range(len(plan["batches"]))]
    return xr.merge([prompts.dataset(), stage.assemble(plan, units)])
