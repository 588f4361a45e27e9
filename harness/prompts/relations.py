"""Parse syntactic relations between a prompt's words: ``nsubj(barked, dog); det(dog, the#2)``."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from harness.config import RequestError, near
from harness.words import Words

_WRITTEN = re.compile(r"\s*([^\s(),;]+)\(\s*([^(),;]+?)\s*,\s*([^(),;]+?)\s*\)\s*")


class Relation(NamedTuple):
    """A relation: its name, and the numbers of its two words (`harness.words.Words.index`)."""

    name: str
    head: int
    dependent: int


def relations(text: str, words: Words, special: Sequence[bool]) -> tuple[Relation, ...]:
    """Parse relations between a prompt's words, ``name(head, dependent)`` with ``;`` between them; ``the#2`` is the
    second "the". Raises `RequestError` for bad syntax and for words that the prompt lacks."""
    return tuple(
        Relation(name, *(_word(each, words, special) for each in (head, dependent)))
        for name, head, dependent in parse_triples(text)
    )


def parse_triples(text: str) -> list[tuple[str, str, str]]:
    """Parse relations to their written names, heads and dependents. Raises `RequestError` for bad syntax."""
    triples = []
    for part in filter(str.strip, text.split(";")):
        match = _WRITTEN.fullmatch(part)
        if match is None:
            remedy = "a relation is written name(head, dependent), such as nsubj(barked, dog), with ; between two"
            raise RequestError("prompts.relations", part.strip(), remedy)
        name, head, dependent = match.groups()
        triples.append((name, head, dependent))
    return triples


def _word(written: str, words: Words, special: Sequence[bool]) -> int:
    """Return the number of a word; ``#2`` after it means its second occurrence."""
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
