"""Replace z: an intervention is a value, and takes effect only inside `applied` (or `editing`).

``Intervention((Head(5, 1),))``, zero-ablation, is a value. The model is restored afterwards, also after an error. Every
application is verified at W_O: the output projection must receive what was intended, bit for bit, at edited and
unedited positions. Contexts nest: the inner one edits the z that the outer one made.
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
from harness.hooks import Part, Site
from harness.hooks.block_stream import watch_mlp_output, watch_stream
from harness.models import Model, Shape

Z = Float[Tensor, "row position head d_head"]

#: From a head's z [row, position, d_head], with earlier layers already edited, to its replacement. An MLP's output, and
#: the residual stream, is treated as the z of one head.
Baseline = Callable[[Float[Tensor, "row position d_head"], Part], Float[Tensor, "row position d_head"]]


class InterventionFailed(RuntimeError):
    """An intervention that did not fire, or whose z did not reach W_O as intended. The run's numbers are invalid."""


def zeros(z: Float[Tensor, "row position d_head"], head: Part) -> Float[Tensor, "row position d_head"]:
    """Return zeros: the baseline of zero-ablation."""
    return torch.zeros_like(z)


def multiply(
    z: Float[Tensor, "row position d_head"], head: Part, factor: float
) -> Float[Tensor, "row position d_head"]:
    """Return z times a factor: with the factor bound, the baseline of scaling."""
    return factor * z


@dataclass(frozen=True)
class Intervention:
    """Heads (or MLPs, or residual streams) whose z is replaced by the baseline together, at all positions or at these
    of each prompt."""

    heads: tuple[Part, ...]
    baseline: Baseline = zeros
    positions: Places | None = None

    def first_block(self, shape: Shape) -> int:
        """Return the first block that the intervention changes."""
        return min(shape.block(head.site) for head in self.heads)

    def edits(self, rows: slice) -> Iterator["Edit"]:
        """Yield the edits of these rows."""
        return (Edit(rows, head, self.baseline, self.positions) for head in self.heads)


class Edit(NamedTuple):
    """A replacement of one head's z in some rows, at all positions or at each row's own."""

    rows: slice
    head: Part
    baseline: Baseline
    positions: Places | None

    def make(self, before: Z, edited: Z) -> None:
        """Write the replacement, made from `before`, into `edited`."""
        old = before[self.rows, :, self.head.head]
        new = self.baseline(old, self.head).expand_as(old)
        if self.positions is None:
            edited[self.rows, :, self.head.head] = new
            return
        row = [number for number, places in enumerate(self.positions) for _ in places]
        position = [place for places in self.positions for place in places]
        edited[self.rows][row, position, self.head.head] = new[row, position].to(edited.dtype)


