"""Jensen–Shannon distance of two patterns' rows."""

import numpy as np
from jaxtyping import Float
from scipy.special import rel_entr

from harness.hooks import WHOLE_ROW

Pattern = Float[np.ndarray, "*head query key"]


def pattern_distance(first: Pattern, second: Pattern, causal: bool = True) -> Float[np.ndarray, "*head"]:
    """Average the Jensen–Shannon distance over rows (the root of the divergence to base 2; Endres and Schindelin 2003).

    0 for equal patterns, 1 where no key gets weight in both. A decoder's first row has one key and does not count; NaN
    where no row is left. A learnt sink's share counts as one more key.
    """
    rows = slice(1, None) if causal else slice(None)
    if first[..., rows, :].shape[-2] == 0:
        return np.full(first.shape[:-2], np.nan)
    p, q = (_with_sink(np.asarray(each[..., rows, :], dtype=np.float64)) for each in (first, second))
    middle = (p + q) / 2
    divergence = (rel_entr(p, middle) + rel_entr(q, middle)).sum(axis=-1) / np.log(4)
    return np.asarray(np.sqrt(np.maximum(divergence, 0)).mean(axis=-1))


def _with_sink(pattern: Pattern) -> Float[np.ndarray, "*head query key_or_sink"]:
    """Append what each row lacks of 1 as one more key; 0 for an empty row (padding)."""
    total = pattern.sum(axis=-1, keepdims=True)
    return np.concatenate([pattern, np.where((total > 0) & (total < WHOLE_ROW), 1 - total, 0)], axis=-1)
