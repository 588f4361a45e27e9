"""Interventions as values: which heads, and what their z becomes.

``zero(Head(5, 1))`` is a value. It does something only inside `applied`, and the model is as it was afterwards, also
when something raises. Every application is verified at W_O: what the output projection receives must be what was
intended, in the ablated slice and everywhere else, bit for bit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.config import RequestError, near
from harness.hooks import Head
from harness.models import Model

Z = Float[Tensor, "row position head d_head"]

#: What a head's z becomes: from the head's clean-so-far z [row, position, d_head] to its replacement.
Baseline = Callable[[Float[Tensor, "row position d_head"], Head], Float[Tensor, "row position d_head"]]


class InterventionFailed(RuntimeError):
    """An intervention did not fire, or W_O did not receive what was intended. No number of such a run counts."""


def zeros(z: Float[Tensor, "row position d_head"], head: Head) -> Float[Tensor, "row position d_head"]:
    """Zero-ablation."""
    return torch.zeros_like(z)


BASELINES: dict[str, Baseline] = {"zero": zeros}


def baseline(name: str | Baseline) -> Baseline:
    """The baseline of this name; a function is its own baseline."""
    if callable(name):
        return name
    if name not in BASELINES:
        raise RequestError("ablation", name, near(name, tuple(BASELINES)))
    return BASELINES[name]


@dataclass(frozen=True)
class Intervention:
    """These heads' z becomes what the baseline says, all together."""

    heads: tuple[Head, ...]
    baseline: Baseline = zeros

    @property
    def first_layer(self) -> int:
        """No layer before this one can change."""
        return min(head.layer for head in self.heads)


def zero(*heads: Head) -> Intervention:
    """The zero-ablation of these heads, together."""
    return Intervention(tuple(heads))


@dataclass
class Check:
    """How many edits of z reached W_O exactly as intended, and how far plain forwards were off where they were tried.

    `pending` holds, by layer, what W_O must receive next.
    """

    fired: int = 0
    spot_checks: list[float] = field(default_factory=list)
    pending: dict[int, Tensor] = field(default_factory=dict)

    def expect(self, layer: int, z: Z) -> None:
        self.pending[layer] = z.flatten(2)

    def meet(self, layer: int, received: Tensor, n: int) -> None:
        """Compare what W_O received with what was intended for `n` interventions."""
        intended = self.pending.pop(layer, None)
        if intended is None:
            raise InterventionFailed(f"layer {layer}: W_O ran but hook_z did not fire, so no head was ablated")
        if not torch.equal(received, intended):
            off = float((received - intended).abs().max()) if received.shape == intended.shape else float("inf")
            raise InterventionFailed(f"layer {layer}: W_O received a z that is off the intended one by up to {off:.3g}")
        self.fired += n


#: Edits of one layer: for some rows, the head whose z is replaced there.
Edit = tuple[slice, Head, Baseline]


@contextmanager
def editing(model: Model, edits: Mapping[int, Sequence[Edit]], check: Check) -> Iterator[None]:
    """Replace z by layer while the context lasts, and verify at W_O that it was replaced."""
    with ExitStack() as stack:
        stack.enter_context(
            model.bridge.hooks(fwd_hooks=[_z_hook(layer, todo, check) for layer, todo in edits.items() if todo])
        )
        for layer, todo in edits.items():
            if todo:
                stack.enter_context(_watching(model, layer, len(todo), check))
        yield
    if check.pending:
        raise InterventionFailed(f"layers {sorted(check.pending)}: hook_z fired but W_O never ran")


def _z_hook(layer: int, edits: Sequence[Edit], check: Check) -> tuple[str, Any]:
    def replace(z: Z, hook: Any) -> Z:
        edited = z.clone()
        for rows, head, value in edits:
            edited[rows, :, head.head] = value(z[rows, :, head.head], head)
        check.expect(layer, edited)
        return edited

    return hooks.hook_name("z", layer), replace


@contextmanager
def _watching(model: Model, layer: int, n: int, check: Check) -> Iterator[None]:
    """A plain torch hook on the output projection itself, below everything that TransformerLens does."""
    projection = hooks.output_projection(model.bridge, layer)
    handle = projection.register_forward_pre_hook(lambda _, args: check.meet(layer, args[0], n))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def applied(model: Model, intervention: Intervention) -> Iterator[Check]:
    """Inside, every forward of the model runs with the intervention; afterwards the model is as it was.

    The plain way to ablate, one forward for each intervention; `harness.sweep` does many at once.
    """
    check, by_layer = Check(), dict[int, list[Edit]]()
    for head in intervention.heads:
        by_layer.setdefault(head.layer, []).append((slice(None), head, intervention.baseline))
    with editing(model, by_layer, check):
        yield check
