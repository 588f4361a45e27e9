"""Merge arrays over positions by word, and drop special tokens."""

import numpy as np
from jaxtyping import Bool, Float, Int

from harness.config import RequestError

HOW = ("sum", "mean", "max")


def merge_pattern(
    pattern: Float[np.ndarray, "*batch query key"],
    word: Int[np.ndarray, " query_position"],
    key_word: Int[np.ndarray, " key_position"] | None = None,
) -> Float[np.ndarray, "*batch word_query word_key"]:
    """Merge a pattern by word: sum over the keys of a word, mean over its queries, so that rows still sum to 1.

    `word` gives each position's word, counted from 0 without gaps; positions with −1 (padding) are left out. In cross
    attention the keys are another text's, and `key_word` gives their words. Raises `RequestError` where there is not
    one word for each position. Source: Clark et al. 2019, arXiv:1906.04341, section 4.1.

    >>> import numpy as np
    >>> import harness
    >>> pattern = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.25, 0.25, 0.5]])
    >>> harness.words.merge_pattern(pattern, np.array([0, 0, 1]))      # the first two tokens are one word
    array([[1. , 0. ],
           [0.5, 0.5]])
    """
    keys = word if key_word is None else key_word
    if (len(word), len(keys)) != pattern.shape[-2:]:
        raise RequestError("word", word.shape, f"there must be one word for each position of {pattern.shape}")
    queries = _members(word, pattern.dtype)
    return queries / queries.sum(axis=1, keepdims=True) @ pattern @ _members(keys, pattern.dtype).T


def merge_scores(
    scores: Float[np.ndarray, "*batch position"], word: Int[np.ndarray, " same_position"], how: str = "sum"
) -> Float[np.ndarray, "*batch word"]:
    """Merge scores [..., position] by word: the ``sum``, ``mean`` or ``max`` over its tokens, in the scores' unit.

    A sum keeps the total of an attention row or a gradient's norm; a mean does not favour long words. Positions with
    word −1 are left out. Raises `RequestError` where there is not one word for each position, and for another `how`.

    >>> import numpy as np
    >>> import harness
    >>> harness.words.merge_scores(np.array([1.0, 3.0, 5.0]), np.array([0, 0, 1]), how="mean")
    array([2., 5.])
    """
    if len(word) != scores.shape[-1]:
        raise RequestError("word", word.shape, f"there must be one word for each position of {scores.shape}")
    if how not in HOW:
        raise RequestError("how", how, "choose sum, mean or max")
    member = _members(word, scores.dtype)
    if how == "max":
        return np.where(member > 0, scores[..., None, :], -np.inf).max(axis=-1)
    return scores @ (member if how == "sum" else member / member.sum(axis=1, keepdims=True)).T


def _members(word: Int[np.ndarray, " position"], dtype: np.dtype) -> Float[np.ndarray, "word position"]:
    """Return the membership matrix: 1 where a position belongs to a word."""
    return (word[None, :] == np.arange(int(word.max(initial=-1)) + 1)[:, None]).astype(dtype)


def without(
    pattern: Float[np.ndarray, "*batch query key"],
    left_out: Bool[np.ndarray, " query"],
    key_left_out: Bool[np.ndarray, " key"] | None = None,
) -> Float[np.ndarray, "*batch kept_query kept_key"]:
    """Drop positions (the special tokens) from a pattern and renormalise its rows to sum to 1.

    The model did not attend so: show `share_on` beside it. A row with all its attention on dropped keys is zero.
    """
    keep, keep_keys = ~left_out, ~(left_out if key_left_out is None else key_left_out)
    kept = pattern[..., keep, :][..., keep_keys]
    total = kept.sum(axis=-1, keepdims=True)
    return kept / np.where(total == 0, 1, total)


def share_on(
    pattern: Float[np.ndarray, "*batch query key"],
    left_out: Bool[np.ndarray, " query"],
    key_left_out: Bool[np.ndarray, " key"] | None = None,
) -> float:
    """Return the mean share, 0 to 1, of the other positions' attention that is on those left out."""
    keys = left_out if key_left_out is None else key_left_out
    rows = pattern[..., ~left_out, :]
    return float(rows[..., keys].sum(axis=-1).mean()) if rows.size else 0.0
