"""Sum scores and effects of tokens to words, before methods and causes are compared.

A sum keeps the total. A word counts if all of its visible pieces do.
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
    """Return the nodes of each word, the source's words first; −1 is padding."""
    source = np.empty(0, dtype=int) if source_word is None else source_word
    sides = ((source, 0), (word, len(source)))
    return [
        (np.flatnonzero(side == number) + before).tolist()
        for side, before in sides
        for number in range(int(side.max(initial=-1)) + 1)
    ]


def words_of(example: "Example") -> Words:
    """Return the words of an example's prompt and of its source."""
    prompt = example.prompt
    return nodes_of(prompt.word[0], None if prompt.source is None else prompt.source.word[0])


def sum_by_word(values: Float[np.ndarray, "*batch node"], words: Words) -> Float[np.ndarray, "*batch word"]:
    """Sum each word's pieces that have a value; NaN where none has."""
    parts = [values[..., list(nodes)] for nodes in words]
    return np.stack([np.where(np.isnan(p).all(-1), np.nan, np.nansum(p, -1)) for p in parts], axis=-1)


def count_words(
    counts: Bool[np.ndarray, "*batch node"], visible: Bool[np.ndarray, "*batch node"], words: Words
) -> Bool[np.ndarray, "*batch word"]:
    """Return which words count: those whose visible pieces all do."""
    parts = [(counts[..., list(nodes)], visible[..., list(nodes)]) for nodes in words]
    return np.stack([(each | ~there).all(-1) & there.any(-1) for each, there in parts], axis=-1)


def by_word(
    data: xr.Dataset, arrays: Sequence[np.ndarray], counts: np.ndarray
) -> tuple[list[np.ndarray], Bool[np.ndarray, "prompt policy target word"]]:
    """Sum scores and effects [prompt, kind, target, node] by word, with the words that count; padded, NaN and false."""
    source = data["source_word"].values if "source_word" in data else [None] * len(counts)
    words = [nodes_of(*pair) for pair in zip(data["word"].values, source, strict=True)]
    longest = max(map(len, words))
    made = [_padded([sum_by_word(*pair) for pair in zip(each, words, strict=True)], longest, np.nan) for each in arrays]
    visible = np.isfinite(arrays[0][:, :1])
    held = [count_words(*each) for each in zip(counts, np.broadcast_to(visible, counts.shape), words, strict=True)]
    return made, _padded(held, longest, False)


def _padded(rows: Sequence[np.ndarray], longest: int, filler: float | bool) -> np.ndarray:
    widths = [[(0, 0)] * (row.ndim - 1) + [(0, longest - row.shape[-1])] for row in rows]
    return np.stack([np.pad(row, width, constant_values=filler) for row, width in zip(rows, widths, strict=True)])
