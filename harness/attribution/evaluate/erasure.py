"""Erasure curves: remove tokens in a method's order and measure the prediction.

DeYoung et al. 2020, "ERASER" (arXiv:1911.03429): comprehensiveness and sufficiency; Petsiuk et al. 2018, "RISE"
(arXiv:1806.07421): deletion and insertion curves.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from harness.attribution.example import Example
from harness.attribution.masking import Parts
from harness.attribution.occlusion import Fill, occlude

CURVES = ("deletion", "insertion")
Tokens = frozenset[int]


def removed_tokens(
    scores: Float[np.ndarray, " node"], counts: Bool[np.ndarray, " node"], fractions: Sequence[float]
) -> list[list[Tokens]]:
    """Return the tokens to remove for each curve and fraction.

    ``deletion`` removes the strongest share, ``insertion`` all but the strongest. A share is rounded up to whole
    tokens, and tied tokens are in the order of the text.
    """
    eligible = np.flatnonzero(counts)
    order = eligible[np.argsort(-scores[eligible], kind="stable")].tolist()
    ends = [math.ceil(fraction * len(order) - 1e-9) for fraction in fractions]
    return [[frozenset(order[:end]) for end in ends], [frozenset(order[end:]) for end in ends]]


def erase(
    example: Example,
    scores: Float[np.ndarray, "method target part"],
    counts: Bool[np.ndarray, "policy target part"],
    fractions: Sequence[float],
    fill: Fill,
    parts: Parts,
) -> tuple[Float[np.ndarray, "method policy curve target fraction"], Float[np.ndarray, "policy target"]]:
    """Return the increase of the explained number without those tokens (or words: the nodes of each of the `parts`),
    and without all that count. A set that several methods remove is run once."""
    n_methods, n_policies = len(scores), len(counts)
    grown = np.empty((n_methods, n_policies, len(CURVES), example.n_targets, len(fractions)))
    without_all = np.empty((n_policies, example.n_targets))
    for target in range(example.n_targets):
        wanted = [[removed_tokens(each[target], policy[target], fractions) for policy in counts] for each in scores]
        everything = [frozenset(np.flatnonzero(policy[target]).tolist()) for policy in counts]
        sets = {tokens for method in wanted for policy in method for curve in policy for tokens in curve}
        known = _effects(example, target, {*sets, *everything}, fill, parts)
        grown[..., target, :] = [
            [[[known[tokens] for tokens in curve] for curve in policy] for policy in method] for method in wanted
        ]
        without_all[:, target] = [known[tokens] for tokens in everything]
    return grown, without_all


def _effects(example: Example, target: int, sets: set[Tokens], fill: Fill, parts: Parts) -> dict[Tokens, float]:
    """Measure the effect of removing each set of parts."""
    order = sorted(sets, key=lambda tokens: (len(tokens), sorted(tokens)))
    effects = occlude(example, [[node for at in each for node in parts[at]] for each in order], fill)[:, target]
    return dict(zip(order, effects.tolist(), strict=True))
