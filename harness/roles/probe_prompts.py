"""Probe prompts: random tokens repeated once, so that only the first half predicts the second."""

import numpy as np

from harness.config import RequestError, RolesSpec
from harness.models import Model
from harness.prompts import Prompt, Prompts, pad
from harness.words import Words


def repeats(model: Model, spec: RolesSpec) -> Prompts:
    """Make `spec.n` texts of `length` different random tokens, each repeated once, between the special tokens.

    A decoder's text has one BOS before it, if there is one; an encoder-decoder reads and writes the text. Raises
    `RequestError` where the text is too long for the model.
    """
    rng, (before, after) = np.random.default_rng(spec.seed), _frame(model)
    pool = np.array(sorted(set(range(model.shape.d_vocab)) - model.tokens.special_ids))
    total = len(before) + 2 * spec.length + len(after)
    if total > model.shape.n_ctx or spec.length > len(pool):
        remedy = f"this makes {total} tokens, {model.name} takes {model.shape.n_ctx} and knows {len(pool)}"
        raise RequestError("roles.length", spec.length, remedy)
    halves = [rng.choice(pool, spec.length, replace=False).tolist() for _ in range(spec.n)]
    return pad(
        "repeats", [_prompt(model, [*before, *half, *half, *after], at) for at, half in enumerate(halves)], model
    )


def _frame(model: Model) -> tuple[list[int], list[int]]:
    """Return the special tokens before and after a text."""
    if model.kind == "decoder":
        return ([] if model.tokens.bos_id is None else [model.tokens.bos_id]), []
    framed = model.tokens.encode("a")
    text = [at for at, special in enumerate(framed.special) if not special]
    return list(framed.token_id[: text[0]]), list(framed.token_id[text[-1] + 1 :])


def _prompt(model: Model, ids: list[int], number: int) -> Prompt:
    encoded = model.tokens.describe(ids)
    words = Words(tuple(range(len(ids))), encoded.token, ("every token",))
    read = Prompt("".join(encoded.token), encoded, words, {0: ids[-1]}, f"repeat {number}")
    if model.kind != "encoder_decoder" or model.start_id is None:
        return read
    written = model.tokens.describe([model.start_id, *ids[:-1]])
    own = Words(words.index, written.token, words.ways)
    return Prompt(read.text, written, own, dict(enumerate(ids)), read.cluster, source=encoded, source_words=words)
