"""Attention scores: what the softmax is taken of. Some of TransformerLens's bridges do not give it at its own hook
point, so it is put together there from what they give."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.hooks import Site
from harness.models import Model

Scores = Float[Tensor, "row head query key"]


def before_softmax(model: Model, site: Site) -> tuple[list[str], Callable[..., Scores]]:
    """The hook points from whose tensors, in this order, the function makes the scores: −∞ where a key may not be
    looked at by a decoder; what padding gets is nobody's business.

    A decoder gives them as they are. BERT's hook point holds the pattern, T5's something that is neither: their scores
    are made of q and k. BERT's are q·k / √d_head. T5 does not scale, and adds a bias by distance.
    """
    if model.kind == "decoder":
        return [hooks.hook_name("scores", site)], _unmasked
    made = (lambda q, k: _biased(model.bridge, site, _products(q, k))) if site.stack else _scaled
    return [hooks.hook_name("q", site), hooks.hook_name("k", site)], made


def _unmasked(raw: Scores) -> Scores:
    """What masks with the smallest number there is means −∞."""
    return raw.masked_fill(raw <= torch.finfo(raw.dtype).min / 2, -torch.inf)


def _products(q: Float[Tensor, "row query head d_head"], k: Float[Tensor, "row key head d_head"]) -> Scores:
    return torch.einsum("rqhd,rkhd->rhqk", q, k)


def _scaled(q: Float[Tensor, "row query head d_head"], k: Float[Tensor, "row key head d_head"]) -> Scores:
    return _products(q, k) / q.shape[-1] ** 0.5


def _biased(bridge: Any, site: Site, raw: Scores) -> Scores:
    scores = raw + hooks.distance_bias(bridge, site, *raw.shape[-2:]) if site.stack != "cross" else raw
    if site.stack != "decoder":
        return scores
    ahead = torch.ones(raw.shape[-2:], dtype=torch.bool, device=raw.device).triu(1)
    return scores.masked_fill(ahead, -torch.inf)
