"""Masks of the roles that are a share of attention: the keys that count for each query, by position or by token.

A mask [query, key] marks the keys of a role. The score is the attention on them, averaged over the queries that have
such a key and an allowed one that is none; without such queries a text gives no score.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from harness.roles.attention_context import AttentionContext, Mask

BAND = 2  # tokens on either side of a diagonal head's band

Maker = Callable[[AttentionContext], Mask]

# --- by place ---------------------------------------------------------------------------------------------------


def previous_token(context: AttentionContext) -> Mask:
    return context.offset == -1


def next_token(context: AttentionContext) -> Mask:
    return context.offset == 1


def same_token(context: AttentionContext) -> Mask:
    """Mark the query's own position (Clark et al. 2019, arXiv:1906.04341, call it the current token)."""
    return context.offset == 0


def first_token(context: AttentionContext) -> Mask:
    """Mark the first key: the attention sink of decoders (Xiao et al. 2023, arXiv:2309.17453), [CLS] in BERT."""
    return np.broadcast_to(np.arange(context.allowed.shape[1]) == 0, context.allowed.shape)


def diagonal(context: AttentionContext) -> Mask:
    """Mark a band around the query (Kovaleva et al. 2019, arXiv:1908.08593)."""
    return np.abs(context.offset) <= BAND


# --- by token ---------------------------------------------------------------------------------------------------


def special_token(context: AttentionContext) -> Mask:
    """Mark special tokens (Clark et al. 2019, §3.2); none if only the first token is one (then see `first_token`)."""
    if not context.special[1:].any():
        return np.zeros(context.allowed.shape, bool)
    return np.broadcast_to(context.special, context.allowed.shape)


def rare_word(context: AttentionContext) -> Mask:
    """Mark the rarest allowed ordinary token (Voita et al. 2019, arXiv:1905.09418): the one with the largest id, since
    tokenizers number frequent tokens first."""
    known = np.where(context.allowed & ~context.special, context.token_id, -1)
    return (known == known.max(axis=1, keepdims=True)) & (known >= 0)


def duplicate_token(context: AttentionContext) -> Mask:
    """Mark other positions of the query's own token (Wang et al. 2022, arXiv:2211.00593, §3.2)."""
    return _same(context) & (context.offset != 0)


def induction(context: AttentionContext) -> Mask:
    """Mark the token after another position of the query's own token (Olsson et al. 2022, arXiv:2209.11895)."""
    after = np.zeros(context.allowed.shape, bool)
    after[:, 1:] = duplicate_token(context)[:, :-1]
    return after


def _same(context: AttentionContext) -> Mask:
    return (context.token_id[:, None] == context.token_id[None, :]) & ~context.special


# --- scores -----------------------------------------------------------------------------------------------------


def counted(mask: Mask, context: AttentionContext) -> tuple[Mask, Bool[np.ndarray, " query"]]:
    """Return the allowed part of a mask, and the rows in which it has some of the allowed keys, but not all."""
    inside = mask & context.allowed
    n, of = inside.sum(axis=1), context.allowed.sum(axis=1)
    return inside, context.rows & (n > 0) & (n < of)


def weights(mask: Mask, context: AttentionContext) -> Float[np.ndarray, "query key"] | None:
    """Return the weights by which attention is multiplied to give the score; `None` where no row counts."""
    inside, rows = counted(mask, context)
    return (inside & rows[:, None]).astype(np.float32) / rows.sum() if rows.any() else None


def share(
    pattern: Float[np.ndarray, "head query key"], mask: Mask, context: AttentionContext
) -> Float[np.ndarray, " head"]:
    """Return the mean attention of the counted rows on the mask's keys, 0 to 1; NaN where no row counts."""
    factor = weights(mask, context)
    if factor is None:
        return np.full(len(pattern), np.nan)
    return pattern.reshape(len(pattern), -1) @ factor.ravel()


def by_chance(
    mask: Mask, context: AttentionContext, draws: int, rng: np.random.Generator
) -> Float[np.ndarray, "draw query key"]:
    """Weights of masks whose keys are moved on by a random number of places in each row, among the keys that it may
    look at and around their end: the score of uniform attention, on average."""
    inside, rows = counted(mask, context)
    n = np.maximum(context.allowed.sum(axis=1), 1)
    moved = rng.integers(n, size=(draws, len(n)))
    # Where a window slides, the allowed keys do not start at the first: count from the first that is allowed.
    first = context.allowed.argmax(axis=1)[:, None]
    came_from = first + (np.arange(mask.shape[1]) - first - moved[..., None]) % n[:, None]
    there = np.take_along_axis(np.broadcast_to(inside, came_from.shape), came_from, axis=2)
    return (there & context.allowed & rows[:, None]).astype(np.float32) / rows.sum()
