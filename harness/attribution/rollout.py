"""Attention rollout: where information could have come from, if attention alone moved it.

Abnar & Zuidema, "Quantifying Attention Flow in Transformers" (ACL 2020), section 3, equation 1.
"""

import numpy as np
from jaxtyping import Float

from harness.attribution.mean_patterns import Pattern, as_pattern
from harness.config import RequestError
from harness.hooks import WHOLE_ROW

#: How a layer's heads become one matrix.
FUSIONS = {"mean": np.mean, "max": np.max, "min": np.min}


def rollout(
    pattern: Pattern,
    residual: float = 0.5,
    head_fusion: str = "mean",
    start_layer: int = 0,
    discard_ratio: float = 0.0,
) -> Float[np.ndarray, "query key"]:
    """Roll attention out through the layers, [layer, head, query, key] -> [query, key]; rows sum to 1.

    With A_l the heads of layer l fused into one matrix whose rows sum to 1,

        R_l = (residual * I + (1 - residual) * A_l) R_(l-1),    R_(start_layer - 1) = I,

    and the result is R of the last layer (Abnar & Zuidema 2020, equation 1, where ``residual`` is 0.5).

    Args:
        pattern: one prompt's attention weights, numpy or xarray.
        residual: the share of a position that the residual stream keeps, 0 to 1.
        head_fusion: ``mean``, ``max`` or ``min`` over a layer's heads.
        start_layer: the first layer that counts, zero-based.
        discard_ratio: the share of each fused matrix's allowed entries to set to zero, smallest first, 0 up to but
            not including 1. An entry that is exactly zero (masked, padded) is not an allowed one, and a row's last
            remaining entry always stays.

    In a model with a learnt sink (gpt-oss) rows of patterns sum to less than 1, and so do those of the result: the rest
    is the sink's share, which carries no token's value.

    Raises `RequestError` for an option outside its range, ValueError for an array of another shape.

    >>> import numpy as np
    >>> import harness
    >>> pattern = np.array([[[[1.0, 0.0], [0.5, 0.5]]]] * 2)          # two layers of one head, two tokens
    >>> harness.attribution.rollout(pattern)
    array([[1.    , 0.    ],
           [0.4375, 0.5625]])
    """
    values = as_pattern(pattern)
    _check(residual, head_fusion, start_layer, discard_ratio, n_layers=len(values))
    fused = [
        normalise_rows(_discard(FUSIONS[head_fusion](one, axis=0), discard_ratio)) * share_on_tokens(one)
        for one in values[start_layer:]
    ]
    return roll(with_residual(np.stack(fused), residual))


def roll(steps: Float[np.ndarray, "layer query key"]) -> Float[np.ndarray, "query key"]:
    """Multiply the layers' matrices, the last layer's on the left: shares of the input in the last output."""
    rolled = np.eye(steps.shape[-1])
    for step in steps:
        rolled = step @ rolled
    return rolled


def with_residual(fused: Float[np.ndarray, "layer query key"], residual: float) -> Float[np.ndarray, "layer query key"]:
    """Mix each layer's matrix with the identity, which has the share `residual`."""
    return residual * np.eye(fused.shape[-1]) + (1 - residual) * fused


def _check(residual: float, head_fusion: str, start_layer: int, discard_ratio: float, n_layers: int) -> None:
    key = "attribution.rollout"
    check_mixing(residual, head_fusion)
    if not 0 <= start_layer < n_layers:
        raise RequestError(f"{key}.start_layer", start_layer, f"the model has layers 0-{n_layers - 1}")
    if not 0 <= discard_ratio < 1:
        raise RequestError(f"{key}.discard_ratio", discard_ratio, "choose a share from 0 up to, not including, 1")


def check_mixing(residual: float, head_fusion: str = "mean") -> None:
    """Raise `RequestError` for a residual outside 0 to 1 or an unknown fusion."""
    if not 0 <= residual <= 1:
        raise RequestError("attribution.rollout.residual", residual, "choose a share from 0 to 1")
    if head_fusion not in FUSIONS:
        raise RequestError("attribution.rollout.head_fusion", head_fusion, f"choose one of {', '.join(FUSIONS)}")


def _discard(fused: Float[np.ndarray, "query key"], ratio: float) -> Float[np.ndarray, "query key"]:
    """Set the smallest share of the nonzero entries to zero, keeping each row's largest."""
    allowed = fused > 0
    count = int(ratio * allowed.sum() + 1e-9)  # 0.29 * 100 is 28.999…
    smallest = np.argsort(np.where(allowed, fused, np.inf), axis=None, kind="stable")[:count]
    kept = fused.copy()
    kept.flat[smallest] = 0
    rows, last = np.arange(len(fused)), fused.shape[1] - 1 - fused[:, ::-1].argmax(axis=1)
    kept[rows, last] = fused[rows, last]
    return kept


def share_on_tokens(heads: Float[np.ndarray, "head query key"]) -> Float[np.ndarray, "query 1"]:
    """Return the share of each row that is on tokens, mean over heads: 1 without a learnt sink, and in padding."""
    share = heads.sum(axis=-1).mean(axis=0)[:, None]
    return np.where((share > 0) & (share < WHOLE_ROW), share, 1.0)


def normalise_rows(fused: Float[np.ndarray, "*layer query key"]) -> Float[np.ndarray, "*layer query key"]:
    """Scale rows to sum to 1; an empty row (padding) becomes the identity's."""
    total = fused.sum(axis=-1, keepdims=True)
    empty = total == 0
    return np.where(empty, np.eye(fused.shape[-1]), fused / np.where(empty, 1, total))
