"""Effect-weighted rollout: heads are averaged by their measured effects."""

import numpy as np
from jaxtyping import Float

from harness.attribution.mean_patterns import Pattern, as_pattern
from harness.attribution.rollout import check_mixing, normalise_rows, roll, share_on_tokens, with_residual
from harness.config import RequestError


def effect_weighted(
    pattern: Pattern, helps: Float[np.ndarray, "layer head"], residual: float = 0.5
) -> Float[np.ndarray, "query key"]:
    """Roll attention out with heads averaged by their measured effect, [layer, head, query, key] -> [query, key].

    `helps` is each head's effect with the sign that makes helping positive (for `logit_diff` minus its effect). Heads
    that hurt are left out (see `negative_share`); a layer in which no head helps is the identity. Rows sum to 1 (less
    with a learnt sink, as in `rollout`). With equal effects this is `rollout`.

    Raises `RequestError` for a residual outside 0 to 1 and for effects of another shape than the pattern's.
    """
    values = as_pattern(pattern)
    check_mixing(residual)
    if helps.shape != values.shape[:2] or not np.isfinite(helps).all():
        needed = f"one finite number for each of the {values.shape[0]} layers × {values.shape[1]} heads"
        raise RequestError("helps", f"shape {helps.shape}", needed)
    weight = np.clip(helps, 0, None)
    fused = normalise_rows(np.einsum("lh,lhqk->lqk", weight, values)) * np.stack(
        [share_on_tokens(one) for one in values]
    )
    return roll(with_residual(fused, residual))


def negative_share(helps: Float[np.ndarray, "layer head"]) -> float:
    """Return the share of heads that hurt (left out by `effect_weighted`) in the sum of absolute effects, or 0."""
    total = np.abs(helps).sum()
    return float(np.clip(-helps, 0, None).sum() / total) if total else 0.0
