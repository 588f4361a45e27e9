"""Divide clusters of prompts into those that choose the measured edges and those that test them.

An edge that is chosen for its large estimate on some prompts is expected to be smaller on others, so that a test on the
prompts that chose it would claim too much. Whole clusters go to one half.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Shaped

#: What a prompt's effects are for.
CHOOSE, TEST, BOTH = "choose", "test", "both"
#: Fewer clusters than this in a half show nothing: then all prompts choose and test.
MIN_CLUSTERS = 4


def halves(clusters: Sequence[str], seed: int, chosen: bool) -> Shaped[np.ndarray, " prompt"]:
    """Return ``choose``, ``test`` or ``both`` for each prompt.

    All prompts test where edges are not `chosen` by their estimates, and do both where there are fewer than twice
    `MIN_CLUSTERS` clusters. Otherwise half of the clusters (the smaller one) choose, drawn by `seed`.
    """
    names = sorted(set(clusters))
    if not chosen or len(names) < 2 * MIN_CLUSTERS:
        return np.full(len(clusters), BOTH if chosen else TEST)
    drawn = np.random.default_rng([seed, len(names)]).permutation(len(names))[: len(names) // 2]
    choosing = {names[at] for at in drawn}
    return np.array([CHOOSE if cluster in choosing else TEST for cluster in clusters])


def choosing(half: Shaped[np.ndarray, " prompt"]) -> Bool[np.ndarray, " prompt"]:
    """Whether each prompt's estimates choose edges."""
    return (half == CHOOSE) | (half == BOTH)


def testing(half: Shaped[np.ndarray, " prompt"]) -> Bool[np.ndarray, " prompt"]:
    """Whether each prompt's effects test edges."""
    return half != CHOOSE
