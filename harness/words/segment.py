"""Segment a text: word boundaries at white space and punctuation; in scripts without spaces by a segmenter, or at
every character.

No word begins inside a grapheme cluster (a base with its marks, an emoji with its joiners and skin tone).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from itertools import pairwise

import regex

from harness.words.align import CLUSTER, align

SPACES = "white space and punctuation"
CHARACTERS = "characters (no segmenter for this script)"
NO_MECAB = "characters (MeCab is not installed: pip install fugashi unidic-lite)"

_UNSPACED = regex.compile(r"(?V1)[[\p{scx=Hani}\p{scx=Hira}\p{scx=Kana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]--\p{P}]")
_KANA = regex.compile(r"[\p{Hiragana}\p{Katakana}]")
_PUNCTUATION = regex.compile(r"\p{P}")
_BREAKS = frozenset("\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029")
_ZERO_WIDTH_SPACE = "\u200b"


@dataclass(frozen=True)
class Segmenter:
    """A function that cuts a text without spaces into (possibly normalised) words, and its name."""

    name: str
    cut: Callable[[str], Sequence[str]]


@cache
def mecab() -> Segmenter | None:
    """Return MeCab with the UniDic that the extra ``ja`` installs; ``None`` without it."""
    try:
        import unidic_lite
        from fugashi import GenericTagger  # pyright: ignore[reportAttributeAccessIssue]
    except ModuleNotFoundError:
        return None
    tagger = GenericTagger(f'-d "{unidic_lite.DICDIR}" -r "{unidic_lite.DICDIR}/mecabrc"')
    name = f"MeCab (unidic-lite {version('unidic-lite')})"
    return Segmenter(name, lambda text: [word.surface for word in tagger(text)])


@dataclass(frozen=True)
class Starts:
    """Offsets at which words could begin (0 first), and the names of the methods that set them."""

    at: tuple[int, ...]
    ways: tuple[str, ...]


def starts(text: str, segmenter: Segmenter | None = None) -> Starts:
    """Return where words could begin in the text.

    White space parts words, and so does punctuation at the edge of one (``well-known`` is a word, ``dog.`` is two);
    every white-space character stands alone here, for `split` to join with what follows. Words of scripts without
    spaces begin where `segmenter` cuts; without one, Japanese is cut by MeCab where it is installed, and everything
    else, Chinese too, at every character.
    """
    begins = [match.start() for match in CLUSTER.finditer(text)]
    kinds = re.sub("w[wp]*w", lambda run: "w" * len(run[0]), "".join(_kind(text[at]) for at in begins))
    cuts, way = _cuts(text, segmenter) if "u" in kinds else (None, SPACES)
    inner = (at for at, pair in zip(begins[1:], pairwise(kinds), strict=False) if _apart("".join(pair), at, cuts))
    return Starts((0, *inner), (SPACES,) if way == SPACES else (SPACES, way))


def is_break(letter: str) -> bool:
    """Whether a character ends a line."""
    return letter in _BREAKS


def is_space(text: str) -> bool:
    """Whether the text is nothing but white space within a line."""
    return all((letter.isspace() and letter not in _BREAKS) or letter == _ZERO_WIDTH_SPACE for letter in text)


def is_unspaced(letter: str) -> bool:
    """Whether a character is of a script that puts no spaces between words."""
    return bool(_UNSPACED.match(letter))


def _kind(letter: str) -> str:
    """n: line break, s: other white space, u: of a script without spaces, p: punctuation, w: anything else."""
    if is_break(letter):
        return "n"
    if is_space(letter):
        return "s"
    if is_unspaced(letter):
        return "u"
    return "p" if _PUNCTUATION.match(letter) else "w"


def _cuts(text: str, segmenter: Segmenter | None) -> tuple[frozenset[int] | None, str]:
    """Return a segmenter's cuts (``None`` without a segmenter for this text) and the method's name."""
    japanese = bool(_KANA.search(text))
    segmenter = segmenter or (mecab() if japanese else None)
    if segmenter is None:
        return None, NO_MECAB if japanese else CHARACTERS
    spans = align(text, segmenter.cut(text))
    return (None, CHARACTERS) if spans is None else (frozenset(start for start, _ in spans), segmenter.name)


def _apart(kinds: str, at: int, cuts: frozenset[int] | None) -> bool:
    """Whether a word could begin between two characters of these kinds."""
    if "s" in kinds or ("n" in kinds and kinds != "nn"):
        return True
    if "u" in kinds:
        return cuts is None or "p" in kinds or at in cuts
    if kinds == "pp":
        return cuts is not None and at in cuts
    return kinds in ("pw", "wp")
