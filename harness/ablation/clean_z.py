"""Capture z of clean forwards at W_O's input, and what is ablated like it; the hooks are removed afterwards."""

from collections.abc import Callable, Iterable
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

    Raises `RuntimeError` if a site did not run.
    """
    wanted, kept = set(sites), Captured()

    def keep(site: Site, tensor: Tensor) -> None:
        n_heads = model.shape.n_heads if site.part == "attention" else 1
        kept[site] = tensor.clone().unflatten(2, (n_heads, -1))
        if kept.keys() == wanted:
            raise StopForward

    with model.bridge.lock:
        handles = [handle for site in wanted for handle in _watching(model, site, keep)]
        run_until_stop(model.forward, inputs, handles, must_stop=False)
    if silent := wanted - set(kept):
        raise RuntimeError(f"{model.name}: these did not run: {', '.join(map(str, sorted(silent)))}")
    return kept


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
