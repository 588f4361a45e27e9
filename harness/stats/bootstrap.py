"""The interval of a mean effect: whole clusters are drawn again, BCa where it is defined.

Efron, B. (1987), Better bootstrap confidence intervals, JASA 82 (equations 3.7 and 6.6); the acceleration from
the jackknife over clusters, as in Efron & Tibshirani (1993), equation 14.15.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float

HEADS_AT_ONCE = 512
CELLS_AT_ONCE = 2**20
ROWS_AT_ONCE = 256

_ppf = np.vectorize(NormalDist().inv_cdf, otypes=[float])
_cdf = np.vectorize(NormalDist().cdf, otypes=[float])


@dataclass(frozen=True)
class Interval:
    """Bounds in the metric's units; `bca` is false where the percentile interval stands in."""

    low: Float[np.ndarray, " head"]
    high: Float[np.ndarray, " head"]
    bca: Bool[np.ndarray, " head"]


def rows_at_once(n_clusters: int) -> int:
    """Rows of a block of draws. From the clusters alone, so that a head's numbers do not depend on its company."""
    return int(np.clip(CELLS_AT_ONCE // n_clusters, 1, ROWS_AT_ONCE))


def count_blocks(n_clusters: int, resamples: int, seed: np.random.SeedSequence) -> Iterator[np.ndarray]:
    """Blocks of [row, cluster]: how often each cluster was drawn, `n_clusters` draws a row."""
    rng, rows = np.random.default_rng(seed), rows_at_once(n_clusters)
    for start in range(0, resamples, rows):
        n = min(rows, resamples - start)
        drawn = rng.integers(n_clusters, size=(n, n_clusters)) + np.arange(n)[:, None] * n_clusters
        yield np.bincount(drawn.ravel(), minlength=n * n_clusters).reshape(n, n_clusters).astype(np.float64)


def resampled_means(
    sums: Float[np.ndarray, "cluster head"],
    size: Float[np.ndarray, " cluster"],
    resamples: int,
    seed: np.random.SeedSequence,
) -> Float[np.ndarray, "head resample"]:
    """Sorted bootstrap means over prompts: the drawn sums over the drawn number of prompts."""
    means = np.empty((sums.shape[1], resamples))
    done = 0
    for counts in count_blocks(len(size), resamples, seed):
        means[:, done : done + len(counts)] = (counts @ sums / (counts @ size)[:, None]).T
        done += len(counts)
    means.sort(axis=1)
    return means


def acceleration(
    sums: Float[np.ndarray, "cluster head"], size: Float[np.ndarray, " cluster"]
) -> Float[np.ndarray, " head"]:
    """A sixth of the skewness of the leave-one-cluster-out means; NaN where they do not differ."""
    left = (sums.sum(0) - sums) / (size.sum() - size)[:, None]
    away = left.mean(0) - left
    away /= np.maximum(np.abs(away).max(0), np.finfo(float).tiny)  # cubes of tiny or huge units would be 0 or infinite
    spread = (away**2).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (away**3).sum(0) / (6 * spread**1.5)


def quantile(
    means: Float[np.ndarray, "head resample"], share: Float[np.ndarray, " head"]
) -> Float[np.ndarray, " head"]:
    """A different quantile of each sorted row, linear between neighbours as in `numpy.quantile`."""
    at = share * (means.shape[1] - 1)
    below = np.floor(at).astype(int)
    above = np.minimum(below + 1, means.shape[1] - 1)
    row = np.arange(len(means))
    return means[row, below] + (at - below) * (means[row, above] - means[row, below])


def bca_shares(
    means: Float[np.ndarray, "head resample"],
    mean: Float[np.ndarray, " head"],
    accel: Float[np.ndarray, " head"],
    confidence: float,
) -> tuple[Float[np.ndarray, " head"], Float[np.ndarray, " head"], Bool[np.ndarray, " head"]]:
    """Which quantiles of the bootstrap means bound the interval, and whether that is BCa (else percentile)."""
    # Ties count half: with few clusters the bootstrap means are coarse. Rounding must not decide what a tie is.
    edge = 1e-12 * np.abs(mean)
    ranked = zip(means, mean - edge, mean + edge, strict=True)
    below = np.array(
        [np.searchsorted(row, low, "left") + np.searchsorted(row, high, "right") for row, low, high in ranked]
    )
    share = below / (2 * means.shape[1])
    tail = (1 - confidence) / 2
    z = NormalDist().inv_cdf(tail) * np.array([[1], [-1]])
    spread = means[:, -1] - means[:, 0] > 1e-9 * np.abs(mean)
    inside = (share > 0) & (share < 1)
    shift = _ppf(np.where(inside, share, 0.5))
    ratio = 1 - np.nan_to_num(accel) * (shift + z)
    bca = inside & spread & np.isfinite(accel) & (ratio > 0).all(axis=0)
    moved = shift + (shift + z) / np.where(bca, ratio, 1)
    low, high = np.where(bca, _cdf(moved), np.array([[tail], [1 - tail]]))
    return low, high, bca


def interval(
    sums: Float[np.ndarray, "cluster head"],
    size: Float[np.ndarray, " cluster"],
    confidence: float,
    resamples: int,
    seed: np.random.SeedSequence,
) -> Interval:
    """The interval of the mean over prompts, for every head from the same draws.

    A draw takes as many clusters as there are, with replacement, and divides the sum of their effects by the
    number of prompts in them: with clusters of unequal size the denominator varies with the draw, as it does in
    the world. BCa falls back to the percentile interval where it is undefined: no spread, or a mean outside all
    the bootstrap means. One cluster says nothing about others: NaN.

    Args:
        sums: effects summed over the prompts of each cluster.
        size: prompts in each cluster.
        seed: the same seed draws the same clusters, whichever heads are asked.
    """
    n_heads = sums.shape[1]
    if len(size) < 2:
        return Interval(np.full(n_heads, np.nan), np.full(n_heads, np.nan), np.zeros(n_heads, bool))
    mean, accel = sums.sum(0) / size.sum(), acceleration(sums, size)
    parts = []
    for start in range(0, n_heads, HEADS_AT_ONCE):
        some = slice(start, start + HEADS_AT_ONCE)
        means = resampled_means(sums[:, some], size, resamples, seed)
        low, high, bca = bca_shares(means, mean[some], accel[some], confidence)
        parts.append((quantile(means, low), quantile(means, high), bca))
    return Interval(*(np.concatenate(part) for part in zip(*parts, strict=True)))
