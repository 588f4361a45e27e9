"""Attribution patching: a first-order estimate of what ablating each head does, for all heads at once.

Each head's z has a gate g, from 0 (clean z) to 1 (ablated z, b): z ↦ z + g (b − z). A metric's derivative by a head's
gate at g = 0 is attribution patching's estimate of the head's effect (Syed et al. 2023, arXiv:2310.10348). The mean of
the derivatives along the path on which all gates open together is integrated gradients (Sundararajan et al. 2017,
arXiv:1703.01365; of activations: Hanna et al. 2024, arXiv:2403.17806). The estimates of all heads sum to the effect of
ablating all of them, Σ_h ∫ ∂M/∂g_h dα = M(all ablated) − M(clean). `verify` measures the largest estimates exactly.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.ablation import Edit, Intervention, Share, applied, by_site, model_rows, positions, targets_of, together
from harness.execute.cost import Trial
from harness.hooks import Part, Site
from harness.hooks.forward import removing
from harness.metrics import Metric
from harness.models import Inputs, Model
from harness.prompts import Prompts, batches
from harness.prompts.targets import Targets
from harness.sweep import engine
from harness.sweep.batch import plain
from harness.sweep.engine import Clean, Resid, readouts
from harness.sweep.labels import gathered
from harness.sweep.stage import SweepStage

#: The edits of z at each attention.
Edits = Mapping[Site, Sequence[Edit]]
#: What is measured on some of a batch's rows, under the ablation of all heads.
Measure = Callable[[Prompts, range, Intervention], np.ndarray]


@torch.enable_grad()
def estimates(
    model: Model,
    inputs: Inputs,
    targets: Targets,
    edits: Edits,
    metrics: Sequence[Metric],
    opened: Sequence[float] = (0.0,),
) -> Float[Tensor, "metric prompt site head"]:
    """Differentiate each prompt's metrics by each head's gate; mean over the points at which all gates are `opened`.

    The first point is 0, the clean run: its logits are those that distances compare with. Sites are in the order of
    `edits`; the derivative of a head without an edit is 0.
    """
    shape, logits, by_point = (len(inputs.token_id), model.shape.n_heads), None, []
    for point in opened:
        gates = [torch.full(shape, point, device=model.device, requires_grad=True) for _ in edits]
        with _gated(model, edits, dict(zip(edits, gates, strict=True))):
            run = engine.recorded(model, inputs, targets)
        if logits is None and any(metric.reads_clean for metric in metrics):
            logits = _logits(model, run)
        run.logits = logits
        by_point.append(torch.stack([_by_gate(model, run, gates, metric) for metric in metrics]))
    by_row = torch.stack(by_point).mean(0)
    owner = targets.row.new_zeros(shape[0]).scatter(0, targets.row, targets.prompt)
    return by_row.new_zeros(len(metrics), targets.n_prompts, *by_row.shape[2:]).index_add_(1, owner, by_row)


@torch.no_grad()
def _logits(model: Model, run: Clean) -> Tensor:
    return torch.cat([logits for _, logits in engine.logits_of(model, run, run.end.detach())])


def _by_gate(model: Model, run: Clean, gates: Sequence[Tensor], metric: Metric) -> Float[Tensor, "row site head"]:
    """Differentiate the sum of the prompts' metrics by each row's gates, in one backward pass."""
    at_end = gradient_at_end(model, run, run.end.detach(), metric)
    by_gate = torch.autograd.grad(run.end, gates, at_end, retain_graph=True, materialize_grads=True)
    return torch.stack(by_gate, dim=1)


def gradient_at_end(model: Model, clean: Clean, end: Resid, metric: Metric) -> Resid:
    """Return the gradient of the prompts' metrics, summed, at the end of the residual stream.

    It is accumulated chunk by chunk of the vocabulary's logits, which would not fit in memory for all targets at once.
    """
    leaf, gradient = end.requires_grad_(), torch.zeros_like(end)
    share = _weights(model, clean, leaf, metric)
    for at, read in readouts(model, clean, leaf):
        weighed = (metric.compute(read) * share[at]).sum()
        if weighed.requires_grad:  # accuracy is a step function: it has no gradient
            gradient += torch.autograd.grad(weighed, leaf)[0]
    return gradient


def _weights(model: Model, clean: Clean, end: Resid, metric: Metric) -> Float[Tensor, " target"]:
    """Return the derivative of the sum of the prompts' metrics by the metric's value at each target."""
    if metric.reduce is None:
        return clean.targets.share
    with torch.no_grad():
        values = engine.by_target(model, clean, end, [metric])[0, 0]
    values.requires_grad_()
    total = metric.reduce(values, clean.targets).sum()
    return torch.autograd.grad(total, values)[0] if total.requires_grad else torch.zeros_like(values)


def _gated(model: Model, edits: Edits, gates: Mapping[Site, Tensor]) -> AbstractContextManager[None]:
    """Within this context, W_O receives z + gate · (replacement − z)."""

    def moving(site: Site) -> Any:
        def move(_: Any, args: tuple[Any, ...]) -> tuple[Tensor]:
            z = args[0].unflatten(2, (model.shape.n_heads, -1))
            replaced = z.clone()
            for edit in edits[site]:
                edit.make(z, replaced)
            return ((z + gates[site][:, None, :, None] * (replaced - z)).flatten(2),)

        return move

    sites = {site: hooks.output_projection(model.bridge, site) for site in edits}
    return removing([module.register_forward_pre_hook(moving(site)) for site, module in sites.items()])


#: The most prompts of a batch, and its largest share of padding. A pass over few tokens costs about as much as one over
#: some more, since it reads all weights: batches are larger than those of a sweep, which runs many heads at once.
_AT_MOST, _PADDING = 64, 0.25
#: Prompts, the first of the plan's, on which all heads are ablated together. It tells only whether gradients vanish; a
#: forward on all prompts would take half as long as the estimates.
CHECKED = 4
#: Activations that a block keeps for the backward pass, per token: multiples of d_model, and number of patterns.
_KEPT_WIDTHS, _KEPT_PATTERNS = 24, 3


@dataclass(frozen=True)
class ScreenStage:
    """Estimate every head's effect by attribution patching (``screen``); one unit is a batch of prompts.

    All heads are also ablated together on `CHECKED` prompts, as a check on the sum of the estimates. `sweep` holds the
    model, the prompts and the ablation; its groups are single heads. `steps` is the number of points on the path from
    the clean run (the first) to all heads ablated.
    """

    sweep: SweepStage
    steps: int = 1

    @property
    def name(self) -> str:
        return "screen"

    def cost(self, trial: Trial) -> str:
        return self.as_sweep().cost(trial)

    def as_sweep(self) -> SweepStage:
        """Return a sweep of as many whole forwards, for the forecast: a backward pass counts as one more."""
        forwards = 2 * self.steps * self.sweep.ablation.draws
        return replace(self.sweep, kind="set", groups={str(number): self._heads for number in range(forwards)})

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]:
        whole = self.sweep.plan(done)
        cut = batches(self.sweep.prompts, tokens=self._tokens(), at_most=_AT_MOST, padding=_PADDING)
        kept = ("groups", "metrics", "ablation", "positions", *self.sweep.ablation.plan())
        rows = [max(1, self._tokens() // int(self.sweep.prompts.width[batch].max())) for batch in cut]
        return {"batches": cut, "rows": rows, "steps": self.steps, **{key: whole[key] for key in kept}}

    def _tokens(self) -> int:
        """Return how many tokens' activations fit in memory until the backward pass."""
        shape, length = self.sweep.model.shape, int(self.sweep.prompts.width.max())
        per_block = 4 * (_KEPT_WIDTHS * shape.d_model + _KEPT_PATTERNS * shape.n_heads * length)
        return int(self.sweep.fit.budget / (len(shape.sites) * per_block))

    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]:
        """Compute one batch: `estimate` [metric, prompt, group], and `ablated` [metric, prompt], all heads ablated: NaN
        for prompts on which that was not measured."""
        numbers, at_once = plan["batches"][unit], plan["rows"][unit]
        with self.sweep.model.alone():
            _, owner = model_rows(self.sweep.model, self.sweep.prompts.take(numbers))
            estimate = self._of_rows(self._estimated, plan, unit, together(len(owner), at_once))
            ablated = np.full(estimate.shape[:2], np.nan)
            if (n := CHECKED - sum(map(len, plan["batches"][:unit]))) > 0:
                checked = together(int((owner < n).sum()), at_once)
                ablated[:, :n] = self._of_rows(self._ablated, plan, unit, checked)[:, :n]
        return {"estimate": estimate, "ablated": ablated}

    @property
    def _heads(self) -> tuple[Part, ...]:
        return tuple(head for heads in self.sweep.groups.values() for head in heads)

    def _of_rows(self, of: Measure, plan: Mapping[str, Any], unit: int, groups: Sequence[range]) -> np.ndarray:
        """Add up what `of` measures on groups of rows, each row a share of its prompt's value; mean over draws."""
        sweep, numbers = self.sweep, plan["batches"][unit]
        prompts, draws, parts = sweep.prompts.take(numbers), range(sweep.ablation.draws), []
        (where,) = positions.turns(sweep.positions, model_rows(sweep.model, prompts)[0])
        for draw in draws:
            for some in groups:
                baseline = sweep.ablation.prepare(plan, Share(numbers, some), sweep.sites, draw)
                places = where and where[some.start : some.stop]
                parts.append(of(prompts, some, Intervention(self._heads, baseline, places)))
        return np.sum(parts, axis=0) / len(draws)

    def _estimated(
        self, prompts: Prompts, some: range, all_heads: Intervention
    ) -> Float[np.ndarray, "metric prompt group"]:
        """Compute the mean derivative along the path."""
        model, edits = self.sweep.model, by_site(all_heads.edits(slice(None)))
        inputs = model_rows(model, prompts, some)[0].inputs(model.device)
        points = [step / self.steps for step in range(self.steps)]
        targets = targets_of(model, prompts).of_rows(some)
        every = estimates(model, inputs, targets, edits, self.sweep.metrics, points)
        sites = {site: at for at, site in enumerate(edits)}
        by_head = np.array([(sites[head.site], head.head) for head in self._heads]).T
        return plain(every)[:, :, *by_head]

    def _ablated(self, prompts: Prompts, some: range, all_heads: Intervention) -> Float[np.ndarray, "metric prompt"]:
        model, metrics = self.sweep.model, self.sweep.metrics
        with applied(model, all_heads):
            ran = engine.run_clean(model, prompts, metrics, some)
        if ran.logits is not None:  # distances are from the clean run
            ran.logits = engine.run_clean(model, prompts, metrics, some).logits
        return plain(engine.measure(model, ran, ran.end, metrics))[:, 0]

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """`estimate` [metric, prompt, layer, head] and `all_ablated` [metric, prompt]."""
        cut, notes = plan["batches"], self.sweep.attributes(plan)
        estimate = self.sweep.layout.labelled(gathered(cut, [unit["estimate"][..., None] for unit in units])[..., 0])
        together = gathered(cut, [unit["ablated"][..., None] for unit in units])[..., 0]
        method = f"mean derivative at {self.steps} point{'s' * (self.steps > 1)} from the clean run on"
        arrays = {
            "estimate": estimate.assign_attrs(notes | {"method": method}),
            "all_ablated": xr.DataArray(together, dims=("metric", "prompt"), attrs=notes | {"together": "all heads"}),
        }
        return xr.Dataset(arrays, coords={"metric": self.sweep.metric_names})
