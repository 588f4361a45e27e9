"""Cache attention patterns and, on request, other activations of one forward."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from harness.attention.capture import Kind, Variable, sizes, variables
from harness.attention.capture import activations as activations
from harness.config import CacheSpec, RequestError, RunSpec
from harness.execute import Part, run_in_memory
from harness.execute.cost import Trial, gigabytes
from harness.hooks import Head
from harness.models import Model, alone
from harness.models.checks import not_finite
from harness.prompts import Prompts, batches

_UNITS = {
    "pattern": "attention weight; rows sum to 1",
    "sink": "share of attention that goes to the learnt sink of the softmax, which is no token",
    "scores": "input of the softmax; −inf where the mask lets a query read no key",
    "z": "a head's output before W_O",
    "q": "query, as projected (before a rotary embedding)",
    "k": "key, as projected (before a rotary embedding)",
    "v": "value",
    "resid": "residual stream that enters the block of this number; at its last depth what leaves the last block",
}


#: Factor on the disk space: units are kept until the arrays are written.
ON_DISK = 2


@dataclass(frozen=True)
class CacheStage:
    """Stage that caches attention patterns and other activations: one unit is a batch of prompts.

    `also` are further kinds, cached in `dtype` for `heads` only (`None`: all).
    """

    model: Model
    prompts: Prompts
    dtype: str = "float32"
    also: tuple[Kind, ...] = ()
    heads: tuple[Head, ...] | None = None
    name: str = "patterns"

    def __post_init__(self) -> None:
        if "scores" in self.also and not self.model.traits.has_scores:
            remedy = (
                f"the softmax of {self.model.name}'s scores is not its pattern, so they cannot be kept; leave it out"
            )
            raise RequestError("cache.also", "scores", remedy)

    @classmethod
    def of(cls, model: Model, prompts: Prompts, spec: CacheSpec) -> "CacheStage":
        """Build the stage of a spec. Raises `RequestError` for heads that the model does not have."""
        heads = None if spec.heads == ("all",) else model.heads(list(spec.heads), "cache.heads")
        return cls(model, prompts, spec.dtype, spec.also, heads)

    @property
    def _variables(self) -> list[Variable]:
        return variables(self.model, ("pattern", *self.also))

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]:
        return {
            "batches": batches(self.prompts),
            "dtype": self.dtype,
            "also": list(self.also),
            "heads": None if self.heads is None else list(map(str, self.heads)),
        }

    def n_bytes(self) -> int:
        """Return the size of the arrays in bytes, before compression."""
        size, width = sizes(self.model, self.prompts), np.dtype(self.dtype).itemsize
        return width * sum(int(np.prod([size[dim] for dim in each.dims])) for each in self._variables)

    def cost(self, trial: Trial) -> str:
        return f"{len(self.prompts)} prompts, up to {gigabytes(ON_DISK * self.n_bytes())} on disk ({self.kinds})"

    @property
    def kinds(self) -> str:
        """The cached kinds, as a text."""
        return ", ".join(("pattern", *self.also))

    @alone
    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]:
        """Return one batch's activations. Raises `RequestError` for a pattern with NaN or infinity."""
        numbers = plan["batches"][unit]
        arrays = activations(self.model, self.prompts.take(numbers), ("pattern", *self.also), plan["dtype"], self.heads)
        for each in (each for each in self._variables if each.kind == "pattern"):
            pattern = arrays[each.name][:, : self.model.shape.stacks[each.stack]]
            for row, layer, head, *rest in np.argwhere(~np.isfinite(pattern)):
                what = f"what {Head(layer, head, each.stack)} looks at"
                raise not_finite(self.model, numbers[row], what, pattern[(row, layer, head, *rest)])
        return arrays

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """Return all units as padded, labelled arrays."""
        size = sizes(self.model, self.prompts)
        made = {}
        for each in self._variables:
            whole = np.full([size[dim] for dim in each.dims], each.padding, dtype=plan["dtype"])
            for rows, unit in zip(plan["batches"], units, strict=True):
                part = unit[each.name]
                whole[(rows, *map(slice, part.shape[1:]))] = part
            whole[:, self.model.shape.stacks[each.stack] + (each.kind == "resid") :] = np.nan
            made[each.name] = (each.dims, whole, {"units": _UNITS[each.kind]})
        if self.model.traits.learnt_sink:
            made |= {"sink": _sink(made["pattern"][1], self.prompts.length)}
            made["pattern"][2]["units"] = "attention weight; rows sum to 1 with the share of the learnt sink in `sink`"
        used = {dim for each in self._variables for dim in each.dims}
        return xr.Dataset(
            made, {dim: np.arange(size[dim]) for dim in ("layer", "head", "kv_head", "depth") if dim in used}
        )


def _sink(pattern: np.ndarray, length: np.ndarray) -> tuple[tuple[str, ...], np.ndarray, dict[str, str]]:
    """Return 1 minus the sum of each row of a pattern, [prompt, layer, head, query]; 0 in padding."""
    real = np.arange(pattern.shape[-1]) < length[:, None]
    share = np.clip(1 - pattern.sum(axis=-1, dtype=np.float64), 0, 1) * real[:, None, None]
    return ("prompt", "layer", "head", "query"), share.astype(pattern.dtype), {"units": _UNITS["sink"]}


def part(spec: RunSpec, model: Model, prompts: Prompts) -> Part:
    """Build the part of a run that caches patterns."""
    return Part([CacheStage.of(model, prompts, spec.cache)])


def cache_attention(
    model: Model, prompts: Prompts, dtype: str = "float32", also: Sequence[Kind] = (), heads: Any = "all"
) -> xr.Dataset:
    """Cache the attention patterns of every head, with their tokens.

    Returns a dataset with `pattern` [prompt, layer, head, query, key] (rows sum to 1; 0 in padding) and the prompts'
    own variables (`token`, `word`, `target`, …), as in a run directory's ``data.zarr``. An encoder-decoder also gives
    `encoder_pattern` [prompt, layer, head, source_query, source_key] and `cross_pattern` [prompt, layer, head, query,
    source_key]; layers that a stack does not have are NaN. A model with a learnt sink in its softmax (gpt-oss) gives
    `sink` [prompt, layer, head, query], the share of each row that goes to no token: `pattern` and it sum to 1.

    `also` adds ``z q k v scores resid`` (see `harness.attention.capture.Variable`), of these `heads` alone. Raises
    `RequestError` for heads that the model does not have, and for scores whose softmax is not the pattern.
    """
    some = None if isinstance(heads, str) and heads == "all" else model.heads(heads)
    stage = CacheStage(model, prompts, dtype, tuple(also), some)
    return xr.merge([prompts.dataset(), run_in_memory(stage)])
