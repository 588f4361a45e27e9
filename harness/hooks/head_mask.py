"""Boolean masks of heads: numpy, torch or xarray, [layer, head], in an encoder-decoder [stack, layer, head]."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from harness.config import RequestError


def is_mask(value: Any) -> bool:
    """Whether a value is an array, in numpy, torch or xarray."""
    return not isinstance(value, str) and hasattr(value, "dtype") and hasattr(value, "shape") and value.ndim > 0


def masked_heads(mask: Any, stacks: Mapping[str, int], n_heads: int, model: str, key: str) -> Iterator[str]:
    """Yield the names of the heads at which a mask is true.

    Its shape is [layer, head], in an encoder-decoder [stack, layer, head] with the layers of the deepest stack, as in
    the arrays of a run. Raises `RequestError` with `key` for another shape, for numbers, and for a mask without a head.
    """
    dims, sizes = ("layer", "head"), (max(stacks.values()), n_heads)
    if "" not in stacks:
        dims, sizes = ("stack", *dims), (len(stacks), *sizes)
    labels = dict(zip(dims[-2:], (range(size) for size in sizes[-2:]), strict=True))
    array = _array(mask, {"stack": stacks, **labels} if "" not in stacks else labels, key)
    shown = f"{array.dtype} {list(array.shape)}"
    if array.dtype != bool:
        remedy = "numbers are no mask: pass a boolean one (effect < 0), or names such as L5H1 or (5, 1)"
        raise RequestError(key, shown, remedy)
    if array.shape != sizes:
        raise RequestError(key, shown, f"a mask for {model} is [{', '.join(dims)}] = {list(sizes)}")
    if not array.any():
        raise RequestError(key, shown, f"this mask names no head; set {key}=all for every head")
    for *stack, layer, head in np.argwhere(array).tolist():
        of = "".join(f"{[*stacks][at]}." for at in stack)
        yield f"{of}L{layer}H{head}"


def _array(mask: Any, labels: Mapping[str, Iterable[Any]], key: str) -> np.ndarray:
    """Return a mask as a numpy array; a labelled one with its dimensions and coordinates in the model's order."""
    if not hasattr(mask, "dims"):
        return mask.detach().cpu().numpy() if hasattr(mask, "detach") else mask
    if {*mask.dims} != {*labels}:
        shown = f"dimensions {', '.join(map(str, mask.dims))}"
        raise RequestError(key, shown, f"a mask is [{', '.join(labels)}]: select or average over the others")
    try:
        return mask.transpose(*labels).sel({dim: [*labels[dim]] for dim in labels if dim in mask.coords}).values
    except KeyError:
        raise RequestError(key, "a mask", "its coordinates are not all of this model's layers and heads") from None
