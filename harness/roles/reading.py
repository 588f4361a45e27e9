"""One text of a batch as the heads of a stack read it."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int

from harness.attention.capture import PREFIX
from harness.models import Model
from harness.prompts import Prompts
from harness.roles.attention_context import Seen


def read_by_mask(
    batch: Prompts, row: int, found: Mapping[str, np.ndarray], stack: str, model: Model
) -> Iterator[tuple[Int[np.ndarray, " layer"], Float[np.ndarray, "head query key"], Seen]]:
    """The layers of a stack that may look at the same keys, their patterns, and what they could see: layers with a
    sliding window apart from those that see all that came before."""
    pattern, seen = read(batch, row, found, stack, model)
    layers = pattern.reshape(model.shape.stacks[stack], -1, *pattern.shape[1:])
    allowed = _allowed(found, row, stack, layers)
    for mask in {each.tobytes(): each for each in allowed}.values():
        which = np.flatnonzero((allowed == mask).all(axis=(1, 2)))
        yield which, layers[which].reshape(-1, *pattern.shape[1:]), replace(seen, allowed=mask)


def _allowed(
    found: Mapping[str, np.ndarray], row: int, stack: str, pattern: Float[np.ndarray, "layer head query key"]
) -> Bool[np.ndarray, "layer query key"]:
    """What the mask of each layer allows; where no softmax of scores is seen, what any of its heads looks at."""
    name = f"{PREFIX[stack]}allowed"
    if name not in found:
        return np.asarray((pattern > 0).any(axis=1))
    n_layers, _, n_queries, n_keys = pattern.shape
    return found[name][row, :n_layers, :n_queries, :n_keys] > 0


def read(
    batch: Prompts, row: int, found: Mapping[str, np.ndarray], stack: str, model: Model
) -> tuple[Float[np.ndarray, "head query key"], Seen]:
    """The patterns of a stack's heads in one text, layer after layer and padding off, and what they see without a
    sliding window."""
    queries = batch.source if stack == "encoder" and batch.source else batch
    keys = batch.source if stack in ("encoder", "cross") and batch.source else batch
    n_queries, n_keys = int(queries.length[row]), int(keys.length[row])
    pattern = found[f"{PREFIX[stack]}pattern"][row, : model.shape.stacks[stack], :, :n_queries, :n_keys]
    causal = stack == "decoder" or model.kind == "decoder"
    allowed = np.ones((n_queries, n_keys), bool)
    seen = Seen(
        token_id=keys.token_id[row, :n_keys],
        special=keys.special[row, :n_keys],
        allowed=np.tril(allowed) if causal else allowed,
        ordinary=~queries.special[row, :n_queries],
        another=stack == "cross",
    )
    if model.traits.learnt_sink:  # which token a head reads where it reads one: roles are about tokens
        pattern = pattern / np.maximum(pattern.sum(axis=-1, keepdims=True), 1e-12)
    return pattern.reshape(-1, n_queries, n_keys), seen
