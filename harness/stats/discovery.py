"""The expected share of false discoveries: Benjamini–Hochberg q."""

import numpy as np
from jaxtyping import Float


def false_discovery(p_value: Float[np.ndarray, " head"], tested: int | None = None) -> Float[np.ndarray, " head"]:
    """Benjamini–Hochberg q: calling all heads with q below 0.05 discoveries, 5 % of them are expected to be false.

    Benjamini & Hochberg (1995), JRSS B 57; holds for independent tests and for positively dependent ones
    (Benjamini & Yekutieli 2001), and in simulation for the two-sided, correlated ones here.

    Args:
        tested: over how many heads to correct, if more were tested than are given; the others count as p = 1.
    """
    order = np.argsort(p_value, kind="stable")
    total = len(p_value) if tested is None else tested
    scaled = p_value[order] * total / np.arange(1, len(p_value) + 1)
    result = np.empty(len(p_value))
    result[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1)
    return result
