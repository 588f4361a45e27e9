"""Syntactic relations of a prompt's words, as a file gives them: ``nsubj(barked, dog); det(dog, the#2)``."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from harness.config import RequestError, near
from harness.words import Words

_WRITTEN = re.compile(r"\s*([^\s(),;]+)\(\s*([^(),;]+?)\s*,\s*([^(),;]+?)\s*\)\s*")


class Relation(NamedTuple):
    """One relation: what it is called, and the numbers of its two words (`harness.words.Words.index`)."""

    name: str
    head: int
    dependent: int


def relations(text: str, words: Words, special: Sequence[bool]) -> tuple[Relation, ...]:
    """The relations that a text names between a prompt's words, ``name(head, dependent)`` with ``;`` between them;
    ``the#2`` is the second "the". Raises `RequestError` for what is written otherwise, and words that are not there.
    """
    return tuple(
        Relation(name, *(_word(each, words, special) for each in (head, dependent)))
        for name, head, dependent in written(text)
    )


def written(text: str) -> list[tuple[str, str, str]]:
    """Each relation that a text names, as it is written: name, head, dependent."""
    found = []
    for part in filter(str.strip, text.split(";")):
        match = _WRITTEN.fullmatch(part)
        if match is None:
            remedy = "a relation is written name(head, dependent), such as nsubj(barked, dog), with ; between two"
            raise RequestError("prompts.relations", part.strip(), remedy)
        name, head, dependent = match.groups()
        found.append((name, head, dependent))
    return found


def _word(written: str, words: Words, special: Sequence[bool]) -> int:
    """The number of a word, ``#2`` after it meaning its second occurrence."""
    text, mark, nth = written.rpartition("#")
    text, nth = (text, int(nth)) if mark and nth.isdigit() and text else (written, 1)
    there = [
        (each.strip(), number)
        for each, number, mark in zip(words.text, words.index, special, strict=True)
        if each.strip() and not mark
    ]
    places = [number for each, number in there if each == text]
    if not 1 <= nth <= len(places):
        raise RequestError(
            "prompts.relations", written, f"the text has no such word; {near(text, [t for t, _ in there])}"
        )
    return places[nth - 1]
