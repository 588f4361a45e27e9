"""Planning: the reach and the power of a number of clusters, and the prompts needed."""

import math
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Shaped

from harness.config import RequestError
from harness.stats.clusters import group
from harness.stats.discovery import false_discovery
from harness.stats.randomisation import sign_flip


def check_share(key: str, value: float) -> float:
    """Return the value if it is strictly between 0 and 1. Raises `RequestError` otherwise."""
    if not 0 < value < 1:
        raise RequestError(key, value, "must be between 0 and 1")
    return value


def clusters_needed(level: float) -> int:
    """Return the fewest clusters with which a two-sided sign flip can fall below `level`: its smallest p is 2/2ⁿ."""
    check_share("stats.level", level)
    return next(n for n in range(1, 1100) if 2.0 ** (1 - n) < level)


def reachable(n_clusters: int, level: float) -> bool:
    """Whether any effect at all could be significant. If not, the report has no stars and a note."""
    return n_clusters >= clusters_needed(level)


def prompts_to_separate(
    effect_column: Float[np.ndarray, " prompt"],
    clusters: Shaped[np.ndarray, " prompt"] | None = None,
    confidence: float = 0.95,
) -> int | None:
    """Estimate how many prompts of this kind separate a mean like this one from zero.

    The normal approximation: the standard error of the mean over prompts, from the deviations of cluster sums
    (the sandwich of a ratio: sum of (S − m·mean)² · G/(G−1) over the squared number of prompts), shrinks with the
    square root of the prompts, clusters growing in number and not in size; n is where z of them equal the mean. At
    that n the power is about one half; for 0.8 take twice as many. The estimate is for one head on its own, and too
    low for the strongest of many, whose mean is partly luck. Never fewer than the clusters that a sign flip needs.
    ``None`` with fewer than two clusters, or a mean of exactly zero.
    """
    check_share("stats.confidence", confidence)
    values = np.asarray(effect_column, dtype=np.float64)
    grouped = group(clusters, len(values))
    mean = float(values.mean()) if len(values) else 0.0
    n_clusters = len(grouped)
    if n_clusters < 2 or mean == 0 or not math.isfinite(mean):
        return None
    away = grouped.sums(values - mean)
    variance = float(away @ away) * n_clusters / (n_clusters - 1) / len(values) ** 2
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    enough = len(values) * variance * (z / mean) ** 2
    least = clusters_needed(1 - confidence) * len(values) / n_clusters
    return math.ceil(max(enough, least) - 1e-9)


def power(
    effect_size: float = 1.0,
    n_clusters: int = 32,
    n_heads: int = 40,
    level: float = 0.05,
    runs: int = 200,
    resamples: int = 1999,
    seed: int = 0,
) -> dict[str, float]:
    """Estimate the power to detect one head with an effect of `effect_size` standard deviations among `n_heads`.

    Simulated: normal noise, independent between heads (the hardest case for max-T), the test of `summarize`.

    Returns:
        The share of runs, 0 to 1, in which `p_value`, `q_value` and `p_adjusted` of that head are below the level.

    >>> import harness
    >>> harness.stats.power(effect_size=1.0, n_clusters=32, n_heads=10, runs=20, resamples=999)["p_adjusted"] > 0.8
    True
    """
    detected = np.zeros(3)
    for each in np.random.SeedSequence(seed).spawn(runs):
        noise, flips = each.spawn(2)
        effect = np.random.default_rng(noise).standard_normal((n_clusters, n_heads))
        effect[:, 0] += effect_size
        test = sign_flip(effect, resamples, flips)
        q_value = false_discovery(test.p_value)
        detected += np.array([test.p_value[0], q_value[0], test.p_adjusted[0]]) < level
    return dict(zip(("p_value", "q_value", "p_adjusted"), (detected / runs).tolist(), strict=True))
