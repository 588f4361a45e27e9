"""The mean of an effect over several runs that measured it on different prompts: a random-effects mean."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

#: Runs from which a random-effects mean is given: with fewer its interval says little of the spread between them.
ENOUGH_RUNS = 5
#: Smallest variance of one run's mean: an effect that is the same on all prompts has none.
_LEAST = 1e-16


@dataclass(frozen=True)
class RandomEffects:
    """Means over runs with their intervals, and how much runs differ: `tau` is the standard deviation of the true
    effect between runs, `i2` the share of the variance of the runs' means that is due to it (0 to 1)."""

    mean: Float[np.ndarray, " head"]
    low: Float[np.ndarray, " head"]
    high: Float[np.ndarray, " head"]
    tau: Float[np.ndarray, " head"]
    i2: Float[np.ndarray, " head"]


def random_effects(
    mean: Float[np.ndarray, "run head"], variance: Float[np.ndarray, "run head"], confidence: float = 0.95
) -> RandomEffects:
    """Return the random-effects mean over runs of each head: the variance between runs by Paule and Mandel (1982), the
    interval by Hartung and Knapp (2001; Sidik and Jonkman 2002), with t of one degree less than there are runs.

    `mean` is each run's mean effect, `variance` the squared standard error of it.

    >>> pooled = random_effects(np.array([[1.0], [2.0], [3.0]]), np.full((3, 1), 0.01))
    >>> float(round(pooled.mean[0], 3)), float(round(pooled.tau[0], 3))
    (2.0, 0.995)
    """
    from statsmodels.stats.meta_analysis import combine_effects

    columns = []
    for values, error in zip(mean.T, np.maximum(variance, _LEAST).T, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the intervals of single runs, which are not used
            combined: Any = combine_effects(values, error, method_re="iterated", use_t=True, alpha=1 - confidence)
            row = combined.summary_frame().loc["random effect wls"]
        columns.append((row["eff"], row["ci_low"], row["ci_upp"], np.sqrt(combined.tau2), max(0.0, float(combined.i2))))
    return RandomEffects(*np.array(columns, dtype=float).reshape(-1, 5).T)


def variance_of_mean(values: Float[np.ndarray, "prompt head"], clusters: np.ndarray) -> Float[np.ndarray, " head"]:
    """Return the squared standard error of each head's mean over prompts, by whole clusters (Liang and Zeger 1986):
    C/(C−1) Σ (sum over the cluster − its size × mean)² / n²; NaN with one cluster."""
    names, of = np.unique(np.asarray(clusters).astype(str), return_inverse=True)
    away = values - values.mean(axis=0)
    sums = np.stack([away[of == at].sum(axis=0) for at in range(len(names))])
    n = len(names)
    return np.full(values.shape[1], np.nan) if n < 2 else n / (n - 1) * (sums**2).sum(axis=0) / len(values) ** 2
