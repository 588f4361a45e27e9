"""The rows that a model is run on for some prompts."""

from itertools import pairwise

import numpy as np
from jaxtyping import Int

from harness.models import Model
from harness.prompts import Prompts, masked


def asked(model: Model, prompts: Prompts, some: range | None = None) -> tuple[Prompts, Int[np.ndarray, " row"]]:
    """The rows that a model is run on, and the prompt each belongs to: the prompts, or one row per masked position; or
    `some` of these rows."""
    rows, owner = prompts, np.arange(len(prompts))
    if model.kind == "masked_lm":
        rows, owner = masked(prompts, model.tokens.mask_id)
    if some is None or len(some) == len(rows):
        return rows, owner
    chosen = np.array(some)
    return rows.take(chosen), owner[chosen]


def together(n_rows: int, at_most: int) -> list[range]:
    """The rows in groups of nearly one size, that run one after the other."""
    cut = np.linspace(0, n_rows, max(1, -(-n_rows // at_most)) + 1).astype(int).tolist()
    return [range(*ends) for ends in pairwise(cut)]
