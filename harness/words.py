"""Tokens to words: what a reader sees as one word, and patterns merged along it."""

from collections.abc import Iterator, Sequence
from importlib.resources import files

import numpy as np
import yaml
from jaxtyping import Float, Int

from harness.config import RequestError


def split(
    texts: Sequence[str], span: Sequence[tuple[int, int] | None], token: Sequence[str], segment: Sequence[int]
) -> tuple[int, ...]:
    """The word that each token belongs to, counted from 0.

    A word begins where white space lies before or at the start of a token (but not within the bytes of a character
    that several tokens spell); a special token (span ``None``) is a word of its own. Without spans (random tokens, or
    a tokenizer without offsets) the tokens' own leading space decides.
    `segment` says which of the texts (one, or a pair) a token's span lies in.
    """
    words: list[int] = []
    joined, end = False, 0  # whether the token before can be continued, and where it ends
    for index, where in enumerate(span):
        text = texts[min(segment[index], len(texts) - 1)]
        if where is None:
            special = text != ""
            starts = special or not joined or not token[index] or token[index][0].isspace()
            joined = not special
        else:
            first = text[where[0] : where[0] + 1]
            apart = first.isspace() or text[max(where[0] - 1, 0) : where[0]].isspace()
            starts = not joined or (where[0] >= end and apart)
            joined, end = True, where[1]
        words.append((words[-1] if words else -1) + bool(starts))
    return tuple(words)


def merge_pattern(
    pattern: Float[np.ndarray, "*batch query key"], word: Int[np.ndarray, " position"]
) -> Float[np.ndarray, "*batch word_query word_key"]:
    """A pattern by word: summed over the keys of a word, averaged over its queries, so that rows still sum to 1.

    `word` gives each position's word, counted from 0 without gaps; positions with −1 (padding) are left out.
    """
    if word.shape[-1] != pattern.shape[-1] or word.shape[-1] != pattern.shape[-2]:
        raise RequestError("word", word.shape, f"there must be one word for each position of {pattern.shape}")
    n_words = int(word.max(initial=-1)) + 1
    member = (word[None, :] == np.arange(n_words)[:, None]).astype(pattern.dtype)
    average = member / member.sum(axis=1, keepdims=True)
    return average @ pattern @ member.T


def ioi_data() -> dict[str, list[str]]:
    """The names and templates of the IOI prompts."""
    return yaml.safe_load(files("harness").joinpath("data/ioi.yaml").read_text(encoding="utf-8"))


def builtin_words() -> Iterator[str]:
    """The words of the built-in IOI prompts as byte-level BPE writes them, a leading space being ``Ġ``."""
    data = ioi_data()
    text = " ".join([*data["names"], *data["templates"]]).replace("{", " {").replace("}", "} ")
    plain = {word.strip(",") for word in text.split() if not word.startswith("{")}
    yield from (f"Ġ{word}" for word in sorted(plain))
