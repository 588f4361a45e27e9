"""Find the token of an answer by tokenizing prompt and answer together.

An answer alone may be another token than after the text: "The capital of France is" continues with " Paris", not with
"Paris". Where the two differ, the error names the string to use; no other token is scored silently.
"""

from collections.abc import Sequence

import regex

from harness.config import RequestError, quoted
from harness.models.tokens import Tokens

#: Where (at the zero byte) a space is missing between two words, in scripts that have them, or is there twice.
_MISJOINED = regex.compile(r"[\p{Latin}\p{Greek}\p{Cyrillic}][:,;?!]?\0[\p{Latin}\p{Greek}\p{Cyrillic}]| \0 ")


def following(tokens: Tokens, text: str, answer: str, key: str) -> int:
    """Return the only token that `answer` adds to the end of `text`.

    Raises `RequestError` with `key` where it is more than one, and, with the strings to use, where it runs into the
    word before it or takes the text's last space into its token.
    """
    added, bare, spaced = _added(tokens, text, answer), text.rstrip(" "), f" {answer.strip(' ')}"
    misjoined = bool(_MISJOINED.search(f"{text[-2:]}\0{answer}"))
    if len(added) == 1 and not misjoined:
        return added[0]
    if answer.strip() and (misjoined or not added) and len(_added(tokens, bare, spaced)) == 1:
        raise _other_string(key, text, bare, answer, spaced)
    if len(added) == 1:
        return added[0]
    raise tokens.not_single(answer, key, added or tokens.bare(answer))


def _added(tokens: Tokens, text: str, answer: str) -> Sequence[int]:
    """Return the tokens that the answer adds to the text's; none where the text's tokens change."""
    before, whole = (without_end(tokens, each) for each in (text, text + answer))
    return whole[len(before) :] if whole[: len(before)] == before else ()


def without_end(tokens: Tokens, text: str) -> Sequence[int]:
    """Return the text's tokens without a special one that the tokenizer appends."""
    encoded = tokens.encode(text)
    end = len(encoded.token_id)
    while end and encoded.special[end - 1] and encoded.span[end - 1] is None:
        end -= 1
    return encoded.token_id[:end]


def filling(tokens: Tokens, texts: Sequence[str], answer: str, key: str) -> int:
    """Return the only token that `answer` becomes in place of the mask token in one of the `texts`, all other tokens
    being unchanged. Raises `RequestError` as `following` does."""
    bare = answer.strip(" ")
    alone = tokens.bare(bare)
    if len(alone) == 1 and alone == tokens.bare(f" {bare}"):  # the tokenizer ignores spaces (WordPiece)
        return alone[0]
    mask = tokens.string(tokens.mask_id)
    left = next(text for text in texts if mask in text).partition(mask)[0]
    # RoBERTa's mask token absorbs the space before it.
    token = _in_place(tokens, texts, mask, bare if left.endswith(" ") else answer)
    misjoined = bool(_MISJOINED.search(f"{left[-2:]}\0{answer}"))
    if token is not None and (left.endswith(" ") or not misjoined):
        return token
    tight = [text.replace(f" {mask}", mask) for text in texts]
    if bare and (misjoined or left.endswith(" ")) and _in_place(tokens, tight, mask, f" {bare}") is not None:
        raise _other_string(key, left + mask, left.rstrip(" ") + mask, answer, f" {bare}")
    if token is not None:
        return token
    raise tokens.not_single(answer, key, alone)


def _in_place(tokens: Tokens, texts: Sequence[str], mask: str, answer: str) -> int | None:
    """Return the token in the mask token's place, if no other token changes."""
    masked, filled = (tokens.encode(*(text.replace(mask, put) for text in texts)).token_id for put in (mask, answer))
    at = masked.index(tokens.mask_id)
    same = len(masked) == len(filled) and masked[:at] == filled[:at] and masked[at + 1 :] == filled[at + 1 :]
    return filled[at] if same else None


def _other_string(key: str, text: str, ending: str, answer: str, spaced: str) -> RequestError:
    """Return the error for an answer that must be written as another string, after a text with this `ending`."""
    place, end = quoted(text[-14:]), quoted(ending[-14:])
    write = f"write {spaced!r}, with its leading space"
    if text != ending:
        write = f"let the text end with {end}, without the space, and {write}"
    return RequestError(key, repr(answer), f"at {place} the tokenizer does not read this as a word of its own: {write}")
