"""Do two scores put the heads in the same order?"""

import numpy as np
from jaxtyping import Float, Shaped

from harness.config import RequestError


def average_ranks(values: Shaped[np.ndarray, " item"]) -> Float[np.ndarray, " item"]:
    """Ranks from 1, equal values share the mean of theirs."""
    _, code, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[code]


def rank_correlation(a: Shaped[np.ndarray, "*shape"], b: Shaped[np.ndarray, "*shape"]) -> float:
    """Spearman's rho: the Pearson correlation of average ranks, between −1 and 1; NaN where one of them is constant.

    Raises:
        RequestError: the shapes differ, or a value is not a number.
    """
    first, second = np.asarray(a), np.asarray(b)
    if first.shape != second.shape:
        raise RequestError("rank_correlation", f"shapes {first.shape} and {second.shape}", "they must be equal")
    if np.isnan(first).any() or np.isnan(second).any():
        raise RequestError("rank_correlation", "nan", "leave out what was not measured")
    if first.size < 2:
        return float("nan")
    x, y = average_ranks(first.ravel()), average_ranks(second.ravel())
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale else float("nan")
