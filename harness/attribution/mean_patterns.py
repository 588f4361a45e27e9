"""Mean patterns: the plain averages that attribution methods are compared with."""

import numpy as np
import xarray as xr
from jaxtyping import Float

AXES = ("layer", "head", "query", "key")

#: One prompt's patterns [layer, head, query, key], checked by `as_pattern`.
Pattern = np.ndarray | xr.DataArray


def as_pattern(pattern: Pattern) -> Float[np.ndarray, "layer head query key"]:
    """Return one prompt's patterns as float64, with the axes in order.

    Raises ValueError when there are not four axes, no layer or head, or as many queries as keys.
    """
    if isinstance(pattern, xr.DataArray) and set(pattern.dims) == set(AXES):
        pattern = pattern.transpose(*AXES)
    values = np.asarray(pattern, dtype=np.float64)
    if values.ndim != 4 or values.shape[-1] != values.shape[-2] or 0 in values.shape:
        raise ValueError(f"patterns must be [layer, head, query, key] with query = key; got shape {values.shape}")
    return values


def mean_pattern(pattern: Pattern) -> Float[np.ndarray, "query key"]:
    """Average over every layer and head, [layer, head, query, key] -> [query, key]; weights, no unit."""
    return as_pattern(pattern).mean(axis=(0, 1))


def layer_pattern(pattern: Pattern, layer: int = -1) -> Float[np.ndarray, "query key"]:
    """Average over the heads of one layer (default: the last), [layer, head, query, key] -> [query, key].

    Raises IndexError when there is no such layer.
    """
    return as_pattern(pattern)[layer].mean(axis=0)
