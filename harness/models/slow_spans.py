"""Spans of tokens for tokenizers without offsets.

The tokens' strings are aligned with the text. An unknown token has no string; where the tokenizer cuts words first
(`BertJapaneseTokenizer`: MeCab, Sudachi or Juman++), each word is tokenized on its own, which shows what every unknown
token stands for.
"""

import unicodedata
from collections.abc import Iterator
from typing import Any

import regex

from harness.words import Segmenter, Span, align


def spans(tokenizer: Any, text: str) -> list[Span | None]:
    """Return the span of each token of the text; ``None`` for all of them if they cannot be aligned."""
    pieces = tokenizer.tokenize(text)
    spelled = list(_by_words(tokenizer, text))
    if [piece for piece, _ in spelled] != pieces:
        spelled = [(piece, _bare(tokenizer, piece)) for piece in pieces]
    aligned = align(text, [surface for _, surface in spelled])
    return [None] * len(pieces) if aligned is None else [*aligned]


def segmenter(tokenizer: Any) -> Segmenter | None:
    """Return the tokenizer's own word segmenter, if it is made for a language without spaces."""
    kind = getattr(tokenizer, "word_tokenizer_type", None)
    if kind not in ("mecab", "sudachi", "jumanpp") or not tokenizer.do_word_tokenize:
        return None
    return Segmenter(f"the tokenizer's own words ({kind})", tokenizer.word_tokenizer.tokenize)


def _by_words(tokenizer: Any, text: str) -> Iterator[tuple[str, str | None]]:
    """Yield every token with the text it stands for; nothing for a tokenizer that does not cut words first."""
    words, subwords = (getattr(tokenizer, name, None) for name in ("word_tokenizer", "subword_tokenizer"))
    if words is None or subwords is None:
        return
    special = sorted(map(regex.escape, tokenizer.all_special_tokens), key=len, reverse=True)
    for part in regex.split(f"({'|'.join(special)})", text):
        if part in tokenizer.all_special_tokens:
            yield part, part
            continue
        for word in words.tokenize(part):
            yield from _pieces(tokenizer, word, subwords.tokenize(word))


def _pieces(tokenizer: Any, word: str, made: list[str]) -> Iterator[tuple[str, str | None]]:
    """Yield each piece of a word with what it stands for: all of it, a letter of it, or the piece's own text."""
    letters = unicodedata.normalize("NFKC", word)
    if len(made) == 1:
        yield made[0], word
    elif tokenizer.subword_tokenizer_type == "character" and len(made) == len(letters):
        yield from zip(made, letters, strict=True)
    else:
        yield from ((piece, _bare(tokenizer, piece)) for piece in made)


def _bare(tokenizer: Any, piece: str) -> str | None:
    """Return the text of a piece; ``None`` for the unknown token."""
    if piece == tokenizer.unk_token:
        return None
    return (piece.removeprefix("##") or piece).replace("\u2581", "")
