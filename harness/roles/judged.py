"""Scores to roles: which heads have one, beyond chance and by enough."""

import numpy as np
from jaxtyping import Bool, Float

from harness.stats.randomisation import tail

Heads = Float[np.ndarray, " head"]
_SPREAD = 1e-6  # what chance hardly varies by is rounding


def beyond_chance(score: Heads, null: Float[np.ndarray, "draw head"]) -> Heads:
    """How often the strongest of all heads does as well by chance, each on the scale of its own draws: Westfall and
    Young's max-T (1993)."""
    mean, spread = null.mean(axis=0), np.maximum(null.std(axis=0), _SPREAD)
    return tail((score - mean) / spread, [(null - mean) / spread], exact=False, unseen=0)[1]


def far_enough(score: Heads, chance: Heads, threshold: float, least: float) -> Bool[np.ndarray, " head"]:
    """Whether a score lies at least `threshold` of the way from chance to 1, and is at least `least`."""
    return (score - chance >= threshold * (1 - chance)) & (score >= least)
