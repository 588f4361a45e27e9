"""Capture z of clean forwards at W_O's input, and what is ablated like it; the hooks are removed afterwards.

q, k, v and patterns are those of their hook points, with an entry for each query head.
"""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.ablation.edits import Baseline
from harness.hooks import Part, Site
from harness.hooks.block_stream import watch_mlp_output, watch_stream
from harness.hooks.forward import StopForward, run_until_stop
from harness.models import Inputs, Model

#: z by site.
Captured = dict[Site, Float[Tensor, "row position head d_head"]]


@torch.no_grad()
def capture(model: Model, inputs: Inputs, sites: Iterable[Site]) -> Captured:
    """Return z (an MLP's output, or the residual stream, as the z of one head) at these sites from one clean forward.

    Of grouped heads k and v are repeated for each query head; a pattern is [row, query, head, key].
    Raises `RuntimeError` if a site did not run.
    """
    wanted, kept = set(sites), Captured()

    def keep(site: Site, tensor: Tensor) -> None:
        kept[site] = _by_head(model, site, tensor.clone())
        if kept.keys() == wanted:
            raise StopForward

    at_points = [site for site in wanted if site.part in hooks.INPUTS]
    watches = [(_point(site), lambda value, hook, site=site: keep(site, value)) for site in at_points]
    watching = model.bridge.hooks(fwd_hooks=watches) if watches else nullcontext()
    with model.bridge.lock, watching:
        handles = [handle for site in wanted - {*at_points} for handle in _watching(model, site, keep)]
        run_until_stop(model.forward, inputs, handles, must_stop=False)
    if silent := wanted - set(kept):
        raise RuntimeError(f"{model.name}: these did not run: {', '.join(map(str, sorted(silent)))}")
    return kept


def _point(site: Site) -> str:
    assert site.part in hooks.INPUTS
    return hooks.hook_name(site.part, site)


def _by_head(model: Model, site: Site, tensor: Tensor) -> Float[Tensor, "row position head d"]:
    """Give an activation an axis of query heads behind its positions."""
    n_heads = model.shape.n_heads
    match site.part:
        case "mlp" | "resid":
            return tensor.unsqueeze(2)
        case "attention":
            return tensor.unflatten(2, (n_heads, -1))
        case "pattern":
            return tensor.transpose(1, 2)
    return tensor.repeat_interleave(n_heads // tensor.shape[2], dim=2)


def _watching(model: Model, site: Site, keep: Callable[[Site, Tensor], None]) -> list[Any]:
    """Hook W_O's input, an MLP's output, or the residual stream between blocks."""
    block, kept = hooks.blocks(model.bridge)[model.shape.block(site)], partial(keep, site)
    match site.part:
        case "resid":
            return [watch_stream(block, model.shape.leaves(site), kept)]
        case "mlp":
            return watch_mlp_output(block, hooks.mlp_output(model.bridge, site), kept)
    projection = hooks.output_projection(model.bridge, site)
    return [projection.register_forward_pre_hook(lambda _, args: kept(args[0]))]


def in_place(captured: Captured) -> Baseline:
    """Return the baseline that replaces each row's z with captured z [row, position, head, d_head]."""

    def put(z: Float[Tensor, "row position d_head"], head: Part) -> Float[Tensor, "row position d_head"]:
        return captured[head.site][:, :, head.head]

    return put
