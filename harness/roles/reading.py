"""One text of a batch as the heads of a stack read it."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from harness.attention.capture import PREFIX
from harness.models import Model
from harness.prompts import Prompts
from harness.roles.seen import Seen


def read(
    batch: Prompts, row: int, found: Mapping[str, np.ndarray], stack: str, model: Model
) -> tuple[Float[np.ndarray, "head query key"], Seen]:
    """The patterns of a stack's heads in one text, layer after layer and padding off, and what they could see."""
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
