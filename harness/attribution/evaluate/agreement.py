"""Rank agreement of a method and a cause over the same tokens; NaN where it is undefined.

Published numbers differ by how ties count: here Spearman's rho is of average ranks, Kendall's is tau-b, and tokens that
tie at the edge of the top share the places left.
"""

import numpy as np
from jaxtyping import Float

from harness.stats import rank_correlation

Tokens = Float[np.ndarray, " token"]


def spearman(scores: Tokens, cause: Tokens) -> float:
    """Return Spearman's rho, −1 to 1, average ranks for ties; NaN where either is constant."""
    return rank_correlation(scores, cause)


def kendall(scores: Tokens, cause: Tokens) -> float:
    """Return Kendall's tau-b, −1 to 1: concordant less discordant pairs, over the root of the product of the pairs that
    each does not tie. NaN where either is constant."""
    above = np.triu_indices(len(scores), 1)
    first, second = (np.sign(np.subtract.outer(each, each))[above] for each in (scores, cause))
    untied = np.sqrt((first != 0).sum() * (second != 0).sum())
    return float((first * second).sum() / untied) if untied else float("nan")


def overlap(scores: Tokens, cause: Tokens, top: int) -> float:
    """Return the share of the `top` strongest tokens in common, 0 to 1; the chance level is top / tokens. NaN where
    there are no more tokens than that."""
    if len(scores) <= top:
        return float("nan")
    return float(np.minimum(among_top(scores, top), among_top(cause, top)).sum() / top)


def among_top(scores: Tokens, top: int) -> Tokens:
    """Return each token's membership in the top: 1 or 0, and an equal share for those that tie at the edge."""
    edge = np.sort(scores)[-top]
    above, at = scores > edge, scores == edge
    return above + at * (top - above.sum()) / at.sum()
