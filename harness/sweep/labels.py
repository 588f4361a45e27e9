"""What a sweep measured, as labelled arrays named as in ``data.zarr``."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from harness.hooks import Part
from harness.models import Shape

#: The variable in which the effects of each kind of intervention stand.
EFFECT = {
    "single": "effect",
    "layer": "layer_effect",
    "mlp": "mlp_effect",
    "set": "set_effect",
    "keep": "set_effect",
    "cumulative": "cumulative_effect",
    "pairs": "pair_effect",
}
#: What is ablated together, in words.
TOGETHER = {
    "single": "each head by itself",
    "layer": "all heads of a layer",
    "mlp": "the MLP of a layer",
    "set": "the heads of a set",
    "keep": "all heads but those of a set, which is kept",
    "cumulative": "the head of a step and those of all steps before it",
    "pairs": "the two heads of a pair",
}

Values = Float[np.ndarray, "metric prompt group *rest"]


def labelled(values: Values, kind: str, groups: Mapping[str, tuple[Part, ...]], shape: Shape) -> xr.DataArray:
    """Values [metric, prompt, group] or [metric, prompt, group, position] with what the groups are in their place:
    layer and head, layer, or (of groups without a place in the model) set; in an encoder-decoder with the stack before
    the layer. NaN where nothing was asked.
    """
    rest = ("position",)[: values.ndim - 3]
    if kind not in ("single", "layer", "mlp"):
        return xr.DataArray(values, dims=("metric", "prompt", "set", *rest), coords={"set": list(groups)})
    stacks = [stack for stack in shape.stacks if stack]
    sizes = {"stack": max(1, len(stacks)), "layer": shape.depth, "head": shape.n_heads}
    dims = ("stack", "layer", "head") if kind == "single" else ("stack", "layer")
    full = np.full((*values.shape[:2], *(sizes[dim] for dim in dims), *values.shape[3:]), np.nan)
    parts = [parts[0] for parts in groups.values()]
    at = [[stacks.index(part.stack) if stacks else 0 for part in parts], [part.layer for part in parts]]
    at += [[part.head for part in parts]] if kind == "single" else []
    full[:, :, *at] = values
    coords = {"stack": stacks or [""], "layer": np.arange(shape.depth), "head": np.arange(shape.n_heads)}
    array = xr.DataArray(full, dims=("metric", "prompt", *dims, *rest), coords={dim: coords[dim] for dim in dims})
    return array if stacks else array.isel(stack=0, drop=True)


def gathered(batches: Sequence[Sequence[int]], parts: Sequence[np.ndarray]) -> np.ndarray:
    """One array [metric, prompt, …] of all units' [metric, row, …], in the order of the prompts; a unit that is
    shorter in the last axis is filled up with NaN."""
    n, end = sum(map(len, batches)), max(part.shape[-1] for part in parts)
    whole = np.full((parts[0].shape[0], n, *parts[0].shape[2:-1], end), np.nan)
    for rows, part in zip(batches, parts, strict=True):
        whole[:, rows, ..., : part.shape[-1]] = part
    return whole
