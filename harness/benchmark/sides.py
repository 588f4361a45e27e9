"""Ways to find what ablating each head does to a metric: two loops of whole forwards, and the sweep by each method.

The loops are what a careful notebook does: batches of up to 64 prompts and 1,024 padded tokens, for each a clean
forward, then a whole forward for each head, logits of every position, and the metric from them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from math import inf
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from harness import hooks
from harness.hooks import Head, Site
from harness.metrics import METRICS
from harness.models import Inputs, Model, load
from harness.prompts import Prompts, batches
from harness.prompts.targets import Targets
from harness.sweep import ablate_heads

#: Effects [prompt, head]; NaN for heads that a side did not measure.
Effects = np.ndarray


@dataclass(frozen=True)
class SweepTask:
    """What all sides do: heads ablated on prompts, by a metric."""

    model: Model
    prompts: Prompts
    metric: str
    heads: tuple[Head, ...]
    positions: str
    memory: float | None = None

    @property
    def tokens(self) -> int:
        return int(self.prompts.length.sum())

    @property
    def n_heads(self) -> int:
        return len(self.heads)

    @cached_property
    def plain(self) -> Any:
        """The same weights as a Hugging Face model that TransformerLens never saw, with torch's own attention."""
        model = load.plain_model(self.model.spec)
        model.set_attn_implementation("sdpa")
        return model


Side = Callable[[SweepTask], Effects]


def by_name(methods: tuple[str, ...]) -> dict[str, Side]:
    """The loops and the methods asked for, by name; the first is what the others are held against."""
    loops: dict[str, Side] = {"TransformerLens loop": lens_loop, "Hugging Face loop": plain_loop}
    return loops | {f"sweep, {method}": partial(sweep, method=method) for method in methods}


# --- the sweep --------------------------------------------------------------------------------------------------


def sweep(work: SweepTask, method: str = "exact") -> Effects:
    """The harness; of a screen the estimates where nothing else is known."""
    found = swept(work, method)
    effect = found["effect"] if "estimate" not in found else found["effect"].fillna(found["estimate"])
    by_head = effect.sel(metric=work.metric).values
    return np.stack([by_head[:, head.layer, head.head] for head in work.heads], axis=1)


def swept(work: SweepTask, method: str) -> xr.Dataset:
    """What the harness measures where it is asked for no more than the loops give: no direct effects."""
    return ablate_heads(
        work.model,
        work.prompts,
        ablation={"name": "zero", "positions": work.positions},
        metrics=[work.metric],
        heads=list(work.heads),
        method=method,
        direct=False,
        memory=work.memory,
    )


# --- the loops --------------------------------------------------------------------------------------------------

#: A forward to logits [row, position, vocab] with one head's z zeroed, or none's.
Forward = Callable[[Inputs, Head | None, Prompts], Tensor]


def lens_loop(work: SweepTask) -> Effects:
    """Whole hooked TransformerLens forwards."""

    def forward(given: Inputs, head: Head | None, batch: Prompts) -> Tensor:
        if head is None:
            return work.model.forward(given)
        zeroed = _zeroing(work, batch)
        hook = (hooks.hook_name("z", head.site), lambda z, hook: zeroed(z, head.head))
        with work.model.bridge.hooks(fwd_hooks=[hook]):
            return work.model.forward(given)

    return _looped(work, forward)


def plain_loop(work: SweepTask) -> Effects:
    """Whole Hugging Face forwards with torch's own attention, z zeroed by a torch hook where W_O reads it."""
    written = {site: _same_weights(work, site) for site in {head.site for head in work.heads}}

    def forward(given: Inputs, head: Head | None, batch: Prompts) -> Tensor:
        asked = {"input_ids": given.token_id, "attention_mask": given.mask, "use_cache": False}
        if head is None:
            return work.plain(**asked).logits
        zeroed = _zeroing(work, batch)
        with _reading(written[head.site], lambda z: zeroed(z, head.head), work.model.shape.n_heads):
            return work.plain(**asked).logits

    return _looped(work, forward)


@torch.no_grad()
def _looped(work: SweepTask, forward: Forward) -> Effects:
    found = np.empty((len(work.prompts), work.n_heads))
    for numbers in batches(work.prompts, at_most=64, padding=inf):
        batch = work.prompts.take(numbers)
        given = batch.inputs(work.model.device)
        targets = Targets.of(batch, np.arange(len(batch)), work.model.device)
        clean = _measured(work, targets, forward(given, None, batch))
        for at, head in enumerate(work.heads):
            found[numbers, at] = (_measured(work, targets, forward(given, head, batch)) - clean).cpu().numpy()
    return found


def _zeroing(work: SweepTask, batch: Prompts) -> Callable[[Tensor, int], Tensor]:
    """Zeroes a head of z [row, position, head, d_head], everywhere or at each prompt's last position."""
    rows, last = torch.arange(len(batch)), torch.as_tensor(batch.length - 1)

    def zeroed(z: Tensor, head: int) -> Tensor:
        edited = z.clone()
        if work.positions == "all":
            edited[:, :, head] = 0
        else:
            edited[rows, last, head] = 0
        return edited

    return zeroed


def _same_weights(work: SweepTask, site: Site) -> Any:
    """The plain model's W_O of a layer: the module with the weights of the hooked model's."""
    weight = hooks.output_projection(work.model.bridge, site).weight
    for module in work.plain.modules():
        own = getattr(module, "weight", None)
        if own is not None and own.shape == weight.shape and torch.equal(own, weight):
            return module
    raise RuntimeError(f"{work.model.name}: no module of the plain model has the weights of W_O of {site}")


@contextmanager
def _reading(module: Any, change: Callable[[Tensor], Tensor], n_heads: int) -> Iterator[None]:
    """While this lasts, the module reads a changed z."""
    handle = module.register_forward_pre_hook(lambda _, args: (change(args[0].unflatten(2, (n_heads, -1))).flatten(2),))
    try:
        yield
    finally:
        handle.remove()


def _measured(work: SweepTask, targets: Targets, logits: Tensor) -> Tensor:
    """The metric of each prompt, from the logits of all positions."""
    read = targets.read(slice(None), logits[targets.row, targets.position], None)
    return targets.mean_by_prompt(METRICS[work.metric].compute(read)[None])[0]
