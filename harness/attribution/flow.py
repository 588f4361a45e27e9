"""Attention flow: how much could have come from a token at most, if each layer's weights were the widths of pipes.

Abnar & Zuidema, "Quantifying Attention Flow in Transformers" (ACL 2020), section 3: the maximum flow from a position
of the last layer to a position of the input, the mixed weights ``residual * I + (1 - residual) * A`` being capacities.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from harness.attribution.raw import Pattern, as_pattern
from harness.attribution.rollout import FUSIONS, check_mixing, normalise_rows, share_on_tokens, with_residual

if TYPE_CHECKING:
    from scipy.sparse import csr_array

#: scipy's maximum flow is of whole numbers: capacities are rounded to this share of 1. A flow is off by at most half
#: of it for each pipe of its narrowest cut.
ROUNDING = 1e-6


def flow(
    pattern: Pattern,
    residual: float = 0.5,
    head_fusion: str = "mean",
    queries: Sequence[int] | None = None,
) -> Float[np.ndarray, "query key"]:
    """Maximum flow from each query of the last layer to each key of the input, [layer, head, query, key] -> [query,
    key], a number between 0 and 1; rows need not sum to 1, since flows to two keys may use the same pipe.

    With one layer it is what `rollout` gives. `queries` asks for some rows only (in that order). Capacities are
    rounded to `ROUNDING`.

    Raises `RequestError` and ValueError as `rollout` does.
    """
    steps = _steps(pattern, residual, head_fusion)
    rows = range(steps.shape[-1]) if queries is None else queries
    return np.stack([_from(steps, query) for query in rows])


def pooled_flow(
    pattern: Pattern,
    residual: float = 0.5,
    head_fusion: str = "mean",
    share: Float[np.ndarray, " query"] | None = None,
) -> Float[np.ndarray, " key"]:
    """Maximum flow to each key from the pooled vector of a text: from one more node, which has a pipe to each position
    of the last layer as wide as its `share` of the vector (by default 1 / positions). Otherwise as `flow`."""
    steps = _steps(pattern, residual, head_fusion)
    even = np.full(steps.shape[-1], 1 / steps.shape[-1]) if share is None else share
    return _from(np.concatenate([steps, np.broadcast_to(even, (1, *steps.shape[1:]))]), 0)


def _steps(pattern: Pattern, residual: float, head_fusion: str) -> Float[np.ndarray, "layer query key"]:
    check_mixing(residual, head_fusion)
    values = as_pattern(pattern)
    on_tokens = np.stack([share_on_tokens(one) for one in values])
    return with_residual(normalise_rows(FUSIONS[head_fusion](values, axis=1)) * on_tokens, residual)


def _from(steps: Float[np.ndarray, "layer query key"], query: int) -> Float[np.ndarray, " key"]:
    """The flow from one position of the last layer to each of the input."""
    from scipy.sparse.csgraph import maximum_flow

    n_layers, n = steps.shape[:2]
    pipes, found = _pipes(steps), np.zeros(n)
    for key in np.nonzero(_reached(steps)[query])[0]:
        found[key] = maximum_flow(pipes, n_layers * n + query, int(key), method="dinic").flow_value
    return found * ROUNDING


def _reached(steps: Float[np.ndarray, "layer query key"]) -> np.ndarray:
    """Which keys any path leads to, [query, key]."""
    reached = np.eye(steps.shape[-1], dtype=bool)
    for step in steps:
        reached = (step > 0) @ reached
    return reached


def _pipes(steps: Float[np.ndarray, "layer query key"]) -> "csr_array":
    """The graph as a sparse matrix of whole-number capacities: node ``layer * n + position``, layer 0 the input, and
    a pipe from each position to those of the layer below that it draws on."""
    from scipy.sparse import csr_array

    layer, query, key = np.nonzero(np.rint(steps / ROUNDING))
    width = np.rint(steps[layer, query, key] / ROUNDING).astype(np.int32)
    n_layers, n = steps.shape[:2]
    size = (n_layers + 1) * n
    return csr_array((width, ((layer + 1) * n + query, layer * n + key)), shape=(size, size))
