"""Replacing z: an intervention is a value, and does something only inside `applied` (or `editing`).

``zero(Head(5, 1))`` is a value. The model is afterwards as it was, also when something raises. Every application is
verified at W_O: what the output projection receives must be what was intended, at the edited positions of the ablated
slice and everywhere else, bit for bit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.ablation.positions import Places
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


@dataclass(frozen=True)
class Intervention:
    """These heads' z becomes what the baseline says, all together; everywhere, or at these positions of each prompt."""

    heads: tuple[Head, ...]
    baseline: Baseline = zeros
    positions: Places | None = None

    @property
    def first_layer(self) -> int:
        """No layer before this one can change."""
        return min(head.layer for head in self.heads)

    def edits(self, rows: slice) -> Iterator["Edit"]:
        """What it does to these rows."""
        return (Edit(rows, head, self.baseline, self.positions) for head in self.heads)


def zero(*heads: Head) -> Intervention:
    """The zero-ablation of these heads, together."""
    return Intervention(tuple(heads))


class Edit(NamedTuple):
    """One head's z is replaced in some rows; in each of them everywhere, or at its own positions."""

    rows: slice
    head: Head
    baseline: Baseline
    positions: Places | None

    def make(self, before: Z, edited: Z) -> None:
        """Put the replacement, made from `before`, into `edited`."""
        old = before[self.rows, :, self.head.head]
        new = self.baseline(old, self.head).expand_as(old)
        if self.positions is None:
            edited[self.rows, :, self.head.head] = new
            return
        row = [number for number, places in enumerate(self.positions) for _ in places]
        position = [place for places in self.positions for place in places]
        edited[self.rows][row, position, self.head.head] = new[row, position].to(edited.dtype)


@dataclass
class Check:
    """How many edits of z reached W_O exactly as intended, and how far plain forwards were off where they were tried.

    `pending` holds, by layer, what W_O must receive next.
    """

    fired: int = 0
    spot_checks: list[float] = field(default_factory=list)
    pending: dict[int, Tensor] = field(default_factory=dict)

    def expect(self, layer: int, z: Z) -> None:
        self.pending[layer] = z.flatten(2).clone()  # a copy: what flows on may be changed in place

    def meet(self, layer: int, received: Tensor, n: int) -> None:
        """Compare what W_O received with what was intended for `n` interventions."""
        intended = self.pending.pop(layer, None)
        if intended is None:
            raise InterventionFailed(f"layer {layer}: W_O ran but hook_z did not fire, so no head was ablated")
        if not torch.equal(received, intended):
            off = float((received - intended).abs().max()) if received.shape == intended.shape else float("inf")
            raise InterventionFailed(f"layer {layer}: W_O received a z that is off the intended one by up to {off:.3g}")
        self.fired += n


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
        for edit in edits:
            edit.make(z, edited)
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
    for edit in intervention.edits(slice(None)):
        by_layer.setdefault(edit.head.layer, []).append(edit)
    with editing(model, by_layer, check):
        yield check
