"""Scores and effects of tokens brought to words, before methods and causes are compared.

A word has as much as its pieces: a sum keeps the total. It counts if all of its pieces that could be drawn on do.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

if TYPE_CHECKING:
    from harness.attribution.example import Example

#: The nodes of each word.
Words = Sequence[Sequence[int]]


def nodes_of(word: Int[np.ndarray, " own"], source_word: Int[np.ndarray, " source"] | None = None) -> Words:
    """The nodes of each word, the source's words first; −1 is padding."""
    source = np.empty(0, dtype=int) if source_word is None else source_word
    sides = ((source, 0), (word, len(source)))
    return [
        (np.flatnonzero(side == number) + before).tolist()
        for side, before in sides
        for number in range(int(side.max(initial=-1)) + 1)
    ]


def words_of(example: "Example") -> Words:
    """The words of a question's prompt and of its source."""
    prompt = example.prompt
    return nodes_of(prompt.word[0], None if prompt.source is None else prompt.source.word[0])


def summed(values: Float[np.ndarray, "*batch node"], words: Words) -> Float[np.ndarray, "*batch word"]:
    """Each word's sum over the pieces that have a value; NaN where none has."""
    parts = [values[..., list(nodes)] for nodes in words]
    return np.stack([np.where(np.isnan(p).all(-1), np.nan, np.nansum(p, -1)) for p in parts], axis=-1)


def counting(
    counts: Bool[np.ndarray, "*batch node"], seen: Bool[np.ndarray, "*batch node"], words: Words
) -> Bool[np.ndarray, "*batch word"]:
    """Which words count: those all of whose pieces that are seen do."""
    parts = [(counts[..., list(nodes)], seen[..., list(nodes)]) for nodes in words]
    return np.stack([(each | ~there).all(-1) & there.any(-1) for each, there in parts], axis=-1)


def by_word(
    data: xr.Dataset, arrays: Sequence[np.ndarray], counts: np.ndarray
) -> tuple[list[np.ndarray], Bool[np.ndarray, "prompt policy target word"]]:
    """Scores and effects [prompt, kind, target, node] of a run's tokens, and which count, by word; padded with NaN and
    false."""
    source = data["source_word"].values if "source_word" in data else [None] * len(counts)
    words = [nodes_of(*pair) for pair in zip(data["word"].values, source, strict=True)]
    longest = max(map(len, words))
    made = [_padded([summed(*pair) for pair in zip(each, words, strict=True)], longest, np.nan) for each in arrays]
    seen = np.isfinite(arrays[0][:, :1])
    held = [counting(*each) for each in zip(counts, np.broadcast_to(seen, counts.shape), words, strict=True)]
    return made, _padded(held, longest, False)


def _padded(rows: Sequence[np.ndarray], longest: int, filler: float | bool) -> np.ndarray:
    widths = [[(0, 0)] * (row.ndim - 1) + [(0, longest - row.shape[-1])] for row in rows]
    return np.stack([np.pad(row, width, constant_values=filler) for row, width in zip(rows, widths, strict=True)])
