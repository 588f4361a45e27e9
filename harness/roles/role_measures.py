"""Measures of the roles that patterns show: the score in one text, and draws of its null distribution.

`MEASURES` lists how each role is measured. The null distribution is the score of the same patterns with the tokens
shuffled (roles by token) or each row's keys moved at random (roles by position), or of random patterns
(`near_uniform`).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from harness.roles import masks
from harness.roles.attention_context import AttentionContext, Mask
from harness.roles.masks import Maker, weights

Patterns = Float[np.ndarray, "head query key"]
_AT_ONCE = 2**22  # cells of masks that are held at once


class RoleScore(NamedTuple):
    """The heads' scores in one text, and draws of their null distribution."""

    score: Float[np.ndarray, " head"]
    null: Float[np.ndarray, "draw head"]


class Measure(NamedTuple):
    """How a role is measured: the function, the texts (``prompts``, or ``repeats`` of random tokens), and whether it is
    one of self-attention, of cross attention, or of both.

    `least` is the smallest score of a head with the role, beside the test; `finer` are more specific roles: a head that
    has one of these does not get this one.
    """

    by: Callable[[Patterns, AttentionContext, int, np.random.Generator], RoleScore | None]
    on: Literal["prompts", "repeats"] = "prompts"
    where: tuple[Literal["self", "cross"], ...] = ("self",)
    least: float = 0.0
    finer: tuple[str, ...] = ()


# --- shares of attention ----------------------------------------------------------------------------------------


def _by_place(maker: Maker) -> Callable[[Patterns, AttentionContext, int, np.random.Generator], RoleScore | None]:
    """Measure a mask of positions against the same moved at random in each row."""

    def measured(
        pattern: Patterns, context: AttentionContext, draws: int, rng: np.random.Generator
    ) -> RoleScore | None:
        mask = maker(context)
        return _shares(pattern, context, mask, draws, lambda n: masks.by_chance(mask, context, n, rng))

    return measured


def _by_token(maker: Maker) -> Callable[[Patterns, AttentionContext, int, np.random.Generator], RoleScore | None]:
    """Measure a mask of tokens against the same of shuffled tokens."""

    def drawn(context: AttentionContext, n: int, rng: np.random.Generator) -> Float[np.ndarray, "draw query key"]:
        others = [context.shuffled(rng) for _ in range(n)]
        made = [weights(maker(other), other) for other in others]
        return np.stack([np.zeros(context.allowed.shape, np.float32) if each is None else each for each in made])

    return lambda pattern, context, draws, rng: _shares(
        pattern, context, maker(context), draws, lambda n: drawn(context, n, rng)
    )


def _shares(
    pattern: Patterns,
    context: AttentionContext,
    mask: Mask,
    draws: int,
    drawn: Callable[[int], Float[np.ndarray, "draw query key"]],
) -> RoleScore | None:
    """Return the attention on a mask, and under the weights `drawn`, some at a time; `None` where no row counts."""
    factor = weights(mask, context)
    if factor is None:
        return None
    flat, size = pattern.reshape(len(pattern), -1), max(1, _AT_ONCE // factor.size)
    sizes = [min(size, draws - start) for start in range(0, draws, size)]
    null = [drawn(n).reshape(n, -1) @ flat.T for n in sizes]
    return RoleScore(masks.share(pattern, mask, context), np.concatenate(null))


# --- shapes of patterns -----------------------------------------------------------------------------------------


def positional(pattern: Patterns, context: AttentionContext, draws: int, rng: np.random.Generator) -> RoleScore | None:
    """Score the share of rows whose largest weight is at the most common offset (Voita et al. 2019, arXiv:1905.09418,
    who require 90 %)."""
    if not context.rows.any():
        return None
    rows, allowed = np.flatnonzero(context.rows), context.allowed[context.rows]
    most = np.where(allowed, pattern[:, rows], -1).argmax(axis=-1)
    by_chance = np.stack([np.where(allowed, rng.random(allowed.shape), -1).argmax(axis=-1) for _ in range(draws)])
    null = np.broadcast_to(_commonest(by_chance - rows)[:, None], (draws, len(pattern)))
    return RoleScore(_commonest(most - rows), null)


def _commonest(offset: Int[np.ndarray, "one row"]) -> Float[np.ndarray, " one"]:
    """Return the share of the most common offset."""
    return np.array([np.unique(row, return_counts=True)[1].max() for row in offset]) / offset.shape[1]


def near_uniform(
    pattern: Patterns, context: AttentionContext, draws: int, rng: np.random.Generator
) -> RoleScore | None:
    """Score the entropy of attention over that of the uniform pattern. The null distribution draws rows from a flat
    Dirichlet, whose entropy is 0.42 nats below the uniform one."""
    rows = context.rows & (context.allowed.sum(axis=1) > 3)
    if not rows.any():
        return None
    allowed = context.allowed[rows]
    drawn = [np.where(allowed, rng.standard_exponential(allowed.shape), 0) for _ in range(draws)]
    null = np.stack([_evenness(each[None] / each.sum(axis=1, keepdims=True), allowed) for each in drawn])
    return RoleScore(_evenness(pattern[:, rows], allowed), np.broadcast_to(null, (draws, len(pattern))))


def _evenness(pattern: Patterns, allowed: Mask) -> Float[np.ndarray, " head"]:
    weight = np.asarray(pattern, dtype=np.float64)
    entropy = -(weight * np.log(np.where(weight > 0, weight, 1))).sum(axis=-1)
    return (entropy / np.log(allowed.sum(axis=1))).mean(axis=-1)


def alignment(pattern: Patterns, context: AttentionContext, draws: int, rng: np.random.Generator) -> RoleScore | None:
    """Score the correlation of a query's position with the centre of its attention on the source. The null distribution
    permutes the rows."""
    rows = np.flatnonzero(context.rows)
    if len(rows) < 3:
        return None
    centre = pattern[:, rows].astype(np.float64) @ np.arange(pattern.shape[-1])
    centre -= centre.mean(axis=1, keepdims=True)
    spread = centre.std(axis=1, keepdims=True)
    unit = np.where(spread > 1e-6, centre / np.maximum(spread, 1e-6), 0) / len(rows)
    place = (rows - rows.mean()) / rows.std()
    shuffled = np.stack([rng.permutation(place) for _ in range(draws)])
    return RoleScore(unit @ place, shuffled @ unit.T)


#: Every role that patterns show, in the order of `harness.roles.catalogue.ROLES`.
MEASURES = {
    "previous_token": Measure(_by_place(masks.previous_token)),
    "next_token": Measure(_by_place(masks.next_token)),
    "same_token": Measure(_by_place(masks.same_token)),
    "first_token": Measure(_by_place(masks.first_token), where=("self", "cross")),
    "special_token": Measure(_by_token(masks.special_token), where=("self", "cross")),
    "diagonal": Measure(_by_place(masks.diagonal), finer=("previous_token", "next_token", "same_token")),
    "positional": Measure(positional, least=0.9, finer=("previous_token", "next_token", "same_token")),
    "near_uniform": Measure(near_uniform, where=("self", "cross")),
    "rare_word": Measure(_by_token(masks.rare_word), where=("self", "cross")),
    "induction": Measure(_by_token(masks.induction), on="repeats"),
    "duplicate_token": Measure(_by_token(masks.duplicate_token), on="repeats"),
    "alignment": Measure(alignment, where=("cross",)),
}
