"""Rollout against what even attention would give: early tokens are reached by more paths than late ones."""

import numpy as np
from jaxtyping import Float

from harness.attribution.raw import Pattern, as_pattern
from harness.attribution.rollout import rollout


def uniform_pattern(pattern: Pattern) -> Float[np.ndarray, "layer head query key"]:
    """The pattern that spreads each row evenly over the keys it may see: those to which some head of the layer gives
    any weight (a masked key has exactly none). One head; a row that sees nothing (padding) stays empty."""
    seen = (as_pattern(pattern) > 0).any(axis=1, keepdims=True)
    return seen / np.maximum(seen.sum(axis=-1, keepdims=True), 1)


def uniform_normalised(
    pattern: Pattern, residual: float = 0.5, head_fusion: str = "mean", start_layer: int = 0
) -> Float[np.ndarray, "query key"]:
    """Rollout divided by the rollout of even attention, [layer, head, query, key] -> [query, key].

    1 is what a model that attends evenly to all it may see would give, whatever the position; 0 where nothing can
    be reached. Rows do not sum to 1. In a causal model more paths lead to early tokens than to late ones, so that plain
    rollout ranks by position even where attention says nothing.

    Raises `RequestError` and ValueError as `rollout` does.
    """
    given = as_pattern(pattern)
    rolled = rollout(given, residual, head_fusion, start_layer)
    even = rollout(uniform_pattern(given), residual, "mean", start_layer)
    return np.divide(rolled, even, out=np.zeros_like(rolled), where=even > 0)
