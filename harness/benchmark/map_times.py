"""Time a patching map of the residual stream beside a loop of whole forwards, one for each layer and position.

The loop is TransformerLens's (`generic_activation_patch` with the stream before each block): batches of prompts are run
clean and corrupted, then once for each cell with the corrupted stream put in. Both sides alternate in one process.
"""

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.ablation import targets_of
from harness.benchmark.alternate import alternate, load, measured
from harness.config import BenchmarkSpec
from harness.hooks import Site
from harness.interactive.compute import ablate_heads
from harness.models import Model
from harness.prompts import Prompts, batches

#: Effects of each cell; NaN where a prompt has no such position.
Map = Float[np.ndarray, "prompt layer position"]


def time_maps(spec: BenchmarkSpec, say: Callable[[str], None]) -> dict[str, Any]:
    """Time both sides in every round, of every `spec.every`-th layer, and return plain values; `say` is called with a
    line for the result.

    Raises `RequestError` for a model that is no decoder, and for prompts without counterfactuals.
    """
    model, prompts = load(spec)
    layers = range(0, model.shape.n_layers, spec.every)
    sides = {"TransformerLens loop": lens_map, "sweep": swept_map}
    timed = alternate(
        spec.rounds, {name: partial(side, model, prompts, layers, spec.metric) for name, side in sides.items()}
    )
    say(f"resid × position of {len(prompts)} prompts, {len(layers)} layers, {timed.count} cells: {timed.line()}")
    return timed.values(model, prompts, layers=list(layers), cells=timed.count)


def swept_map(model: Model, prompts: Prompts, layers: range, metric: str) -> Map:
    """Return the map of a sweep."""
    heads = [f"L{layer}" for layer in layers]
    got = ablate_heads(model, prompts, "patch", [metric], heads, kind="resid", positions="each").data
    return got["resid_effect"].sel(metric=metric, depth=list(layers)).values


@torch.no_grad()
def lens_map(model: Model, prompts: Prompts, layers: range, metric: str) -> Map:
    """Return the map of a loop of whole TransformerLens forwards."""
    effects = np.full((len(prompts), len(layers), prompts.token_id.shape[1]), np.nan)
    for numbers in batches(prompts, at_most=64, padding=inf):
        batch = prompts.take(numbers)
        effects[numbers, :, : batch.token_id.shape[1]] = _looped(model, batch, layers, metric)
    return np.where((prompts.token_id >= 0)[:, None], effects, np.nan)


def _looped(model: Model, batch: Prompts, layers: range, metric: str) -> Map:
    """Run a batch clean, corrupted, and once for each cell; the effects in padding mean nothing."""
    inputs, targets = batch.inputs(model.device), targets_of(model, batch)
    names = {layer: hooks.stream_hooks(Site(layer), post_norm=False)[0] for layer in layers}
    streams: dict[str, Tensor] = {}

    def keep(stream: Float[Tensor, "row position d_model"], hook: Any) -> None:
        streams[hook.name] = stream.clone()

    with model.bridge.hooks(fwd_hooks=[(name, keep) for name in names.values()]):
        model.forward(batch.swapped().inputs(model.device))
    clean = measured(targets, metric, model.forward(inputs))
    effects = np.empty((len(batch), len(layers), batch.token_id.shape[1]))
    for row, name in enumerate(names.values()):
        for position in range(effects.shape[2]):
            with model.bridge.hooks(fwd_hooks=[(name, _putting(streams[name], position))]):
                effect = measured(targets, metric, model.forward(inputs)) - clean
            effects[:, row, position] = effect.cpu().numpy()
    return effects


def _putting(corrupted: Tensor, position: int) -> Callable[..., Tensor]:
    """Return a hook that puts the corrupted stream in at a position."""

    def put(stream: Float[Tensor, "row position d_model"], hook: Any) -> Tensor:
        patched = stream.clone()
        patched[:, position] = corrupted[:, position]
        return patched

    return put
