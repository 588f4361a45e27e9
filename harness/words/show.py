"""Tokens as labels: every character whole, also where several tokens spell one."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from harness.words.align import CLUSTER, align

#: One value for each position of a prompt.
Row = Sequence[Any] | np.ndarray

UNREADABLE = "\ufffd"


def labels(token: Row, word: Row, word_text: Row) -> list[str]:
    """What to write on each token's place on an axis.

    A token that reads as text is its own label. Tokens that only together spell a character, an emoji of four bytes,
    each read as U+FFFD; they are labelled with what they spell together and their number among them: ``🚀 1/4``.
    `word_text` is what a run keeps: a word's text at its first token, ``""`` at the others.
    """
    made: list[str] = []
    for _, run in groupby(range(len(token)), key=lambda at: word[at]):
        places = list(run)
        tokens = [str(token[at]) for at in places]
        broken = any(UNREADABLE in each for each in tokens)
        made += _spelled(tokens, str(word_text[places[0]])) if broken else tokens
    return made


def _spelled(tokens: Sequence[str], text: str) -> Iterator[str]:
    """The labels of one word's tokens, some of which are parts of characters."""
    runs = [(known, list(run)) for known, run in groupby(tokens, key=lambda each: UNREADABLE not in each)]
    spans = align(text, ["".join(run) if known else None for known, run in runs])
    for (known, run), span in zip(runs, spans or [(0, len(text))] * len(runs), strict=True):
        spelled = text[slice(*span)]
        yield from run if known else _parts(spelled.strip() or spelled or UNREADABLE, len(run))


def _parts(spelled: str, n: int) -> list[str]:
    """The labels of `n` tokens that spell this; where each is one byte, that says which character each belongs to."""
    characters = CLUSTER.findall(spelled)
    sizes = [len(character.encode("utf-8", "surrogatepass")) for character in characters]
    if sum(sizes) != n:
        characters, sizes = [spelled], [n]
    return [
        character if size == 1 else f"{character} {at}/{size}"
        for character, size in zip(characters, sizes, strict=True)
        for at in range(1, size + 1)
    ]


def joined(word_text: Row) -> str:
    """The text of a prompt from what a run keeps of it; the two texts of a pair follow each other."""
    return "".join(map(str, word_text))
