"""Time a patching map of the residual stream beside a loop of whole forwards, one for each layer and position.

The loop is TransformerLens's (`generic_activation_patch` with the stream before each block): batches of prompts are run
clean and corrupted, then once for each cell with the corrupted stream put in. Both sides alternate in one process.
"""

import statistics
import time
from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.ablation import targets_of
from harness.config import BenchmarkSpec, RequestError
from harness.hooks import Site
from harness.interactive.compute import ablate_heads
from harness.metrics import METRICS
from harness.models import Model, load_model
from harness.prompts import Prompts, batches, check_prompts, load_prompts
from harness.prompts.targets import Targets
from harness.results import manifest
from harness.sweep.engine import by_prompt

#: Effects of each cell; NaN where a prompt has no such position.
Map = Float[np.ndarray, "prompt layer position"]


def time_maps(spec: BenchmarkSpec, say: Callable[[str], None]) -> dict[str, Any]:
    """Time both sides in every round, of every `spec.every`-th layer, and return plain values; `say` is called with a
    line for the result.

    Raises `RequestError` for a model that is no decoder, and for prompts without counterfactuals.
    """
    check_prompts(spec.prompts)
    model = load_model(spec.model)
    if model.kind != "decoder":
        raise RequestError("model", model.name, "the loop is that of a decoder; benchmark one of those")
    prompts, layers = load_prompts(spec.prompts, model), range(0, model.shape.n_layers, spec.every)
    sides = {"TransformerLens loop": lens_map, "sweep": swept_map}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    made: dict[str, Map] = {}
    for _ in range(spec.rounds):
        for name, side in sides.items():
            began = time.perf_counter()
            made[name] = side(model, prompts, layers, spec.metric)
            seconds[name].append(time.perf_counter() - began)
    loop, own = seconds.values()
    ratio = [one / other for one, other in zip(loop, own, strict=True)]
    off = float(np.nanmax(np.abs(made["sweep"] - made["TransformerLens loop"])))
    n_cells = int(np.isfinite(made["sweep"]).sum())
    say(
        f"resid × position of {len(prompts)} prompts, {len(layers)} layers, {n_cells} cells: loop "
        f"{statistics.median(loop):.1f} s, sweep {statistics.median(own):.1f} s, {statistics.median(ratio):.2f}× "
        f"({min(ratio):.2f}–{max(ratio):.2f}), off {off:.1e}"
    )
    timed = {"seconds": seconds, "ratio": ratio, "largest_error": off, "cells": n_cells}
    return {"model": model.name, "prompts": len(prompts), "layers": list(layers), **timed, **manifest.environment()}


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
    clean = _measured(targets, metric, model.forward(inputs))
    effects = np.empty((len(batch), len(layers), batch.token_id.shape[1]))
    for row, name in enumerate(names.values()):
        for position in range(effects.shape[2]):
            with model.bridge.hooks(fwd_hooks=[(name, _putting(streams[name], position))]):
                effect = _measured(targets, metric, model.forward(inputs)) - clean
            effects[:, row, position] = effect.cpu().numpy()
    return effects


def _putting(corrupted: Tensor, position: int) -> Callable[..., Tensor]:
    """Return a hook that puts the corrupted stream in at a position."""

    def put(stream: Float[Tensor, "row position d_model"], hook: Any) -> Tensor:
        patched = stream.clone()
        patched[:, position] = corrupted[:, position]
        return patched

    return put


def _measured(targets: Targets, metric: str, logits: Tensor) -> Float[Tensor, " prompt"]:
    read = targets.read(slice(None), logits[targets.row, targets.position], None)
    return by_prompt(targets, [METRICS[metric]], METRICS[metric].compute(read)[None, None])[0, 0]
