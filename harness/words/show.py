"""Labels of tokens that show whole characters, also where several tokens spell one."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from harness.words.align import CLUSTER, align

#: One value for each position of a prompt.
Row = Sequence[Any] | np.ndarray

UNREADABLE = "\ufffd"
#: What tokenizers write for characters that they have no token for.
UNKNOWN = frozenset({"[UNK]", "<unk>", "<UNK>", "<|unk|>"})


def labels(token: Row, word: Row, word_text: Row) -> list[str]:
    """Return the axis label of each token.

    A token that reads as text is its own label. Tokens that spell a character together (an emoji of four bytes) are
    labelled with the character and their number: ``🚀 1/4``. An unknown token is labelled with its characters:
    ``犬 [UNK]``. `word_text` has a word's text at its first token, ``""`` at the others.
    """
    made: list[str] = []
    for _, run in groupby(range(len(token)), key=lambda at: word[at]):
        places = list(run)
        tokens = [str(token[at]) for at in places]
        text = str(word_text[places[0]])
        made += _spelled(tokens, text) if any(_hides(each, text) for each in tokens) else tokens
    return made


def _hides(token: str, text: str) -> bool:
    """Whether a token does not show the characters of the text that it stands for."""
    return UNREADABLE in token or (token.strip() in UNKNOWN and bool(text.strip()) and token.strip() not in text)


def _spelled(tokens: Sequence[str], text: str) -> Iterator[str]:
    """Yield the labels of one word's tokens, some of which are parts of characters or unknown."""
    runs = [(known, list(run)) for known, run in groupby(tokens, key=lambda each: not _hides(each, text))]
    spans = align(text, ["".join(run) if known else None for known, run in runs])
    for (known, run), span in zip(runs, spans or [(0, len(text))] * len(runs), strict=True):
        spelled = text[slice(*span)].strip() or text[slice(*span)] or UNREADABLE
        if known:
            yield from run
        elif any(UNREADABLE in each for each in run):
            yield from _parts(spelled, len(run))
        else:
            yield from (f"{spelled} {each.strip()}" for each in run)


def _parts(spelled: str, n: int) -> list[str]:
    """Return the labels of `n` tokens that spell this; tokens of one byte each are numbered within their character."""
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
    """Join the word texts of a prompt; the two texts of a pair follow each other."""
    return "".join(map(str, word_text))


def common_start(first: str, second: str) -> int:
    """Return how many characters two texts have in common before they differ.

    >>> common_start("gave a book", "gave a flower")
    7
    """
    differ = (at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    return next(differ, min(len(first), len(second)))
