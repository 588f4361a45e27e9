"""Repeated random tokens (Olsson et al. 2022, arXiv:2209.11895): the second half can only be predicted by looking back
at the first.

A BOS token comes first where the tokenizer has one, whatever the model's policy for text: induction heads use it as
an attention sink. Scored are the tokens of the second half after its first. Roles of tokens: the earlier copy is the
first half, where an induction head reads the token after the current one's copy; the repeat is the second half.
"""

import numpy as np

from harness.config import InductionPrompts, RequestError
from harness.models import Model
from harness.prompts.prompt import Prompt
from harness.words import Words


def make(spec: InductionPrompts, model: Model) -> list[Prompt]:
    """Make `spec.n` prompts of `length` random tokens, all different within a prompt, repeated once."""
    rng = np.random.default_rng(spec.seed)
    bos = [] if model.tokens.bos_id is None else [model.tokens.bos_id]
    total = len(bos) + 2 * spec.length
    if total > model.shape.n_ctx:
        raise RequestError(
            "prompts.length", spec.length, f"this makes {total} tokens, {model.name} takes {model.shape.n_ctx}"
        )
    pool = np.array(sorted(set(range(model.shape.d_vocab)) - model.tokens.special_ids))
    if len(pool) < spec.length:
        raise RequestError("prompts.length", spec.length, f"{model.name} has only {len(pool)} tokens to draw from")
    return [_prompt(model, bos, rng.choice(pool, spec.length, replace=False), number) for number in range(spec.n)]


def _prompt(model: Model, bos: list[int], half: np.ndarray, number: int) -> Prompt:
    ids = [*bos, *map(int, half), *map(int, half)]
    encoded = model.tokens.describe(ids)
    second = len(bos) + len(half)
    return Prompt(
        text="".join(encoded.token),
        encoded=encoded,
        words=Words(tuple(range(len(ids))), encoded.token, ("every token",)),
        correct={at: ids[at + 1] for at in range(second, len(ids) - 1)},
        cluster=f"sequence {number}",
        role=(*["BOS"] * len(bos), *["earlier copy"] * len(half), *["repeat"] * len(half)),
    )
