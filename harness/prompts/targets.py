"""Targets: the scored positions of a batch, and what a metric reads there."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

if TYPE_CHECKING:
    from torch import Tensor

    from harness.prompts import Prompts
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
class Targets:
    """The scored positions of a batch of prompts, concatenated.

    `row` and `position` are the place of each target, `prompt` its prompt (a masked-LM has one row for each of a
    prompt's targets), `correct`, `answer` and `distractor` its tokens (0 where the prompts have none; metrics that need
    them are then refused). `count` is the number of targets of each prompt, those in other batches included.
    """

    row: Int[Tensor, " target"]
    prompt: Int[Tensor, " target"]
    position: Int[Tensor, " target"]
    correct: Int[Tensor, " target"]
    answer: Int[Tensor, " target"]
    distractor: Int[Tensor, " target"]
    count: Int[Tensor, " prompt"]

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
        tensors = {name: torch.as_tensor(array, device=device) for name, array in arrays.items()}
        n_prompts = int(owner.max(initial=-1)) + 1
        return cls(**tensors, count=torch.bincount(tensors["prompt"], minlength=n_prompts))

    def __len__(self) -> int:
        return len(self.prompt)

    @property
    def n_prompts(self) -> int:
        return len(self.count)

    def take(self, which: Any) -> "Targets":
        """Return some of the targets, with their weight in the prompt's mean unchanged."""
        each = ("row", "prompt", "position", "correct", "answer", "distractor")
        return replace(self, **{name: getattr(self, name)[which] for name in each})

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
        return 1 / self.count[self.prompt]

    def mean_by_prompt(self, value: Float[Tensor, "*rows target"]) -> Float[Tensor, "*rows prompt"]:
        """Return the mean over each prompt's targets; where some are in other batches, these targets' share of it."""
        total = value.new_zeros((*value.shape[:-1], self.n_prompts)).index_add_(-1, self.prompt, value)
        return total / self.count
