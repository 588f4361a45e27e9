"""Time measured edges beside TransformerLens's own loop of direct-path patching (`get_act_patch_direct_path`).

Edges lead from the first head of some layers into the query of every later head: the input that TransformerLens reaches
where heads share keys and values. It runs one whole forward for each edge, on the clean prompts with the sender's
corrupted write added; MLPs and heads between keep their clean outputs, as with `edges.mlps=frozen`. It is given large
batches, so that it runs few forwards.
"""

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from transformer_lens.patching import get_act_patch_direct_path

from harness.ablation import targets_of
from harness.benchmark.alternate import alternate, load, measured
from harness.config import BenchmarkSpec
from harness.hooks import Head
from harness.interactive.compute import ablate_heads
from harness.models import Model
from harness.prompts import Prompts, batches

#: Mean effect of each edge; NaN where the receiver is not later than the sender.
Means = Float[np.ndarray, "sender layer head"]


def time_edges(spec: BenchmarkSpec, say: Callable[[str], None]) -> dict[str, Any]:
    """Time both sides in every round, with the first head of every `spec.every`-th layer, counted from the last that
    has a later one, as senders, and return plain values; `say` is called with a line for the result.

    Raises `RequestError` for a model that is no decoder, and for prompts without counterfactuals.
    """
    model, prompts = load(spec)
    senders = [Head(layer, 0) for layer in range(model.shape.n_layers - 2, -1, -spec.every)][::-1]
    sides = {"TransformerLens loop": looped_edges, "sweep": swept_edges}
    timed = alternate(
        spec.rounds, {name: partial(side, model, prompts, senders, spec.metric) for name, side in sides.items()}
    )
    say(f"{timed.count} edges into queries, {len(prompts)} prompts: {timed.line()}")
    return timed.values(model, prompts, senders=list(map(str, senders)), edges=timed.count)


def swept_edges(model: Model, prompts: Prompts, senders: list[Head], metric: str) -> Means:
    """Return the edges of a sweep that measures them all."""
    n_layers, n_heads = model.shape.n_layers, model.shape.n_heads
    keys = {"into": ["q"], "top_k": len(senders) * n_layers * n_heads}
    swept = ablate_heads(model, prompts, "patch", [metric], senders, kind="edges", edges=keys).data
    means = np.full((len(senders), n_layers, n_heads), np.nan)
    number = {str(sender): at for at, sender in enumerate(senders)}
    effect = swept["edge_effect"].sel(metric=metric).mean("prompt")
    for sender, receiver, mean in zip(*(effect[name].values for name in ("sender", "receiver")), effect, strict=True):
        at = Head.parse(str(receiver))
        means[number[str(sender)], at.layer, at.head] = mean
    return means


@torch.no_grad()
def looped_edges(model: Model, prompts: Prompts, senders: list[Head], metric: str) -> Means:
    """Return the edges of TransformerLens's loop."""
    means = np.zeros((len(senders), model.shape.n_layers, model.shape.n_heads))
    for numbers in batches(prompts, at_most=64, padding=inf):
        means += _of_batch(model, prompts.take(numbers), senders, metric) * len(numbers) / len(prompts)
    for mean, sender in zip(means, senders, strict=True):
        mean[: sender.layer + 1] = np.nan
    return means


def _of_batch(model: Model, batch: Prompts, senders: list[Head], metric: str) -> Means:
    """Return the mean effects in a batch."""
    bridge: Any = model.bridge
    targets = targets_of(model, batch)
    tokens, corrupted = (each.inputs(model.device).token_id for each in (batch, batch.swapped()))
    kept = [f"blocks.{sender.layer}.attn.hook_z" for sender in senders]
    _, donor = bridge.run_with_cache(corrupted, names_filter=kept)
    logits, own = bridge.run_with_cache(tokens, names_filter=kept)
    clean = measured(targets, metric, logits).mean().item()
    effects = []
    for sender in senders:
        patched = get_act_patch_direct_path(
            bridge,
            tokens,
            donor,
            own,
            lambda logits: measured(targets, metric, logits).mean(),
            src_layer=sender.layer,
            src_head=sender.head,
            verbose=False,
        )
        effects.append(patched.cpu().numpy() - clean)
    return np.stack(effects)
