"""Rollout relative to even attention, which corrects for early tokens being reached by more paths than late ones."""

import numpy as np
from jaxtyping import Float

from harness.attribution.mean_patterns import Pattern, as_pattern
from harness.attribution.rollout import rollout


def uniform_pattern(pattern: Pattern) -> Float[np.ndarray, "layer head query key"]:
    """Spread each row evenly over its allowed keys: those to which some head of the layer gives any weight (a masked
    key has exactly 0). One head; a row without keys (padding) stays empty."""
    allowed = (as_pattern(pattern) > 0).any(axis=1, keepdims=True)
    return allowed / np.maximum(allowed.sum(axis=-1, keepdims=True), 1)


def uniform_normalised(
    pattern: Pattern, residual: float = 0.5, head_fusion: str = "mean", start_layer: int = 0
) -> Float[np.ndarray, "query key"]:
    """Divide rollout by the rollout of even attention, [layer, head, query, key] -> [query, key].

    1 is the value of a model that attends evenly to all allowed keys, at any position; 0 where no path leads. Rows do
    not sum to 1. In a causal model more paths lead to early tokens than to late ones, so that plain rollout ranks by
    position even where attention is uniform. Raises `RequestError` and ValueError as `rollout` does.
    """
    values = as_pattern(pattern)
    rolled = rollout(values, residual, head_fusion, start_layer)
    even = rollout(uniform_pattern(values), residual, "mean", start_layer)
    return np.divide(rolled, even, out=np.zeros_like(rolled), where=even > 0)
