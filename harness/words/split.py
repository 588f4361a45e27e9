"""Split tokens into words, each with its text.

A token is never split: words begin where a word could begin and no token crosses.
"""

from bisect import bisect_right
from collections.abc import Sequence, Set
from dataclasses import dataclass
from itertools import accumulate, pairwise

from harness.words.align import Span
from harness.words.segment import Segmenter, is_break, is_space, starts

Key = tuple[int, int]  # a text's number (-1: none) and a piece of it

TOKENS = "the tokens' own marks, a leading space or ##"


@dataclass(frozen=True)
class Words:
    """The words of a prompt's tokens.

    `index` is each token's word, counted from 0. `text` has, at each word's first token, the word as it stands in the
    text with the white space before it; ``""`` at its other tokens, and for a special token that was added. Joined, it
    is the text. `ways` names the segmentation methods used.
    """

    index: tuple[int, ...]
    text: tuple[str, ...]
    ways: tuple[str, ...]


@dataclass(frozen=True)
class TokenSpan:
    """A token with its place in its text: `span` is ``None`` if it stands in none or its place is unknown."""

    token: str
    special: bool
    span: Span | None
    sentence: int


def split(
    texts: Sequence[str],
    token: Sequence[str],
    special: Sequence[bool],
    span: Sequence[Span | None],
    sentence: Sequence[int],
    segmenter: Segmenter | None = None,
) -> Words:
    """Split tokens into words; `sentence` is the number of each token's text, and `span` its place there.

    White space before a word belongs to it; a line break is a word, and so is each special token. Where the span of an
    ordinary token is unknown (``None``), its leading space decides, or its ``##`` in a tokenizer without spaces.
    """
    placed = [TokenSpan(*each) for each in zip(token, special, span, sentence, strict=True)]
    keys, parts = _unplaced(placed)
    ways = [TOKENS] if any(not each.special for each in placed if each.span is None) else []
    for number, text in enumerate(texts):
        mine = {at: each for at, each in enumerate(placed) if each.span is not None and each.sentence == number}
        if mine:
            could = starts(text, segmenter)
            borders = _borders(text, could.at, list(mine.values()))
            pieces = {at: _piece(borders, each) for at, each in mine.items()}
            keys |= {at: (number, piece) for at, piece in pieces.items()}
            parts |= {(number, piece): part for piece, part in _parts(text, borders, set(pieces.values())).items()}
            ways += could.ways
    return _numbered([keys[at] for at in range(len(placed))], parts, ways)


def _unplaced(placed: Sequence[TokenSpan]) -> tuple[dict[int, Key], dict[Key, str]]:
    """Return the key and the text of the words of tokens without a span."""
    keys, parts, key = dict[int, Key](), dict[Key, str](), (-1, 0)
    spaced = any(each.token[:1].isspace() for each in placed if each.span is None)
    for at, each in enumerate(placed):
        if each.span is not None:
            continue
        piece = each.token.startswith("##") or (spaced and not each.token[:1].isspace())
        goes_on = piece and at - 1 in keys and not (each.special or placed[at - 1].special)
        key = key if goes_on else (-1, at)
        read = "" if each.special else each.token.removeprefix("##") or each.token
        keys[at], parts[key] = key, parts.get(key, "") + read
    return keys, parts


def _borders(text: str, could: Sequence[int], tokens: Sequence[TokenSpan]) -> list[int]:
    """Return where words begin: where one could and no token crosses, and at both ends of a special token; a space is
    part of the word after it."""
    spans = [(*each.span, each.special) for each in tokens if each.span is not None]
    edges = {edge for start, end, special in spans if special for edge in (start, end) if edge < len(text)}
    inside = {at for start, end, _ in spans for at in range(start + 1, end)}
    borders = sorted(({*could, *edges} - inside) | {0})
    special = {start for start, _, flag in spans if flag}
    apart = [end for end in borders if is_break(text[end : end + 1]) or end in special]
    joined = {end for start, end in pairwise(borders) if is_space(text[start:end])} - {*apart}
    return [at for at in borders if at not in joined]


def _piece(borders: Sequence[int], each: TokenSpan) -> int:
    """Return the number of the piece that a token begins in."""
    return bisect_right(borders, each.span[0]) - 1 if each.span else 0


def _parts(text: str, borders: Sequence[int], there: Set[int]) -> dict[int, str]:
    """Return the text of each piece with tokens; a piece without tokens joins the next one with, or the last."""
    begins = sorted(there)
    cuts = [0, *(borders[piece + 1] for piece in begins[:-1]), len(text)]
    return {piece: text[start:end] for piece, (start, end) in zip(begins, pairwise(cuts), strict=True)}


def _numbered(keys: Sequence[Key], parts: dict[Key, str], ways: Sequence[str]) -> Words:
    """Number words from 0, a new one wherever the key changes."""
    first = [at == 0 or key != keys[at - 1] for at, key in enumerate(keys)]
    index = [number - 1 for number in accumulate(map(int, first))]
    text = [parts.pop(key, "") if new else "" for key, new in zip(keys, first, strict=True)]
    return Words(tuple(index), tuple(text), tuple(dict.fromkeys(ways)))
