"""Ways to measure the effect of ablating each head: two loops of whole forwards, and the sweep by each method.

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
from harness.ablation import model_rows, targets_of
from harness.hooks import Head, Site
from harness.interactive.compute import ablate_heads
from harness.metrics import METRICS
from harness.models import Inputs, Model, load
from harness.prompts import Prompts, batches
from harness.prompts.batching import first_scored
from harness.prompts.targets import Targets
from harness.sweep.engine import by_prompt

#: Effects [prompt, head]; NaN for heads that a side did not measure.
Effects = np.ndarray


@dataclass(frozen=True)
class SweepTask:
    """The task of all sides: heads to ablate, prompts, a metric."""

    model: Model
    prompts: Prompts
    metric: str
    heads: tuple[Head, ...]
    positions: str
    memory: float | None = None

    @property
    def tokens(self) -> int:
        """The tokens that must run: of items of a choice, a context once for all of its completions."""
        rows, _ = self.prompts.by_choice()
        return int(rows.length.sum() - first_scored(self.prompts) @ (self.prompts.n_rows - 1))

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
    """Return the loops and the sweeps by these methods, by name; the first is the reference of the others."""
    loops: dict[str, Side] = {"TransformerLens loop": lens_loop, "Hugging Face loop": plain_loop}
    return loops | {f"sweep, {method}": partial(sweep, method=method) for method in methods}


# --- the sweep --------------------------------------------------------------------------------------------------


def sweep(work: SweepTask, method: str = "exact") -> Effects:
    """Sweep with the harness; of ``screen``, the estimates where nothing was measured exactly."""
    arrays = swept(work, method)
    effect = arrays["effect"] if "estimate" not in arrays else arrays["effect"].fillna(arrays["estimate"])
    by_head = effect.sel(metric=work.metric).values
    return np.stack([by_head[:, head.layer, head.head] for head in work.heads], axis=1)


def swept(work: SweepTask, method: str) -> xr.Dataset:
    """Sweep with the harness, without the direct effects that the loops do not measure."""
    return ablate_heads(
        work.model,
        work.prompts,
        ablation={"name": "zero", "positions": work.positions},
        metrics=[work.metric],
        heads=list(work.heads),
        method=method,
        direct=False,
        memory=work.memory,
    ).data


# --- the loops --------------------------------------------------------------------------------------------------

#: A forward to logits [row, position, vocab] with one head's z zeroed, or none.
Forward = Callable[[Inputs, Head | None, Prompts], Tensor]


def lens_loop(work: SweepTask) -> Effects:
    """Measure effects by whole hooked TransformerLens forwards."""

    def forward(inputs: Inputs, head: Head | None, batch: Prompts) -> Tensor:
        if head is None:
            return work.model.forward(inputs)
        zeroed = _zeroing(work, batch)
        hook = (hooks.hook_name("z", head.site), lambda z, hook: zeroed(z, head.head))
        with work.model.bridge.hooks(fwd_hooks=[hook]):
            return work.model.forward(inputs)

    return _looped(work, forward)


def plain_loop(work: SweepTask) -> Effects:
    """Measure effects by whole Hugging Face forwards with torch's own attention, z zeroed by a torch hook at W_O."""
    written = {site: _same_weights(work, site) for site in {head.site for head in work.heads}}

    def forward(inputs: Inputs, head: Head | None, batch: Prompts) -> Tensor:
        arguments = {"input_ids": inputs.token_id, "attention_mask": inputs.mask, "use_cache": False}
        if head is None:
            return work.plain(**arguments).logits
        zeroed = _zeroing(work, batch)
        with _reading(written[head.site], lambda z: zeroed(z, head.head), work.model.shape.n_heads):
            return work.plain(**arguments).logits

    return _looped(work, forward)


@torch.no_grad()
def _looped(work: SweepTask, forward: Forward) -> Effects:
    effects = np.empty((len(work.prompts), work.n_heads))
    for numbers in batches(work.prompts, at_most=64, padding=inf):
        batch = work.prompts.take(numbers)
        rows, _ = model_rows(work.model, batch)
        inputs, targets = rows.inputs(work.model.device), targets_of(work.model, batch)
        clean = _measured(work, targets, forward(inputs, None, rows))
        for at, head in enumerate(work.heads):
            effects[numbers, at] = (_measured(work, targets, forward(inputs, head, rows)) - clean).cpu().numpy()
    return effects


def _zeroing(work: SweepTask, batch: Prompts) -> Callable[[Tensor, int], Tensor]:
    """Return a function that zeroes a head of z [row, position, head, d_head], at all or the last positions."""
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
    """Return the plain model's W_O of a layer: the module with the hooked model's weights."""
    weight = hooks.output_projection(work.model.bridge, site).weight
    for module in work.plain.modules():
        own = getattr(module, "weight", None)
        if own is not None and own.shape == weight.shape and torch.equal(own, weight):
            return module
    raise RuntimeError(f"{work.model.name}: no module of the plain model has the weights of W_O of {site}")


@contextmanager
def _reading(module: Any, change: Callable[[Tensor], Tensor], n_heads: int) -> Iterator[None]:
    """Change the z that a module reads inside the context."""
    handle = module.register_forward_pre_hook(lambda _, args: (change(args[0].unflatten(2, (n_heads, -1))).flatten(2),))
    try:
        yield
    finally:
        handle.remove()


def _measured(work: SweepTask, targets: Targets, logits: Tensor) -> Tensor:
    """Return the metric of each prompt from the logits of all positions."""
    read = targets.read(slice(None), logits[targets.row, targets.position], None)
    metric = METRICS[work.metric]
    return by_prompt(targets, [metric], metric.compute(read)[None, None])[0, 0]
