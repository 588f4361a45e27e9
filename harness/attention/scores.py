"""Attention scores [row, head, query, key]: the input of the softmax over keys."""

import torch
from jaxtyping import Float
from torch import Tensor

Scores = Float[Tensor, "row head query key"]


def masked_to_infinity(raw: Float[Tensor, "row head query column"], n_keys: int, precision: torch.dtype) -> Scores:
    """Return the scores with −∞ at masked keys, without the last column of a learnt sink.

    Models mask with the smallest number of their `precision` (scores may have a higher one: GPT-J's), or half of it, or
    divide it by √d_head with the products (Falcon's).
    """
    scores = raw[..., :n_keys]
    return scores.masked_fill(scores <= torch.finfo(precision).min / 32, -torch.inf)
