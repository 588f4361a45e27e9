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
from harness.models import Model
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
    """A padded batch of prompts.

    `token_id`, `token`, `word`, `special`, `target` and `correct` are [prompt, position], padded on the right with
    −1, ``""``, −1, False, False and −1. `target` marks the positions whose next-token prediction is scored, `correct`
    the token that should come next there. `answer` and `distractor` are token ids (−1 where there is none),
    `counterfactual` [prompt, position] token ids (−1 where there is none).
    """

    name: str
    text: tuple[str, ...]
    token_id: Ids
    token: np.ndarray
    word: Ids
    special: Bool[np.ndarray, "prompt position"]
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

    def take(self, index: Sequence[int]) -> "Prompts":
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
        for array in (self.token_id, self.correct, self.answer, self.distractor, self.counterfactual):
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
    return pad(spec.name, _maker(spec)(spec, model), model)


def _maker(spec: PromptSpec) -> Callable[[Any, Model], list[Prompt]]:
    from harness.prompts import induction, inline, ioi

    makers = {config.IoiPrompts: ioi.make, config.InductionPrompts: induction.make, config.InlinePrompts: inline.make}
    assert set(makers) == set(get_args(get_args(PromptSpec)[0]))
    return makers[type(spec)]


def from_text(model: Model, text: str, cluster: str, key: str = "prompts.text") -> Prompt:
    """A prompt from a text, under the model's token policy, every predicted token being scored."""
    encoded = model.tokens.encode(text)
    _check_length(encoded, text, model, key)
    scored = {at: after for at, after in enumerate(encoded.token_id[1:]) if not encoded.special[at + 1]}
    return Prompt(text, encoded, words.split(text, encoded.span, encoded.token), scored, cluster)


def with_answer(prompt: Prompt, answer: int, distractor: int | None) -> Prompt:
    """The prompt with only its end scored: the next token should be `answer`."""
    end = len(prompt.encoded.token_id) - 1
    return replace(prompt, correct={end: answer}, answer=answer, distractor=distractor)


def _check_length(encoded: Encoded, text: str, model: Model, key: str) -> None:
    n, limit = len(encoded.token_id), model.shape.n_ctx
    if not text.strip() or all(encoded.special):
        raise RequestError(key, repr(text), "a prompt must have at least one token of text")
    if n > limit:
        raise RequestError(key, repr(text[:20] + "…"), f"this prompt has {n} tokens, {model.name} takes {limit}")


def pad(name: str, made: Sequence[Prompt], model: Model) -> Prompts:
    """Prompts of different lengths side by side, padded on the right."""
    for number, prompt in enumerate(made):
        if not prompt.correct:
            raise RequestError("prompts", repr(prompt.text), f"prompt {number} has no token to predict: make it longer")
    end = max(len(prompt.encoded.token_id) for prompt in made)

    def grid(rows: Sequence[Sequence[Any]], fill: Any, dtype: Any) -> np.ndarray:
        return np.array([[*row, *[fill] * (end - len(row))] for row in rows], dtype=dtype)

    def string(token_id: int | None) -> str:
        return "" if token_id is None else model.tokens.string(token_id)

    return Prompts(
        name=name,
        text=tuple(prompt.text for prompt in made),
        token_id=grid([prompt.encoded.token_id for prompt in made], -1, np.int64),
        token=grid([prompt.encoded.token for prompt in made], "", np.dtypes.StringDType()),
        word=grid([prompt.word for prompt in made], -1, np.int64),
        special=grid([prompt.encoded.special for prompt in made], False, np.bool_),
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
