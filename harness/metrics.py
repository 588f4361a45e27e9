"""Logits to one number per prompt.

Scored positions of all rows stand one after the other ("targets"), so nothing is computed where no metric looks and
prompts may score different numbers of positions. A metric gives one value per target; the mean over a prompt's
targets is the prompt's. To add one: write a function of a `Readout`, and name it in `METRICS`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float, Int

from harness.config import RequestError, near

if TYPE_CHECKING:
    from torch import Tensor

    from harness.prompts import Prompts
else:  # the names of the metrics must be had without waiting for torch
    Tensor = Any

Need = Literal["answer", "distractor"]


@dataclass
class Readout:
    """What a metric may read at each target: logits, the right token, answer and distractor, and (for distances)
    the clean logits."""

    logits: Float[Tensor, "target vocab"]
    clean: Float[Tensor, "target vocab"] | None
    correct: Int[Tensor, " target"]
    answer: Int[Tensor, " target"]
    distractor: Int[Tensor, " target"]

    @cached_property
    def log_prob(self) -> Float[Tensor, "target vocab"]:
        return self.logits.float().log_softmax(dim=-1)

    def at(self, scores: Float[Tensor, "target vocab"], token: Int[Tensor, " target"]) -> Float[Tensor, " target"]:
        """The score of one token for each target."""
        return scores.gather(1, token[:, None])[:, 0]


@dataclass(frozen=True)
class Metric:
    """A number per prompt, its unit, which way is better, and what the prompts must have.

    `distance` marks a metric that compares with the clean run and is never negative.
    """

    compute: Callable[[Readout], Float[Tensor, " target"]]
    units: str
    higher_is_better: bool
    needs: tuple[Need, ...] = ()
    distance: bool = False


def loss(read: Readout) -> Float[Tensor, " target"]:
    """Negative log-probability of the right token, nats."""
    return -read.at(read.log_prob, read.correct)


def logit_diff(read: Readout) -> Float[Tensor, " target"]:
    """Logit of the answer minus logit of the distractor."""
    logits = read.logits.float()
    return read.at(logits, read.answer) - read.at(logits, read.distractor)


def kl(read: Readout) -> Float[Tensor, " target"]:
    """KL(clean ‖ ablated) of the next-token distributions, nats."""
    assert read.clean is not None
    clean = read.clean.float().log_softmax(dim=-1)
    return (clean.exp() * (clean - read.log_prob)).sum(dim=-1).clamp(min=0)


def accuracy(read: Readout) -> Float[Tensor, " target"]:
    """1 where the right token has the largest logit of all, else 0."""
    return (read.logits.argmax(dim=-1) == read.correct).float()


def prob(read: Readout) -> Float[Tensor, " target"]:
    """Probability of the right token."""
    return read.at(read.log_prob, read.correct).exp()


METRICS: dict[str, Metric] = {
    "loss": Metric(loss, "nats per target token", higher_is_better=False),
    "logit_diff": Metric(logit_diff, "logits", higher_is_better=True, needs=("answer", "distractor")),
    "kl": Metric(kl, "nats per target token", higher_is_better=False, distance=True),
    "accuracy": Metric(accuracy, "share of targets", higher_is_better=True),
    "prob": Metric(prob, "probability", higher_is_better=True),
}


def choose(asked: Iterable[str], prompts: "Prompts") -> tuple[str, ...]:
    """The metrics a request names, checked against the prompts; ``auto`` is `loss`, and `logit_diff` where it can be.

    Raises `RequestError` for an unknown metric and for one that needs an answer that the prompts do not have.
    """
    names = tuple(dict.fromkeys(asked))
    if names == ("auto",):
        return ("loss", "logit_diff") if prompts.has_answer and prompts.has_distractor else ("loss",)
    if not names:
        raise RequestError("metrics", "[]", near("", tuple(METRICS)))
    for name in names:
        if name not in METRICS:
            raise RequestError("metrics", name, near(name, tuple(METRICS)))
        for need in METRICS[name].needs:
            if not getattr(prompts, f"has_{need}"):
                possible = [other for other, metric in METRICS.items() if not metric.needs]
                raise RequestError(
                    "metrics",
                    name,
                    f"it needs a prompt with {need}, and {prompts.name} has none; possible here: {', '.join(possible)}",
                )
    return names


@dataclass(frozen=True)
class Targets:
    """The scored positions of a batch of prompts, one after the other.

    `prompt` and `position` say where each target is, `correct`, `answer` and `distractor` which tokens matter there
    (0 where the prompts have none; no metric that needs them is then allowed).
    """

    prompt: Int[Tensor, " target"]
    position: Int[Tensor, " target"]
    correct: Int[Tensor, " target"]
    answer: Int[Tensor, " target"]
    distractor: Int[Tensor, " target"]
    n_prompts: int

    @classmethod
    def of(cls, prompts: "Prompts", device: Any) -> "Targets":
        import torch

        prompt, position = np.nonzero(prompts.target)
        tensors = (
            prompt,
            position,
            prompts.correct[prompt, position],
            prompts.answer[prompt].clip(0),
            prompts.distractor[prompt].clip(0),
        )
        return cls(*(torch.as_tensor(array, device=device) for array in tensors), n_prompts=len(prompts))

    def __len__(self) -> int:
        return len(self.prompt)

    def read(self, which: Any, logits: Tensor, clean: Tensor | None) -> Readout:
        """The readout of the targets `which` [n] from their logits [n, vocab] and their clean logits."""
        return Readout(logits, clean, self.correct[which], self.answer[which], self.distractor[which])

    def mean_by_prompt(self, value: Float[Tensor, "*rows target"]) -> Float[Tensor, "*rows prompt"]:
        """The mean over each prompt's targets."""
        import torch

        total = value.new_zeros((*value.shape[:-1], self.n_prompts)).index_add_(-1, self.prompt, value)
        return total / torch.bincount(self.prompt, minlength=self.n_prompts)
