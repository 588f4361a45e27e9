"""Pair two models on some prompts: token by token, word by word, or role by role."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.config import RequestError, quoted
from harness.metrics import Metric
from harness.models import Model
from harness.prompts import Prompts
from harness.prompts.prompt import NOUN


@dataclass(frozen=True)
class Pairing:
    """How two models are compared: on tokens if `same_tokens`, else on words; by head if `same_heads` (as many layers
    and heads), else by role only."""

    same_tokens: bool
    same_heads: bool


def pairing(base: Model, other: Model, prompts: Prompts, others: Prompts) -> Pairing:
    """Return how these models' runs can be compared.

    Raises `RequestError` for models with other kinds of output, and for prompts that are other words to them.
    """
    if base.kind != other.kind:
        remedy = f"{base.name} is {NOUN[base.kind]} and this is {NOUN[other.kind]}: compare models of one kind"
        raise RequestError("compare.model", other.name, remedy)
    same_tokens = np.array_equal(prompts.token_id, others.token_id) and _read(prompts, others)
    if not same_tokens:
        _check_words(other, prompts, others)
    return Pairing(same_tokens, (base.shape.stacks, base.shape.n_heads) == (other.shape.stacks, other.shape.n_heads))


def _read(prompts: Prompts, others: Prompts) -> bool:
    """Whether the tokens are the same as text, and the sources too."""
    sources = prompts.source is None or others.source is None
    return np.array_equal(prompts.token, others.token) and (sources or np.array_equal(prompts.read, others.read))


def _check_words(other: Model, prompts: Prompts, others: Prompts) -> None:
    """Raise `RequestError` unless prompts in other tokens are the same words, special tokens aside."""
    if prompts.source is not None:
        remedy = "its tokenizer is another one, and of encoder-decoders only equal tokens are compared"
        raise RequestError("compare.model", other.name, remedy)
    if len(prompts) != len(others):
        raise RequestError(
            "compare.model", other.name, f"the prompts are {len(prompts)} to one and {len(others)} to the other"
        )
    for number, (mine, its) in enumerate(zip(_words(prompts), _words(others), strict=True)):
        if mine != its:
            differing = next((pair for pair in zip(mine, its, strict=False) if pair[0] != pair[1]), ("…", "…"))
            remedy = (
                f"its tokenizer is another one, and prompt {number} is other words to it ({quoted(differing[0])} is "
                f"{quoted(differing[1])}): give prompts=inline or prompts=file in plain words"
            )
            raise RequestError("compare.model", other.name, remedy)


def _words(prompts: Prompts) -> list[list[str]]:
    """Return the words of each prompt, without the white space before them."""
    return [[str(text).strip() for text in row if str(text).strip()] for row in prompts.word_text]


def check_metrics(mine: Sequence[Metric], its: Sequence[Metric]) -> None:
    """Raise `RequestError` unless both models are measured by the same metrics."""
    names = [[metric.name for metric in metrics] for metrics in (mine, its)]
    if names[0] != names[1]:
        remedy = f"the models are measured by {', '.join(names[0])} and {', '.join(names[1])}: set metrics=[loss]"
        raise RequestError("metrics", "auto", remedy)
