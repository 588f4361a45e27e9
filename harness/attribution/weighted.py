"""Rollout in which a head counts by what ablating it was measured to cost."""

import numpy as np
from jaxtyping import Float

from harness.attribution.raw import Pattern, as_pattern
from harness.attribution.rollout import check_mixing, normalise_rows, roll, share_on_tokens, with_residual
from harness.config import RequestError


def effect_weighted(
    pattern: Pattern, helps: Float[np.ndarray, "layer head"], residual: float = 0.5
) -> Float[np.ndarray, "query key"]:
    """Rollout with the heads of a layer averaged by their measured effect, [layer, head, query, key] -> [query, key].

    `helps` is by how much each head helps when it is there (for `loss` its effect, for `logit_diff` minus its
    effect). Heads that hurt are left out (see `negative_share`); a layer in which no head helps passes everything on
    as it is. Rows sum to 1 (less with a learnt sink, as in `rollout`). With equal effects this is `rollout`.

    Raises `RequestError` for a residual that is no share and for effects of other heads than the pattern's.
    """
    values = as_pattern(pattern)
    check_mixing(residual)
    weight = np.clip(_checked(helps, values), 0, None)
    fused = normalise_rows(np.einsum("lh,lhqk->lqk", weight, values)) * np.stack(
        [share_on_tokens(one) for one in values]
    )
    return roll(with_residual(fused, residual))


def negative_share(helps: Float[np.ndarray, "layer head"]) -> float:
    """The share of all effect (sum of absolute values) that is of heads that hurt, which `effect_weighted` leaves out;
    0 where no head does anything."""
    total = np.abs(helps).sum()
    return float(np.clip(-helps, 0, None).sum() / total) if total else 0.0


def _checked(helps: np.ndarray, pattern: np.ndarray) -> np.ndarray:
    if helps.shape != pattern.shape[:2] or not np.isfinite(helps).all():
        needed = f"one finite number for each of the {pattern.shape[0]} layers × {pattern.shape[1]} heads"
        raise RequestError("helps", f"shape {helps.shape}", needed)
    return helps
