"""Sign patterns of clusters, drawn once for all heads: all of them where they fit, else random ones."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

CELLS_AT_ONCE = 2**20
ROWS_AT_ONCE = 256


def rows_at_once(n_clusters: int) -> int:
    """Return the rows of a block of draws, whatever the number of heads: a head's numbers depend on no other head."""
    return int(np.clip(CELLS_AT_ONCE // n_clusters, 1, ROWS_AT_ONCE))


def is_exact(n_clusters: int, resamples: int) -> bool:
    """Whether all sign patterns fit into the number of resamples."""
    return n_clusters < 62 and 2**n_clusters <= resamples


def sign_blocks(
    n_clusters: int, resamples: int, seed: np.random.SeedSequence
) -> Iterator[Float[np.ndarray, "row cluster"]]:
    """Yield blocks of ±1. Exact: every pattern whose first sign is +; the other half are their negatives."""
    rng, rows = np.random.default_rng(seed), rows_at_once(n_clusters)
    exact = is_exact(n_clusters, resamples)
    total = 2 ** (n_clusters - 1) if exact else resamples
    for start in range(0, total, rows):
        n = min(rows, total - start)
        if exact:
            bits = np.arange(start, start + n)[:, None] >> np.arange(n_clusters) & 1
            yield 1.0 - 2.0 * bits[:, ::-1]
        else:
            yield 2.0 * rng.integers(0, 2, size=(n, n_clusters), dtype=np.int8) - 1.0


def subset_blocks(
    n_clusters: int, resamples: int, seed: np.random.SeedSequence
) -> Iterator[Float[np.ndarray, "row cluster"]]:
    """Yield blocks of 0 and 1: the clusters of all non-empty subsets, or of random ones (an empty one becomes all)."""
    for signs in sign_blocks(n_clusters, resamples, seed):
        kept = (1 + signs) / 2
        if is_exact(n_clusters, resamples):
            kept = np.concatenate([kept, 1 - kept])
            yield kept[kept.any(axis=1)]
        else:
            kept[~kept.any(axis=1)] = 1
            yield kept
