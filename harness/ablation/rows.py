"""The rows that a model is run on for some prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Int

from harness.models import Model
from harness.prompts import Prompts, masked

#: Tokens that go through a block together on a CPU, where more are not faster and cost page faults (see LOG.md). It is
#: not tuned by the clock: numbers would then depend on how busy the machine is, in their last digits.
CHUNK_TOKENS = 4096


def model_rows(model: Model, prompts: Prompts, some: range | None = None) -> tuple[Prompts, Int[np.ndarray, " row"]]:
    """The rows that a model is run on, and the prompt each belongs to: the prompts, or one row per masked position; or
    `some` of these rows."""
    prompts.check_model(model)
    rows, owner = prompts, np.arange(len(prompts))
    if model.kind == "masked_lm":
        rows, owner = masked(prompts, model.tokens.mask_id)
    if some is None or len(some) == len(rows):
        return rows, owner
    chosen = np.array(some)
    return rows.take(chosen), owner[chosen]


@dataclass(frozen=True)
class Share:
    """Prompts by number, and which of the rows that the model is run on for them are meant: `some`, or all."""

    numbers: Sequence[int]
    some: range | None = None


def together(n_rows: int, at_most: int) -> list[range]:
    """The rows in groups of nearly one size, that run one after the other."""
    cut = np.linspace(0, n_rows, max(1, -(-n_rows // at_most)) + 1).astype(int).tolist()
    return [range(*ends) for ends in pairwise(cut)]
