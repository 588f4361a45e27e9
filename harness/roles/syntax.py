"""Syntactic heads: attend from one word of a relation to the other, more often than the best fixed offset (Clark et al.
2019, arXiv:1906.04341, §4.2; Voita et al. 2019, arXiv:1905.09418, §5.2.1, who require 10 points more).

Patterns are merged to words. A head hits a relation if, of all other allowed ordinary words, its largest weight is on
the right one; from the dependent to its head and from the head to its dependent are counted apart.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from harness.prompts.relations import Relation
from harness.roles.role_measures import RoleScore

#: The least margin over the hit rate of the best fixed offset.
MORE = 0.1
WAYS = ("to head", "to dependent")

Hits = Float[np.ndarray, "relation way head"]


def hits(
    pattern: Float[np.ndarray, "head word_query word_key"],
    special: Bool[np.ndarray, " word_key"],
    relations: Sequence[Relation],
    causal: bool,
) -> Hits:
    """Return 1 where a head hits a relation, 0 where not, NaN where the causal mask excludes the word."""
    n = pattern.shape[-1]
    other = ~np.eye(n, dtype=bool) & ~special[None, :]
    other = np.tril(other) if causal else other
    most = np.where(other, pattern, -1).argmax(axis=-1)
    hit = np.full((len(relations), len(WAYS), len(pattern)), np.nan)
    for at, relation in enumerate(relations):
        for way, (query, key) in enumerate(_ways(relation)):
            if other[query, key]:
                hit[at, way] = most[:, query] == key
    return hit


def _ways(relation: Relation) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return query and key, from the dependent to its head and back."""
    return (relation.dependent, relation.head), (relation.head, relation.dependent)


def best_offset(relations: Sequence[Relation], causal: bool) -> Float[np.ndarray, "relation way"]:
    """Return 1 where the most common offset is right, 0 where not, NaN where the causal mask excludes the word."""
    offset = np.array([[key - query for query, key in _ways(each)] for each in relations], dtype=float)
    offset[(offset > 0) & causal] = np.nan
    right = np.full(offset.shape, np.nan)
    for way in range(len(WAYS)):
        known = offset[:, way][~np.isnan(offset[:, way])]
        if len(known):
            commonest = Counter(known.tolist()).most_common(1)[0][0]
            right[:, way] = np.where(np.isnan(offset[:, way]), np.nan, offset[:, way] == commonest)
    return right


def syntactic(
    hit: Hits, fixed: Float[np.ndarray, "relation way"], draws: int, rng: np.random.Generator
) -> tuple[RoleScore, Float[np.ndarray, " head"]] | None:
    """Score each head's hit rate, in the direction in which its margin over the best fixed offset is larger.

    Also returns that offset's rate; `None` where no relation can be hit. The null distribution flips the relations on
    which head and offset differ (McNemar).
    """
    ways = [way for way in range(len(WAYS)) if np.isfinite(fixed[:, way]).any()]
    if not ways:
        return None
    known = [np.isfinite(fixed[:, way]) for way in ways]
    rate = np.array([fixed[some, way].mean() for way, some in zip(ways, known, strict=True)])
    score = np.stack([hit[some, way].mean(axis=0) for way, some in zip(ways, known, strict=True)])
    more = [hit[some, way] - fixed[some, way][:, None] for way, some in zip(ways, known, strict=True)]
    signs = rng.choice([-1.0, 1.0], size=(draws, len(hit)))
    flipped = np.stack([signs[:, some] @ each / some.sum() for some, each in zip(known, more, strict=True)])
    better = (score - rate[:, None]).argmax(axis=0)
    measured = RoleScore(score[better, np.arange(score.shape[1])], rate[better] + flipped.max(axis=0))
    return measured, rate[better]


def grouped(relations: Sequence[Relation]) -> dict[str, Int[np.ndarray, " relation"]]:
    """Return the relations of each name, in the order of the names."""
    names = np.array([each.name for each in relations])
    return {str(name): np.flatnonzero(names == name) for name in sorted(set(names.tolist()))}
