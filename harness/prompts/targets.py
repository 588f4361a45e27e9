"""The scored positions of a batch, and what a metric may read there."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

if TYPE_CHECKING:
    from torch import Tensor

    from harness.prompts import Prompts
else:  # the names of the metrics must be had without waiting for torch
    Tensor = Any


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
class Targets:
    """The scored positions of a batch of prompts, one after the other.

    `row` and `position` say where each target is, `prompt` whose number it counts for (a masked-LM is asked one row
    for each of a prompt's targets), `correct`, `answer` and `distractor` which tokens matter there
    (0 where the prompts have none; no metric that needs them is then allowed). `count` is how many targets each prompt
    has, those in other batches of its rows too.
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
        """The targets of some rows, `owner` being the prompt that each row belongs to."""
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
        """Some of the targets; each counts in its prompt's mean as it does among all."""
        each = ("row", "prompt", "position", "correct", "answer", "distractor")
        return replace(self, **{name: getattr(self, name)[which] for name in each})

    def of_rows(self, rows: range) -> "Targets":
        """The targets in some of the rows; the first of these is row 0."""
        some = self.take((self.row >= rows.start) & (self.row < rows.stop))
        return replace(some, row=some.row - rows.start)

    def read(self, which: Any, logits: Tensor, clean: Tensor | None) -> Readout:
        """The readout of the targets `which` [n] from their logits [n, vocab] and their clean logits."""
        return Readout(logits, clean, self.correct[which], self.answer[which], self.distractor[which])

    @property
    def share(self) -> Float[Tensor, " target"]:
        """What each target counts in its prompt's mean."""
        return 1 / self.count[self.prompt]

    def mean_by_prompt(self, value: Float[Tensor, "*rows target"]) -> Float[Tensor, "*rows prompt"]:
        """The mean over each prompt's targets; where some of them are elsewhere, what these give to it."""
        total = value.new_zeros((*value.shape[:-1], self.n_prompts)).index_add_(-1, self.prompt, value)
        return total / self.count
