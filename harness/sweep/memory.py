"""Fit a sweep in memory: how many rows, and how many interventions, go through the model together."""

from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import torch

from harness.ablation.rows import CHUNK_TOKENS
from harness.models import Model
from harness.prompts import Prompts
from harness.prompts.batching import first_scored

#: Activations that live at once for one token of one row, in multiples of d_model and of n_heads × keys.
_WIDTHS, _PATTERN_BYTES = 24, 12
#: Of the memory that is free, what a chunk may take where `sweep.memory` sets no limit.
_SHARE_OF_FREE = 0.25


@dataclass(frozen=True)
class Fit:
    """How batches of prompts fit in `gigabytes` for the activations of one chunk, or in the memory that is free now.

    On a CPU a chunk has `CHUNK_TOKENS` tokens at most, since more are not faster there; on an accelerator, as many as
    fit.
    """

    model: Model
    prompts: Prompts
    gigabytes: float | None = None
    shares_context: bool = False

    @property
    def budget(self) -> float:
        """Return the bytes that the activations of one chunk may take."""
        return free(self.model.device) * _SHARE_OF_FREE if self.gigabytes is None else self.gigabytes * 1e9

    def n_rows(self, batch: Sequence[int]) -> int:
        """Return the rows that the model runs on for these prompts: a masked LM has one for each scored token, items of
        a choice one for each completion."""
        return int(self.prompts.n_rows[batch].sum())

    def rows_at_once(self, batch: Sequence[int]) -> int:
        """Return how many rows of this batch of prompts go through together: all completions of an item do."""
        length = self._length(batch)
        if self.prompts.has_choices:
            return self.n_rows(batch)
        return max(1, min(self.n_rows(batch), self._tokens(length) // length))

    def interventions_at_once(self, batch: Sequence[int]) -> int:
        """Return how many interventions on this batch go through together."""
        return max(1, self._tokens(self._length(batch)) // self._each(batch))

    def chunk_bytes(self, batches: Sequence[Sequence[int]], n_interventions: int) -> float:
        """Return the bytes of the largest chunk's activations."""
        per_token = self._bytes_per_token(int(self.prompts.width.max()))
        tokens = (min(self.interventions_at_once(batch), n_interventions) * self._each(batch) for batch in batches)
        return max(tokens) * per_token

    @property
    def share_that_runs(self) -> float:
        """Return the share of all rows' tokens that an intervention runs on: 1 where no context is shared."""
        rows = self.prompts.n_rows @ self.prompts.width
        shared = first_scored(self.prompts) @ (self.prompts.n_rows - 1) if self.shares_context else 0
        return float(1 - shared / rows)

    def _each(self, batch: Sequence[int]) -> int:
        """Return the tokens that an intervention runs on: where items share it, their contexts count once."""
        whole = self.rows_at_once(batch) * self._length(batch)
        if not self.shares_context:
            return whole
        shared = first_scored(self.prompts)[batch]
        return whole - int(shared @ (self.prompts.n_rows[batch] - 1))

    def _length(self, batch: Sequence[int]) -> int:
        return int(self.prompts.width[batch].max())

    def _bytes_per_token(self, length: int) -> int:
        return 4 * _WIDTHS * self.model.shape.d_model + _PATTERN_BYTES * self.model.shape.n_heads * length

    def _tokens(self, length: int) -> int:
        fitting = int(self.budget / self._bytes_per_token(length))
        return min(CHUNK_TOKENS, fitting) if self.model.device == "cpu" else fitting


def free(device: str) -> int:
    """Return the free bytes on the model's device."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out: torch has a class for it on an accelerator only."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
