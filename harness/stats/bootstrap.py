"""The interval of a mean effect: a cluster bootstrap by half-sampling, with BCa's acceleration.

Each resample keeps every cluster with probability 1/2 and takes the mean over the prompts of those kept (a weighted
bootstrap with weights 0 and 2). The means of random subsets are *typical values* (Hartigan 1969, Using subsample
values as typical values, JASA 64): where cluster sums are symmetric around size × mean, the true mean is equally
likely to fall into any of the gaps between them. So their quantiles cover exactly, with few clusters and however
unequal their sizes: they invert the sign-flip test of a plain sum. Drawing whole clusters with replacement covers
less: BCa 89 % with 8 clusters, 83 % where one of 64 holds a quarter of the prompts (normal noise).

Against skew the quantiles are moved by BCa's acceleration (Efron 1987, JASA 82, equation 3.7). It is a skewness, and
few large clusters estimate it badly; so it is weighted by the share of the clusters that are effective.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from harness.stats.clusters import effective
from harness.stats.draws import subset_blocks

HEADS_AT_ONCE = 512
MOST_ACCELERATION = 0.5  # of |acceleration × z|, reached from z = 3 on: at 1 a bound would run away

_cdf = np.vectorize(NormalDist().cdf, otypes=[float])


@dataclass(frozen=True)
class Interval:
    """Bounds in the metric's units."""

    low: Float[np.ndarray, " head"]
    high: Float[np.ndarray, " head"]


def subset_means(
    sums: Float[np.ndarray, "cluster head"],
    size: Float[np.ndarray, " cluster"],
    resamples: int,
    seed: np.random.SeedSequence,
) -> Float[np.ndarray, "head resample"]:
    """Return sorted means over the prompts of random subsets of clusters; of all non-empty subsets if they are few."""
    blocks = [(kept @ sums / (kept @ size)[:, None]).T for kept in subset_blocks(len(size), resamples, seed)]
    means = np.concatenate(blocks, axis=1)
    means.sort(axis=1)
    return means


def acceleration(
    sums: Float[np.ndarray, "cluster head"], size: Float[np.ndarray, " cluster"]
) -> Float[np.ndarray, " head"]:
    """Return BCa's acceleration: a sixth of the skewness of the leave-one-cluster-out means (Efron & Tibshirani 1993,
    14.15), times the share of effective clusters; 0 where those means do not differ."""
    left = (sums.sum(0) - sums) / (size.sum() - size)[:, None]
    away = left.mean(0) - left
    largest = np.abs(away).max(0)
    differ = largest > 1e-9 * np.abs(left).max(0)
    away /= np.where(differ, largest, 1)  # cubes of tiny or huge units would be 0 or infinite
    spread = np.where(differ, (away**2).sum(0), 1)
    skew = np.where(differ, (away**3).sum(0), 0) / spread**1.5
    return skew / 6 * effective(size) / len(size)


def quantile(
    means: Float[np.ndarray, "head resample"], share: Float[np.ndarray, " head"]
) -> Float[np.ndarray, " head"]:
    """Return a quantile of each sorted row: n values bound n + 1 equally likely gaps; linear between neighbours."""
    last = means.shape[1] - 1
    at = np.clip(share * (last + 2) - 1, 0, last)
    below = np.floor(at).astype(int)
    above = np.minimum(below + 1, last)
    row = np.arange(len(means))
    return means[row, below] + (at - below) * (means[row, above] - means[row, below])


def accelerated(accel: Float[np.ndarray, " head"], share: float) -> Float[np.ndarray, " head"]:
    """Return the quantile of the resampled means that BCa (without bias correction) uses for `share`."""
    z = NormalDist().inv_cdf(share)
    return _cdf(z / (1 - np.clip(accel * z, -MOST_ACCELERATION, MOST_ACCELERATION)))


def interval(
    sums: Float[np.ndarray, "cluster head"],
    size: Float[np.ndarray, " cluster"],
    confidence: float,
    resamples: int,
    seed: np.random.SeedSequence,
) -> Interval:
    """Return the interval of the mean over prompts, for every head from the same draws; NaN with one cluster.

    Coverage, measured: `harness.stats.summary.summarize`.

    Args:
        sums: effects summed over the prompts of each cluster.
        size: prompts in each cluster.
        seed: the same seed draws the same clusters, whichever heads are passed.
    """
    n_heads = sums.shape[1]
    if len(size) < 2:
        return Interval(np.full(n_heads, np.nan), np.full(n_heads, np.nan))
    accel, tail = acceleration(sums, size), (1 - confidence) / 2
    low, high = np.empty(n_heads), np.empty(n_heads)
    for start in range(0, n_heads, HEADS_AT_ONCE):
        some = slice(start, start + HEADS_AT_ONCE)
        means = subset_means(sums[:, some], size, resamples, seed)
        low[some] = quantile(means, accelerated(accel[some], tail))
        high[some] = quantile(means, accelerated(accel[some], 1 - tail))
    return Interval(low, high)
