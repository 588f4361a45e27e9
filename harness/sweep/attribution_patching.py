"""Attribution patching: a first-order estimate of what ablating each head does, for all heads at once.

Each head's z has a gate g, from 0 (z as it is) to 1 (z as the ablation would have it): z ↦ z + g (b − z). A metric's
derivative by a head's gate, all gates shut, is attribution patching's estimate of what ablating the head does (Syed et
al. 2023, arXiv:2310.10348). The mean of the derivatives along the path on which all gates open together is integrated
gradients (Sundararajan et al. 2017, arXiv:1703.01365; of activations: Hanna et al. 2024, arXiv:2403.17806). Those of
all heads add up to what ablating all of them does, Σ_h ∫ ∂M/∂g_h dα = M(all ablated) − M(clean). `verify` measures the
largest estimates exactly.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.ablation import Edit, Intervention, Share, applied, by_site, model_rows, positions, together
from harness.ablation.positions import Places
from harness.execute.cost import Trial
from harness.hooks import Part, Site
from harness.metrics import Metric
from harness.models import Model
from harness.prompts import batches
from harness.sweep import engine
from harness.sweep.batch import plain
from harness.sweep.engine import Clean, Resid, end_of, readouts
from harness.sweep.labels import gathered
from harness.sweep.stage import SweepStage

#: The edits of z at each attention.
Edits = Mapping[Site, Sequence[Edit]]


@torch.enable_grad()
def derivatives(
    model: Model, clean: Clean, edits: Edits, metrics: Sequence[Metric], opened: float
) -> Float[Tensor, "metric prompt site head"]:
    """Each prompt's metrics derived by each head's gate, where the gates of all heads in `edits` are `opened` so far.
    Of `clean` only its rows and targets are run again, and what distances compare with.

    Sites are in the order of `edits`; a head without an edit has no gate, and 0.
    """
    shape = (clean.n_rows, model.shape.n_heads)
    gates = {site: torch.full(shape, opened, device=model.device, requires_grad=True) for site in edits}
    with _gated(model, edits, gates):
        end = end_of(model, clean)
    found = [_by_gate(end, _pull(model, clean, end.detach(), metric), list(gates.values())) for metric in metrics]
    owner = clean.targets.row.new_zeros(clean.n_rows).scatter(0, clean.targets.row, clean.targets.prompt)
    by_row = torch.stack(found)
    return by_row.new_zeros(len(by_row), clean.targets.n_prompts, *by_row.shape[2:]).index_add_(1, owner, by_row)


def _by_gate(end: Resid, pull: Resid, gates: Sequence[Tensor]) -> Float[Tensor, "row site head"]:
    """A metric's derivative by each gate, from its derivative by the end of the residual stream."""
    found = torch.autograd.grad(end, gates, pull, retain_graph=True, materialize_grads=True)
    return torch.stack(found, dim=1)


def _pull(model: Model, clean: Clean, end: Resid, metric: Metric) -> Resid:
    """The derivative of the prompts' metrics, summed, by the end of the residual stream."""
    leaf, pull = end.requires_grad_(), torch.zeros_like(end)
    share = clean.targets.share
    for at, read in readouts(model, clean, leaf):
        weighed = (metric.compute(read) * share[at]).sum()
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


#: What a block keeps of one token until the way back: so many times d_model, and so many patterns.
_KEPT_WIDTHS, _KEPT_PATTERNS = 24, 3


