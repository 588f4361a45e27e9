"""Attention flow: the maximum flow from an input token to a position of the last layer, weights being capacities.

Abnar & Zuidema, "Quantifying Attention Flow in Transformers" (ACL 2020), section 3: the maximum flow from a position
of the last layer to a position of the input, the mixed weights ``residual * I + (1 - residual) * A`` being capacities.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from harness.attribution.mean_patterns import Pattern, as_pattern
from harness.attribution.rollout import FUSIONS, check_mixing, normalise_rows, share_on_tokens, with_residual

if TYPE_CHECKING:
    from scipy.sparse import csr_array

#: scipy's maximum flow takes integers: capacities are rounded to this share of 1. A flow is off by at most half of it
#: for each edge of its minimum cut.
ROUNDING = 1e-6


def flow(
    pattern: Pattern,
    residual: float = 0.5,
    head_fusion: str = "mean",
    queries: Sequence[int] | None = None,
) -> Float[np.ndarray, "query key"]:
    """Compute the maximum flow from each query of the last layer to each key of the input.

    [layer, head, query, key] -> [query, key], 0 to 1; rows need not sum to 1, since flows to two keys may use the same
    edge. With one layer it equals `rollout`. `queries` selects rows (in that order). Capacities are rounded to
    `ROUNDING`. Raises `RequestError` and ValueError as `rollout` does. Source: Abnar & Zuidema 2020, section 3.

    >>> import numpy as np
    >>> import harness
    >>> pattern = np.array([[[[1.0, 0.0], [0.5, 0.5]]]] * 2)          # two layers of one head, two tokens
    >>> harness.attribution.flow(pattern)
    array([[1.  , 0.  ],
           [0.5 , 0.75]])
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
    """Compute the maximum flow to each key from the pooled vector of a text; otherwise as `flow`.

    The vector is one more node, with an edge to each position of the last layer whose capacity is its `share` of the
    vector (by default 1 / positions).
    """
    steps = _steps(pattern, residual, head_fusion)
    even = np.full(steps.shape[-1], 1 / steps.shape[-1]) if share is None else share
    return _from(np.concatenate([steps, np.broadcast_to(even, (1, *steps.shape[1:]))]), 0)


def _steps(pattern: Pattern, residual: float, head_fusion: str) -> Float[np.ndarray, "layer query key"]:
    check_mixing(residual, head_fusion)
    values = as_pattern(pattern)
    on_tokens = np.stack([share_on_tokens(one) for one in values])
    return with_residual(normalise_rows(FUSIONS[head_fusion](values, axis=1)) * on_tokens, residual)


def _from(steps: Float[np.ndarray, "layer query key"], query: int) -> Float[np.ndarray, " key"]:
    """Compute the flow from one position of the last layer to each of the input."""
    from scipy.sparse.csgraph import maximum_flow

    n_layers, n = steps.shape[:2]
    graph, flows = _graph(steps), np.zeros(n)
    for key in np.nonzero(_reached(steps)[query])[0]:
        flows[key] = maximum_flow(graph, n_layers * n + query, int(key), method="dinic").flow_value
    return flows * ROUNDING


def _reached(steps: Float[np.ndarray, "layer query key"]) -> np.ndarray:
    """Return which keys any path leads to, [query, key]."""
    reached = np.eye(steps.shape[-1], dtype=bool)
    for step in steps:
        reached = (step > 0) @ reached
    return reached


def _graph(steps: Float[np.ndarray, "layer query key"]) -> "csr_array":
    """Build the sparse matrix of integer capacities: node ``layer * n + position``, layer 0 the input, and an edge from
    each position to those of the layer below that it attends to."""
    from scipy.sparse import csr_array

    layer, query, key = np.nonzero(np.rint(steps / ROUNDING))
    width = np.rint(steps[layer, query, key] / ROUNDING).astype(np.int32)
    n_layers, n = steps.shape[:2]
    size = (n_layers + 1) * n
    return csr_array((width, ((layer + 1) * n + query, layer * n + key)), shape=(size, size))
