"""What ablating each head would do, estimated for all heads at once by gradients.

Each head's z has a gate g, from 0 (z as it is) to 1 (z as the ablation would have it): z ↦ z + g (b − z). A metric's
derivative by a head's gate, all gates shut, is attribution patching's estimate of what ablating the head does (Syed et
al. 2023, arXiv:2310.10348). The mean of the derivatives along the way on which all gates open together is integrated
gradients (Sundararajan et al. 2017, arXiv:1703.01365; of activations: Hanna et al. 2024, arXiv:2403.17806). Those of
all heads add up to what ablating all of them does, Σ_h ∫ ∂M/∂g_h dα = M(all ablated) − M(clean).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.ablation import Edit
from harness.hooks import Site
from harness.metrics import Function, metric
from harness.models import Model
from harness.sweep.engine import Clean, Resid, end_of, readouts

#: By attention, for each edit of z.
Edits = Mapping[Site, Sequence[Edit]]


@torch.enable_grad()
def derivatives(
    model: Model, clean: Clean, edits: Edits, metrics: Sequence[str | Function], opened: float
) -> Float[Tensor, "metric prompt site head"]:
    """Each prompt's metrics derived by each head's gate, where the gates of all heads in `edits` are `opened` so far.
    Of `clean` only its rows and targets are run again, and what distances compare with.

    Sites are in the order of `edits`; a head without an edit has no gate, and 0.
    """
    shape = (clean.n_rows, model.shape.n_heads)
    gates = {site: torch.full(shape, opened, device=model.device, requires_grad=True) for site in edits}
    with _gated(model, edits, gates):
        end = end_of(model, clean)
    found = [_by_gate(end, _pull(model, clean, end.detach(), one), list(gates.values())) for one in metrics]
    owner = clean.targets.row.new_zeros(clean.n_rows).scatter(0, clean.targets.row, clean.targets.prompt)
    by_row = torch.stack(found)
    return by_row.new_zeros(len(by_row), clean.targets.n_prompts, *by_row.shape[2:]).index_add_(1, owner, by_row)


def _by_gate(end: Resid, pull: Resid, gates: Sequence[Tensor]) -> Float[Tensor, "row site head"]:
    """A metric's derivative by each gate, from its derivative by the end of the residual stream."""
    found = torch.autograd.grad(end, gates, pull, retain_graph=True, materialize_grads=True)
    return torch.stack(found, dim=1)


def _pull(model: Model, clean: Clean, end: Resid, one: str | Function) -> Resid:
    """The derivative of the prompts' metrics, summed, by the end of the residual stream."""
    leaf, pull = end.requires_grad_(), torch.zeros_like(end)
    share = clean.targets.share
    for at, read in readouts(model, clean, leaf):
        weighed = (metric(one).compute(read) * share[at]).sum()
        if weighed.requires_grad:  # the accuracy is a step: no way leads up to it
            pull += torch.autograd.grad(weighed, leaf)[0]
    return pull


@contextmanager
def _gated(model: Model, edits: Edits, gates: Mapping[Site, Tensor]) -> Iterator[None]:
    """While this lasts, W_O receives z moved towards its replacement as far as the gates are open."""

    def moving(site: Site) -> Any:
        def move(_: Any, args: tuple[Any, ...]) -> tuple[Tensor]:
            z = args[0].unflatten(2, (model.shape.n_heads, -1))
            replaced = z.clone()
            for edit in edits[site]:
                edit.make(z, replaced)
            return ((z + gates[site][:, None, :, None] * (replaced - z)).flatten(2),)

        return move

    handles = [hooks.output_projection(model.bridge, site).register_forward_pre_hook(moving(site)) for site in edits]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
