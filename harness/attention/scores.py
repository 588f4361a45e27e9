"""Attention scores [row, head, query, key]: the input of the softmax over keys."""

import torch
from jaxtyping import Float
from torch import Tensor

Scores = Float[Tensor, "row head query key"]


def masked_to_infinity(raw: Float[Tensor, "row head query column"], n_keys: int) -> Scores:
    """The scores of the keys, −∞ where the mask lets a query read no key (models add or write the smallest number
    their precision has, or half of it). The column of a learnt sink, if there is one, comes last and is left out."""
    scores = raw[..., :n_keys]
    return scores.masked_fill(scores <= torch.finfo(scores.dtype).min / 8, -torch.inf)
