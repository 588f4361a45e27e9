"""Rows that a model is run on for some prompts: the prompts, or one row for each choice and masked token."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Int

from harness.models import Model
from harness.prompts import Prompts, masked
from harness.prompts.targets import Targets

#: Tokens that go through a block together on a CPU; more are not faster and cost page faults (see
#: docs/measurements.md). A constant, since tuning it by timing would make the last digits of results depend on the
#: machine's load.
CHUNK_TOKENS = 4096


def model_rows(model: Model, prompts: Prompts, some: range | None = None) -> tuple[Prompts, Int[np.ndarray, " row"]]:
    """Return the rows that a model is run on and the prompt of each: the prompts themselves, or one row for each choice
    and each masked position; or `some` of these rows."""
    prompts.check_model(model)
    rows, owner = prompts.by_choice()
    if model.kind == "masked_lm":
        rows, of = masked(rows, model.tokens.mask_id)
        owner = owner[of]
    if some is None or len(some) == len(rows):
        return rows, owner
    chosen = np.array(some)
    return rows.take(chosen), owner[chosen]


def unmasked_rows(prompts: Prompts, some: range | None = None) -> Prompts:
    """Return the rows of a masked-LM before a token of each is masked."""
    rows, _ = prompts.by_choice()
    chosen = np.repeat(np.arange(len(rows)), rows.target.sum(axis=1))
    return rows.take(chosen if some is None else chosen[np.array(some)])


def targets_of(model: Model, prompts: Prompts) -> Targets:
    """Return the targets of the model's rows for some prompts."""
    targets = Targets.of(*model_rows(model, prompts), model.device)
    if prompts.choices is None:
        return targets
    rows = prompts.choices.rows
    each = rows.target.sum(axis=1) if model.kind == "masked_lm" else np.ones(len(rows), dtype=int)
    return targets.with_choices(prompts.choices, each)


@dataclass(frozen=True)
class Share:
    """Prompts by number, and `some` of the model's rows for them (default: all)."""

    numbers: Sequence[int]
    some: range | None = None


def together(n_rows: int, at_most: int) -> list[range]:
    """Divide rows into groups of nearly equal size, at most `at_most` each."""
    cut = np.linspace(0, n_rows, max(1, -(-n_rows // at_most)) + 1).astype(int).tolist()
    return [range(*ends) for ends in pairwise(cut)]
