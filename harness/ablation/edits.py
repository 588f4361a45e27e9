"""Replacing z: an intervention is a value, and does something only inside `applied` (or `editing`).

``zero(Head(5, 1))`` is a value. The model is afterwards as it was, also when something raises. Every application is
verified at W_O: what the output projection receives must be what was intended, at the edited positions of the ablated
slice and everywhere else, bit for bit.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.ablation.positions import Places
from harness.hooks import Head, Part, Site
from harness.models import Model, Shape

Z = Float[Tensor, "row position head d_head"]

#: What a head's z becomes: from the head's clean-so-far z [row, position, d_head] to its replacement. An MLP's output
#: is treated as the z of one head.
Baseline = Callable[[Float[Tensor, "row position d_head"], Part], Float[Tensor, "row position d_head"]]


class InterventionFailed(RuntimeError):
    """An intervention did not fire, or W_O did not receive what was intended. No number of such a run counts."""


def zeros(z: Float[Tensor, "row position d_head"], head: Part) -> Float[Tensor, "row position d_head"]:
    """Zero-ablation."""
    return torch.zeros_like(z)


@dataclass(frozen=True)
class Intervention:
    """These heads' z (or MLPs' output) becomes what the baseline says, all together; everywhere, or at these positions
    of each prompt."""

    heads: tuple[Part, ...]
    baseline: Baseline = zeros
    positions: Places | None = None

    def first_block(self, shape: Shape) -> int:
        """No block before this one can change."""
        return min(shape.block(head.site) for head in self.heads)

    def edits(self, rows: slice) -> Iterator["Edit"]:
        """What it does to these rows."""
        return (Edit(rows, head, self.baseline, self.positions) for head in self.heads)


def zero(*heads: Head) -> Intervention:
    """The zero-ablation of these heads, together."""
    return Intervention(tuple(heads))


class Edit(NamedTuple):
    """One head's z is replaced in some rows; in each of them everywhere, or at its own positions."""

    rows: slice
    head: Part
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

    `pending` holds, by site, what W_O must receive next.
    """

    fired: int = 0
    spot_checks: list[float] = field(default_factory=list)
    pending: dict[Site, Tensor] = field(default_factory=dict)

    def expect(self, site: Site, z: Z) -> None:
        self.pending[site] = z.flatten(2).clone()  # a copy: what flows on may be changed in place

    def meet(self, site: Site, received: Tensor, n: int) -> None:
        """Compare what W_O received with what was intended for `n` interventions."""
        intended = self.pending.pop(site, None)
        if intended is None:
            raise InterventionFailed(f"{site}: W_O ran but hook_z did not fire, so no head was ablated")
        if not torch.equal(received, intended):
            off = float((received - intended).abs().max()) if received.shape == intended.shape else float("inf")
            raise InterventionFailed(f"{site}: W_O received a z that is off the intended one by up to {off:.3g}")
        self.fired += n


@contextmanager
def editing(model: Model, edits: Mapping[Site, Sequence[Edit]], check: Check) -> Iterator[None]:
    """Replace z by site while the context lasts, and verify at W_O that it was replaced."""
    with ExitStack() as stack:
        stack.enter_context(model.bridge.lock)  # or the edits would reach what another thread runs
        watches = []
        for site, todo in edits.items():
            way = _mlp_edited if site.part == "mlp" else _z_edited
            handle, watch = way(model, site, partial(_edited, site=site, edits=todo, check=check), check, len(todo))
            stack.callback(handle.remove)
            watches.append(watch)
        stack.enter_context(model.bridge.hooks(fwd_hooks=watches))  # all at once: each call goes through every module
        yield
    if check.pending:
        raise InterventionFailed(f"{', '.join(map(str, check.pending))}: hook_z fired but W_O never ran")


def by_site(edits: Iterable[Edit]) -> dict[Site, list[Edit]]:
    """The edits of each attention."""
    found: dict[Site, list[Edit]] = {}
    for edit in edits:
        found.setdefault(edit.head.site, []).append(edit)
    return found


def _edited(z: Z, site: Site, edits: Sequence[Edit], check: Check) -> Z:
    edited = z.clone()
    for edit in edits:
        edit.make(z, edited)
    check.expect(site, edited)
    return edited


#: A torch hook that is set, and a hook point's name with what is to be called there.
Hooked = tuple[Any, tuple[str, Callable[..., Any]]]


def _z_edited(model: Model, site: Site, edited: Callable[[Z], Z], check: Check, n: int) -> Hooked:
    """Edited by TransformerLens, verified below it: by a plain torch hook on the output projection itself."""
    projection = hooks.output_projection(model.bridge, site)
    handle = projection.register_forward_pre_hook(lambda _, args: check.meet(site, args[0], n))
    return handle, (hooks.hook_name("z", site), lambda z, hook: edited(z))


def _mlp_edited(model: Model, site: Site, edited: Callable[[Z], Z], check: Check, n: int) -> Hooked:
    """The other way round: edited by a plain torch hook, verified by TransformerLens's hook point after it."""
    written = hooks.mlp_output(model.bridge, site)
    handle = written.register_forward_hook(lambda _, args, out: edited(out.unsqueeze(2)).squeeze(2))
    return handle, (hooks.mlp_hook_name(site), lambda out, hook: check.meet(site, out, n))


@contextmanager
def applied(model: Model, intervention: Intervention) -> Iterator[Check]:
    """Inside, every forward of the model runs with the intervention; afterwards the model is as it was.

    The plain way to ablate, one forward for each intervention; `harness.sweep` does many at once.
    """
    check = Check()
    with editing(model, by_site(intervention.edits(slice(None))), check):
        yield check