@dataclass(frozen=True)
class ScreenStage:
    """Estimate what ablating each head does, and ablate all of them together, which the sum of the estimates is held
    against. One unit is a batch of prompts.

    `sweep` says how; its groups are single heads. `steps` is how many points there are along the way from the clean
    run to all heads ablated, the clean run being the first.
    """

    sweep: SweepStage
    steps: int = 1

    @property
    def name(self) -> str:
        return "screen"

    def cost(self, trial: Trial) -> str:
        return self.as_sweep().cost(trial)

    def as_sweep(self) -> SweepStage:
        """A sweep of as many whole forwards: a way back is about one more."""
        forwards = (2 * self.steps + 1) * self.sweep.ablation.draws
        return replace(self.sweep, kind="set", groups={str(number): self._heads for number in range(forwards)})

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]:
        whole = self.sweep.plan(done)
        cut = batches(self.sweep.prompts, tokens=self._tokens())
        kept = ("groups", "metrics", "ablation", "positions", *self.sweep.ablation.plan())
        rows = [max(1, self._tokens() // int(self.sweep.prompts.width[batch].max())) for batch in cut]
        return {"batches": cut, "rows": rows, "steps": self.steps, **{key: whole[key] for key in kept}}

    def _tokens(self) -> int:
        """How many tokens' activations can be kept until the way back."""
        shape, length = self.sweep.model.shape, int(self.sweep.prompts.width.max())
        per_block = 4 * (_KEPT_WIDTHS * shape.d_model + _KEPT_PATTERNS * shape.n_heads * length)
        return int(self.sweep.fit.budget / (len(shape.sites) * per_block))

    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]:
        """One batch: `estimate` [metric, prompt, group], and `ablated` [metric, prompt] with all heads ablated."""
        with self.sweep.model.alone():
            return self._computed(plan, unit)

    def _computed(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]:
        rows, _ = model_rows(self.sweep.model, self.sweep.prompts.take(plan["batches"][unit]))
        (where,) = positions.turns(self.sweep.positions, rows)
        found: list[dict[str, np.ndarray]] = []
        for draw in range(self.sweep.ablation.draws):
            groups = together(len(rows), plan["rows"][unit])
            parts = [self._estimate(plan, unit, draw, some, where and where[some.start : some.stop]) for some in groups]
            found.append({name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]})
        return {name: np.mean([drawn[name] for drawn in found], axis=0) for name in found[0]}

    @property
    def _heads(self) -> tuple[Part, ...]:
        return tuple(head for heads in self.sweep.groups.values() for head in heads)

    def _estimate(
        self, plan: Mapping[str, Any], unit: int, draw: int, some: range, where: Places | None
    ) -> dict[str, np.ndarray]:
        """What some rows give to `estimate`, the mean derivative along the way, and to `ablated`."""
        sweep, numbers = self.sweep, plan["batches"][unit]
        model, metrics, prompts = sweep.model, sweep.metrics, sweep.prompts.take(numbers)
        baseline = sweep.ablation.prepare(plan, Share(numbers, some), sweep.sites, draw)
        all_heads = Intervention(self._heads, baseline, where)
        with applied(model, all_heads):
            ran = engine.run_clean(model, prompts, metrics, some)
        if ran.logits is not None:  # distances are from the clean run
            ran.logits = engine.run_clean(model, prompts, metrics, some).logits
        edits = by_site(all_heads.edits(slice(None)))
        points = [derivatives(model, ran, edits, metrics, step / self.steps) for step in range(self.steps)]
        sites = {site: at for at, site in enumerate(edits)}
        by_head = np.array([(sites[head.site], head.head) for head in self._heads]).T
        return {
            "estimate": plain(torch.stack(points).mean(0))[:, :, *by_head],
            "ablated": plain(engine.measure(model, ran, ran.end, metrics))[:, 0],
        }

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """`estimate` [metric, prompt, layer, head] and `all_ablated` [metric, prompt]."""
        cut, notes = plan["batches"], self.sweep.attributes(plan)
        estimate = self.sweep.layout.labelled(gathered(cut, [unit["estimate"][..., None] for unit in units])[..., 0])
        together = gathered(cut, [unit["ablated"][..., None] for unit in units])[..., 0]
        said = f"mean derivative at {self.steps} point{'s' * (self.steps > 1)} from the clean run on"
        found = {
            "estimate": estimate.assign_attrs(notes | {"method": said}),
            "all_ablated": xr.DataArray(together, dims=("metric", "prompt"), attrs=notes | {"together": "all heads"}),
        }
        return xr.Dataset(found, coords={"metric": self.sweep.metric_names})
