"""Passages of English or Japanese prose written for this project, in many registers; every predicted token is scored.

The passage is the cluster. With `prompts.length` a longer passage is cut into consecutive prompts of at most that many
tokens (special ones included), between words where possible. The first token of each is not scored, unless the model's
policy puts a special token before it.
"""

import re
from bisect import bisect_right
from importlib.resources import files
from itertools import accumulate

import numpy as np

from harness.config import ProsePrompts, RequestError
from harness.models import Model
from harness.prompts.prompt import Prompt, from_text


def make(spec: ProsePrompts, model: Model) -> list[Prompt]:
    """Make prompts of `spec.n` passages, drawn without replacement, in the order of the collection."""
    known = passages(spec.language)
    if spec.n > len(known):
        raise RequestError("prompts.n", spec.n, f"there are {len(known)} passages in this language")
    if spec.length is not None and spec.length > model.shape.n_ctx:
        raise RequestError("prompts.length", spec.length, f"{model.name} takes {model.shape.n_ctx} tokens")
    picked = sorted(np.random.default_rng(spec.seed).permutation(len(known))[: spec.n])
    names = [list(known)[at] for at in picked]
    return [prompt for name in names for prompt in _prompts(model, name, known[name], spec.length)]


def passages(language: str) -> dict[str, str]:
    """Return the texts of a language by their id, such as ``en07``."""
    data = files("harness").joinpath(f"data/prose_{language}.txt").read_text(encoding="utf-8")
    blocks = [block.partition("\n") for block in data.rstrip("\n").split("\n\n")]
    return {header.removeprefix("# ").partition(" | ")[0]: text for header, _, text in blocks}


def _prompts(model: Model, name: str, text: str, length: int | None) -> list[Prompt]:
    n, limit = _n_tokens(model, text), model.shape.n_ctx
    if length is None and n > limit:
        raise RequestError(
            "prompts.length", "null", f"passage {name} has {n} tokens, {model.name} takes {limit}: give a length"
        )
    pieces = [text] if length is None or n <= length else cut(model, text, length)
    return [from_text(model, piece, name, "prompts.length") for piece in pieces]


def cut(model: Model, text: str, length: int) -> list[str]:
    """Cut a text into consecutive pieces of at most `length` tokens, each with a predicted token."""
    made, left = [], _words(text)
    while left:
        most = _most(model, left, length)
        if most < len(left) and not _predicts(model, "".join(left[:most])):
            left[: most + 1] = "".join(left[: most + 1])  # the next word is too long: its characters are the words
            most = max(1, _most(model, left, length))
        made.append("".join(left[:most]))
        del left[:most]
    return [*made[:-2], *_shared(model, made[-2], made[-1], length)] if len(made) > 1 else made


def _words(text: str) -> list[str]:
    """Split a text before each space; Japanese, which has no spaces, after its punctuation."""
    return re.split(r"(?<=\S)(?=\s)|(?<=[、。」])(?=[^\s、。」])", text)


def _most(model: Model, words: list[str], length: int) -> int:
    """Return how many words from the first on have at most `length` tokens together."""
    longest = min(len(words), length)
    return bisect_right(range(1, longest + 1), length, key=lambda n: _n_tokens(model, "".join(words[:n])))


def _n_tokens(model: Model, text: str) -> int:
    return len(model.tokens.encode(text).token_id)


def _predicts(model: Model, text: str) -> bool:
    """Whether a token of the text can be predicted from another: an ordinary one after the first."""
    return bool(text.strip()) and not all(model.tokens.encode(text).special[1:])


def _shared(model: Model, first: str, last: str, length: int) -> list[str]:
    """Make the last two pieces about equally long, so that no prompt is a remnant of a word or two."""
    text = first + last
    for parts in (_words(first), list(first)):
        for border in sorted(accumulate(map(len, parts)), key=lambda border: abs(2 * border - len(text))):
            pieces = [text[:border], text[border:]]
            if all(_predicts(model, piece) and _n_tokens(model, piece) <= length for piece in pieces):
                return pieces
    return [first, last]
