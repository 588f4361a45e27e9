"""Spearman's rank correlation of two scores, and its interval."""

from statistics import NormalDist

import numpy as np
from jaxtyping import Shaped

from harness.config import RequestError


def correlation_interval(rho: float, n: int, confidence: float) -> tuple[float, float]:
    """Return the interval of a Spearman correlation of n pairs: Fisher's z with the standard error of Bonett & Wright
    (2000), Psychometrika 65, sqrt((1 + ρ²/2) / (n − 3)). NaN for fewer than five pairs."""
    if n < 5 or not np.isfinite(rho):
        return float("nan"), float("nan")
    z = NormalDist().inv_cdf((1 + confidence) / 2) * np.sqrt((1 + rho**2 / 2) / (n - 3))
    middle = np.arctanh(np.clip(rho, -1 + 1e-9, 1 - 1e-9))
    return float(np.tanh(middle - z)), float(np.tanh(middle + z))


def rank_correlation(a: Shaped[np.ndarray, "*shape"], b: Shaped[np.ndarray, "*shape"]) -> float:
    """Return Spearman's rho, −1 to 1, the Pearson correlation of average ranks (Spearman 1904); NaN where one of them
    is constant.

    Raises:
        RequestError: the shapes differ, or a value is not a number.

    >>> import numpy as np
    >>> import harness
    >>> round(harness.stats.rank_correlation(np.array([0.1, 0.2, 0.9]), np.array([1, 3, 2])), 3)
    0.5
    """
    first, second = np.asarray(a), np.asarray(b)
    if first.shape != second.shape:
        raise RequestError("rank_correlation", f"shapes {first.shape} and {second.shape}", "they must be equal")
    if np.isnan(first).any() or np.isnan(second).any():
        raise RequestError("rank_correlation", "nan", "leave out what was not measured")
    if first.size < 2 or any((each == each.flat[0]).all() for each in (first, second)):
        return float("nan")
    from scipy.stats import spearmanr  # here, as in `discovery`

    return float(spearmanr(first.ravel(), second.ravel()).statistic)  # pyright: ignore[reportAttributeAccessIssue]
