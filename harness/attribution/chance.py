"""A random order of the tokens: the floor that a method must beat."""

import numpy as np
from jaxtyping import Float


def random_scores(n: int, seed: int | list[int]) -> Float[np.ndarray, " position"]:
    """Scores without meaning, between 0 and 1; the same seed gives the same."""
    return np.random.default_rng(seed).random(n)
