"""Targets: the scored positions of a batch, and what a metric reads there."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

if TYPE_CHECKING:
    from torch import Tensor

    from harness.prompts import Prompts
    from harness.prompts.choices import Choices
else:  # torch takes seconds to import, and the names of the metrics do not need it
    Tensor = Any


@dataclass
class Readout:
    """Inputs of a metric at each target: logits, right token, answer, distractor and (for distances) clean logits."""

    logits: Float[Tensor, "target vocab"]
    clean: Float[Tensor, "target vocab"] | None
    correct: Int[Tensor, " target"]
    answer: Int[Tensor, " target"]
    distractor: Int[Tensor, " target"]

    @cached_property
    def log_prob(self) -> Float[Tensor, "target vocab"]:
        return self.logits.float().log_softmax(dim=-1)

    def at(self, scores: Float[Tensor, "target vocab"], token: Int[Tensor, " target"]) -> Float[Tensor, " target"]:
        """Return the score of one token for each target."""
        return scores.gather(1, token[:, None])[:, 0]


@dataclass(frozen=True)
class Completions:
    """The completions of the items of a choice: the prompt of each, whether it is right, and its length."""

    prompt: Int[Tensor, " completion"]
    right: Bool[Tensor, " completion"]
    n_tokens: Int[Tensor, " completion"]
    n_bytes: Int[Tensor, " completion"]


@dataclass(frozen=True)
class Targets:
    """The scored positions of a batch of prompts, concatenated.

    `row` and `position` are the place of each target, `prompt` its prompt (a masked-LM has one row for each of a
    prompt's targets), `correct`, `answer` and `distractor` its tokens (0 where the prompts have none; metrics that need
    them are then refused). `count` is the number of targets of each prompt, those in other batches included. Of items
    of a choice, `completion` is that of each target; a prompt's mean is then over the targets of the right one.
    """

    row: Int[Tensor, " target"]
    prompt: Int[Tensor, " target"]
    position: Int[Tensor, " target"]
    correct: Int[Tensor, " target"]
    answer: Int[Tensor, " target"]
    distractor: Int[Tensor, " target"]
    count: Int[Tensor, " prompt"]
    completion: Int[Tensor, " target"] | None = None
    completions: Completions | None = None

    @classmethod
    def of(cls, rows: "Prompts", owner: Int[np.ndarray, " row"], device: Any) -> "Targets":
        """Return the targets of some rows; `owner` is the prompt of each row."""
        import torch

        row, position = np.nonzero(rows.target)
        if rows.kind == "embedding":
            row, position = np.arange(len(rows)), np.zeros(len(rows), dtype=int)
        arrays = {
            "row": row,
            "prompt": owner[row],
            "position": position,
            "correct": rows.correct[row, position].clip(0),
            "answer": rows.answer[row].clip(0),
            "distractor": rows.distractor[row].clip(0),
        }
        tensors: dict[str, Any] = {name: torch.as_tensor(array, device=device) for name, array in arrays.items()}
        n_prompts = int(owner.max(initial=-1)) + 1
        return cls(**tensors, count=torch.bincount(tensors["prompt"], minlength=n_prompts))

    def with_choices(self, choices: "Choices", rows_each: Int[np.ndarray, " completion"]) -> "Targets":
        """Return the same targets with the completion of each; `rows_each` is the number of rows of each completion."""
        import torch

        def tensor(array: np.ndarray) -> Tensor:
            return torch.as_tensor(array, device=self.row.device)

        of = Completions(
            prompt=tensor(choices.owner),
            right=tensor(choices.right),
            n_tokens=tensor(choices.rows.target.sum(axis=1)),
            n_bytes=tensor(choices.n_bytes),
        )
        completion = tensor(np.repeat(np.arange(len(rows_each)), rows_each))[self.row]
        count = torch.bincount(self.prompt[of.right[completion]], minlength=self.n_prompts)
        return replace(self, count=count, completion=completion, completions=of)

    def __len__(self) -> int:
        return len(self.prompt)

    @property
    def n_prompts(self) -> int:
        return len(self.count)

    def take(self, which: Any) -> "Targets":
        """Return some of the targets, with their weight in the prompt's mean unchanged."""
        each = ("row", "prompt", "position", "correct", "answer", "distractor", "completion")
        known: dict[str, Any] = {name: getattr(self, name) for name in each if getattr(self, name) is not None}
        return replace(self, **{name: value[which] for name, value in known.items()})

    def of_rows(self, rows: range) -> "Targets":
        """Return the targets in a range of rows, numbered from its start."""
        some = self.take((self.row >= rows.start) & (self.row < rows.stop))
        return replace(some, row=some.row - rows.start)

    def read(self, which: Any, logits: Tensor, clean: Tensor | None) -> Readout:
        """Return the readout of the targets `which` [n] from their logits and clean logits, both [n, vocab]."""
        return Readout(logits, clean, self.correct[which], self.answer[which], self.distractor[which])

    @property
    def share(self) -> Float[Tensor, " target"]:
        """The weight of each target in its prompt's mean."""
        return self._counted / self.count[self.prompt]

    @property
    def _counted(self) -> Int[Tensor, " target"]:
        """1 for the targets that a prompt's mean is over, 0 for those of wrong completions."""
        if self.completions is None or self.completion is None:
            return self.prompt.new_ones(len(self))
        return self.completions.right[self.completion].to(self.prompt.dtype)

    def mean_by_prompt(self, value: Float[Tensor, "*rows target"]) -> Float[Tensor, "*rows prompt"]:
        """Return the mean over each prompt's targets; where some are in other batches, these targets' share of it."""
        value = value if self.completions is None else value * self._counted
        total = value.new_zeros((*value.shape[:-1], self.n_prompts)).index_add_(-1, self.prompt, value)
        return total / self.count

    def sum_by_completion(self, value: Float[Tensor, "*rows target"]) -> Float[Tensor, "*rows completion"]:
        """Return the sum over each completion's targets."""
        assert self.completions is not None
        assert self.completion is not None
        n = len(self.completions.prompt)
        return value.new_zeros((*value.shape[:-1], n)).index_add_(-1, self.completion, value)