@dataclass(repr=False)
class Check:
    """Count of edits of z that reached W_O as intended, and the errors of plain forwards where they were compared.

    `pending` holds, by site, what W_O must receive next; `name` is what is ablated, where a context does it.
    """

    name: str = ""
    fired: int = 0
    spot_checks: list[float] = field(default_factory=list)
    pending: dict[Site, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Name what is ablated and how many edits were verified: a stage's list of errors may be long."""
        compared = f", {len(self.spot_checks)} compared with plain forwards" if self.spot_checks else ""
        return f"Check({self.name + ': ' if self.name else ''}{self.fired} edits verified at W_O{compared})"

    def expect(self, site: Site, z: Z) -> None:
        self.pending[site] = z.detach().flatten(2).clone()  # a copy: later modules may change it in place

    def pass_on(self, site: Site, received: Z, edited: Z) -> None:
        """Let an inner context edit z again: it must have received what was intended, and W_O what it made of that."""
        if site in self.pending:
            self._compare(site, received.flatten(2), self.pending[site], "an inner ablation")
            self.expect(site, edited)

    def meet(self, site: Site, received: Tensor, n: int) -> None:
        """Compare W_O's input with the intended one for `n` interventions. Raises `InterventionFailed`."""
        intended = self.pending.pop(site, None)
        if intended is None:
            raise InterventionFailed(f"{site}: W_O ran but hook_z did not fire, so no head was ablated")
        if site.part == "mlp":
            received = received.view(intended.shape)  # OPT's MLP joins rows and positions to one axis
        self._compare(site, received, intended, "W_O" if site.part == "attention" else "the stream")
        self.fired += n

    def _compare(self, site: Site, received: Tensor, intended: Tensor, reader: str) -> None:
        if not torch.equal(received, intended):
            off = float((received - intended).abs().max()) if received.shape == intended.shape else float("inf")
            raise InterventionFailed(f"{site}: {reader} received a z that is off the intended one by up to {off:.3g}")


@contextmanager
def editing(model: Model, edits: Mapping[Site, Sequence[Edit]], check: Check) -> Iterator[None]:
    """Replace z by site inside the context, and verify at W_O that it was replaced."""
    with hooking(model, edits, check):
        yield
    if check.pending:
        raise InterventionFailed(f"{', '.join(map(str, check.pending))}: hook_z fired but W_O never ran")


@contextmanager
def hooking(model: Model, edits: Mapping[Site, Sequence[Edit]], check: Check) -> Iterator[None]:
    """Hook the edits of `editing`, without its verification at the end that W_O ran in every forward."""
    with ExitStack() as stack:
        stack.enter_context(model.bridge.lock)  # or the edits would reach what another thread runs
        outer = tuple(model.bridge.in_force)
        watches = []
        for site, todo in edits.items():
            edited = partial(_edited, site=site, edits=todo, check=check, outer=outer)
            handles, here = _WAYS[site.part](model, site, edited, check, len(todo))
            for handle in handles:
                stack.callback(handle.remove)
            watches += here
        stack.enter_context(model.bridge.hooks(fwd_hooks=watches))  # all at once: each call goes through every module
        model.bridge.in_force.append(check)
        stack.callback(model.bridge.in_force.pop)
        yield


def by_site(edits: Iterable[Edit]) -> dict[Site, list[Edit]]:
    """Group edits by attention."""
    grouped: dict[Site, list[Edit]] = {}
    for edit in edits:
        grouped.setdefault(edit.head.site, []).append(edit)
    return grouped


def _edited(z: Z, site: Site, edits: Sequence[Edit], check: Check, outer: Sequence[Check]) -> Z:
    edited = z.clone()
    for edit in edits:
        edit.make(z, edited)
    for before in outer:
        before.pass_on(site, z, edited)
    check.expect(site, edited)
    return edited


#: Handles of torch hooks, and names of hook points with the function to call there.
Hooked = tuple[list[Any], list[tuple[str, Callable[..., Any]]]]


def _z_edited(model: Model, site: Site, edited: Callable[[Z], Z], check: Check, n: int) -> Hooked:
    """Edit at TransformerLens's hook point, verify below it with a plain torch hook on the output projection."""
    projection = hooks.output_projection(model.bridge, site)
    handle = projection.register_forward_pre_hook(lambda _, args: check.meet(site, args[0], n))
    return [handle], [(hooks.hook_name("z", site), lambda z, hook: edited(z))]


def _mlp_edited(model: Model, site: Site, edited: Callable[[Z], Z], check: Check, n: int) -> Hooked:
    """Edit with a plain torch hook, verify at TransformerLens's hook point after it."""
    block, last = hooks.blocks(model.bridge)[model.shape.block(site)], hooks.mlp_output(model.bridge, site)
    handles = watch_mlp_output(block, last, lambda out: edited(out.unsqueeze(2)).squeeze(2))
    return handles, [(hooks.mlp_hook_name(site), lambda out, hook: check.meet(site, out, n))]


def _resid_edited(model: Model, site: Site, edited: Callable[[Z], Z], check: Check, n: int) -> Hooked:
    """Edit what a block receives, and verify it in the torch module that the bridge wraps; of the stream that leaves a
    stack the other way round."""
    block, leaves = hooks.blocks(model.bridge)[model.shape.block(site)], model.shape.leaves(site)
    edit, read = (block.original_component, block) if leaves else (block, block.original_component)
    return [
        watch_stream(edit, leaves, lambda stream: edited(stream.unsqueeze(2)).squeeze(2)),
        watch_stream(read, leaves, lambda stream: check.meet(site, stream, n)),
    ], []


_WAYS = {"attention": _z_edited, "mlp": _mlp_edited, "resid": _resid_edited}


@contextmanager
def applied(model: Model, intervention: Intervention) -> Iterator[Check]:
    """Run every forward inside the context with the intervention, one forward per intervention.

    `harness.sweep` applies many interventions in one forward.
    """
    check = Check()
    with editing(model, by_site(intervention.edits(slice(None))), check):
        yield check
