"""Random scores: the baseline that a method must beat."""

import numpy as np
from jaxtyping import Float


def random_scores(n: int, seed: int | list[int]) -> Float[np.ndarray, " position"]:
    """Draw n uniform scores between 0 and 1; the same seed gives the same."""
    return np.random.default_rng(seed).random(n)
