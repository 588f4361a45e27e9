"""Spec to prompts: tokens, targets, answers, counterfactuals and clusters, ready for a model.

One file per prompt set. Everything here is numpy; only the tokenizer of the model is used, so prompts can be looked
at before anything runs.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

import numpy as np
import xarray as xr
from jaxtyping import Bool, Int

from harness import config, words
from harness.config import PromptSpec, RequestError
from harness.models import Kind, Model
from harness.models.tokens import Encoded

Ids = Int[np.ndarray, "prompt position"]


@dataclass(frozen=True)
class Prompt:
    """One prompt before padding.

    `correct` maps each scored position to the token that should come next there. `answer` and `distractor` are
    token ids, `counterfactual` the tokens of a prompt of the same length in which the answer is not to be had.
    """

    text: str
    encoded: Encoded
    word: tuple[int, ...]
    correct: dict[int, int]
    cluster: str
    answer: int | None = None
    distractor: int | None = None
    counterfactual: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Prompts:
    """A padded batch of prompts for a model of some kind.

    `token_id`, `token`, `word`, `special`, `target` and `correct` are [prompt, position], padded on the right with
    −1, ``""``, −1, False, False and −1. `target` marks the positions whose prediction is scored: the token that should
    come next, or, for a masked-LM, the token that is masked there; `correct` is that token. `segment` is 1 in the
    second text of a pair. `answer` and `distractor` are token ids (−1 where there is none),
    `counterfactual` [prompt, position] token ids (−1 where there is none).
    """

    name: str
    kind: Kind
    text: tuple[str, ...]
    token_id: Ids
    token: np.ndarray
    word: Ids
    special: Bool[np.ndarray, "prompt position"]
    segment: Ids
    correct: Ids
    cluster: tuple[str, ...]
    answer: Int[np.ndarray, " prompt"]
    distractor: Int[np.ndarray, " prompt"]
    counterfactual: Ids
    answer_text: tuple[str, ...]
    distractor_text: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.text)

    @property
    def length(self) -> Int[np.ndarray, " prompt"]:
        return (self.token_id >= 0).sum(axis=1)

    @property
    def target(self) -> Bool[np.ndarray, "prompt position"]:
        return self.correct >= 0

    @property
    def has_answer(self) -> bool:
        return bool((self.answer >= 0).all())

    @property
    def has_distractor(self) -> bool:
        return bool((self.distractor >= 0).all())

    def take(self, index: Sequence[int] | Int[np.ndarray, " row"]) -> "Prompts":
        """The prompts at these places, padded only as far as they need."""
        rows = np.asarray(index, dtype=int)
        end = int(self.length[rows].max())
        changed: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, np.ndarray):
                changed[item.name] = value[rows, :end] if value.ndim == 2 else value[rows]
            elif isinstance(value, tuple):
                changed[item.name] = tuple(value[row] for row in rows)
        return replace(self, **changed)

    def dataset(self) -> xr.Dataset:
        """The prompts as labelled arrays, named as in ``data.zarr``."""
        grids = {name: getattr(self, name) for name in ("token", "token_id", "word", "special", "target", "correct")}
        rows = {
            "length": self.length,
            "cluster": np.array(self.cluster, dtype=np.dtypes.StringDType()),
            "answer": np.array(self.answer_text, dtype=np.dtypes.StringDType()),
            "distractor": np.array(self.distractor_text, dtype=np.dtypes.StringDType()),
        }
        variables = {name: (("prompt", "position"), array) for name, array in grids.items()}
        return xr.Dataset(variables | {name: (("prompt",), array) for name, array in rows.items()})

    @property
    def sha256(self) -> str:
        """The identity of the prompt set: everything that decides a number."""
        state = hashlib.sha256()
        for array in (self.token_id, self.segment, self.correct, self.answer, self.distractor, self.counterfactual):
            state.update(np.ascontiguousarray(array, dtype=np.int64).tobytes() + str(array.shape).encode())
        state.update("\0".join(self.cluster).encode())
        return state.hexdigest()


def load_prompts(prompts: str | Any, model: Model, **overrides: object) -> Prompts:
    """Prompts for a model, from the name of a prompt set (with keywords) or a spec.

    Raises `RequestError` for a text that is empty or too long for the model, and for a name or answer that is not a
    single token under the model's tokenizer.
    """
    if isinstance(prompts, str):
        spec = config.parse(PromptSpec, {"name": prompts, **overrides}, "prompts.")
    else:
        spec = replace(prompts, **overrides)
    if model.kind != "decoder" and isinstance(spec, config.IoiPrompts | config.InductionPrompts):
        raise RequestError(
            "prompts", spec.name, f"it scores next tokens, and {model.name} is an encoder; give prompts=inline or prose"
        )
    return pad(spec.name, _maker(spec)(spec, model), model)


def _maker(spec: PromptSpec) -> Callable[[Any, Model], list[Prompt]]:
    from harness.prompts import file, induction, inline, ioi, prose

    makers = {
        config.IoiPrompts: ioi.make,
        config.InductionPrompts: induction.make,
        config.InlinePrompts: inline.make,
        config.ProsePrompts: prose.make,
        config.FilePrompts: file.make,
    }
    assert set(makers) == set(get_args(get_args(PromptSpec)[0]))
    return makers[type(spec)]


def from_text(model: Model, text: str, cluster: str, key: str = "prompts.text", pair: str | None = None) -> Prompt:
    """A prompt from a text (or a pair), under the model's token policy, everything it can predict being scored.

    That is every next token of a decoder, every token in turn of a masked-LM, nothing of a model that gives a vector.
    """
    encoded = model.tokens.encode(text, pair)
    _check_length(encoded, text, model, key)
    ordinary = {at: token for at, token in enumerate(encoded.token_id) if not encoded.special[at]}
    scored = {
        "decoder": {at - 1: token for at, token in ordinary.items() if at > 0},
        "masked_lm": ordinary,
        "embedding": {},
    }[model.kind]
    word = words.split([text, pair or ""], encoded.span, encoded.token, encoded.segment)
    return Prompt(text if pair is None else f"{text} | {pair}", encoded, word, scored, cluster)


def with_answer(model: Model, prompt: Prompt, answer: int, distractor: int | None) -> Prompt:
    """The prompt with one place scored, where `answer` should stand: after its end, or at its one mask token."""
    where = len(prompt.encoded.token_id) - 1
    if model.kind == "masked_lm":
        mask = model.tokens.mask_id
        if prompt.encoded.token_id.count(mask) != 1:
            name = model.tokens.string(mask)
            raise RequestError("prompts.text", repr(prompt.text), f"write {name} once, where the answer should stand")
        where = prompt.encoded.token_id.index(mask)
    return replace(prompt, correct={where: answer}, answer=answer, distractor=distractor)


def _check_length(encoded: Encoded, text: str, model: Model, key: str) -> None:
    n, limit = len(encoded.token_id), model.shape.n_ctx
    if not text.strip() or all(encoded.special):
        raise RequestError(key, repr(text), "a prompt must have at least one token of text")
    if n > limit:
        raise RequestError(key, repr(text[:20] + "…"), f"this prompt has {n} tokens, {model.name} takes {limit}")


def pad(name: str, made: Sequence[Prompt], model: Model) -> Prompts:
    """Prompts of different lengths side by side, padded on the right."""
    for number, prompt in enumerate(made):
        if not prompt.correct and model.kind != "embedding":
            raise RequestError("prompts", repr(prompt.text), f"prompt {number} has no token to predict: make it longer")
    end = max(len(prompt.encoded.token_id) for prompt in made)

    def grid(rows: Sequence[Sequence[Any]], fill: Any, dtype: Any) -> np.ndarray:
        return np.array([[*row, *[fill] * (end - len(row))] for row in rows], dtype=dtype)

    def string(token_id: int | None) -> str:
        return "" if token_id is None else model.tokens.string(token_id)

    return Prompts(
        name=name,
        kind=model.kind,
        text=tuple(prompt.text for prompt in made),
        token_id=grid([prompt.encoded.token_id for prompt in made], -1, np.int64),
        token=grid([prompt.encoded.token for prompt in made], "", np.dtypes.StringDType()),
        word=grid([prompt.word for prompt in made], -1, np.int64),
        special=grid([prompt.encoded.special for prompt in made], False, np.bool_),
        segment=grid([prompt.encoded.segment for prompt in made], 0, np.int64),
        correct=grid([[prompt.correct.get(at, -1) for at in range(end)] for prompt in made], -1, np.int64),
        cluster=tuple(prompt.cluster for prompt in made),
        answer=np.array([-1 if prompt.answer is None else prompt.answer for prompt in made]),
        distractor=np.array([-1 if prompt.distractor is None else prompt.distractor for prompt in made]),
        counterfactual=grid([prompt.counterfactual or () for prompt in made], -1, np.int64),
        answer_text=tuple(string(prompt.answer) for prompt in made),
        distractor_text=tuple(string(prompt.distractor) for prompt in made),
    )


def batches(prompts: Prompts, tokens: int = 1024, at_most: int = 8) -> list[list[int]]:
    """The prompts in batches of work: at most so many prompts and (padded) tokens in each, never none.

    Prompts of like length go together, so that little padding is computed.
    """
    made: list[list[int]] = []
    for prompt in np.argsort(prompts.length, kind="stable").tolist():
        wider = [*made[-1], prompt] if made else []
        if wider and len(wider) <= at_most and len(wider) * prompts.length[prompt] <= tokens:
            made[-1] = wider
        else:
            made.append([prompt])
    return made


def masked(prompts: Prompts, mask_id: int) -> tuple[Prompts, Int[np.ndarray, " row"]]:
    """What a masked-LM is asked: one row for each scored position, which is masked with the later pieces of its word.

    Returns the rows, each with one scored position, and the prompt that each belongs to. Masking the later pieces
    too keeps them from giving the word away (Salazar et al. 2020, arXiv:1910.14659; Kauf & Ivanova 2023,
    arXiv:2305.10588).
    """
    owner, position = np.nonzero(prompts.target)
    rows = prompts.take(owner)
    at = np.arange(rows.token_id.shape[1])
    word = rows.word[np.arange(len(owner)), position]
    hidden = (rows.word == word[:, None]) & (at >= position[:, None])
    correct = np.where(at == position[:, None], rows.correct, -1)
    return replace(rows, token_id=np.where(hidden, mask_id, rows.token_id), correct=correct), owner
