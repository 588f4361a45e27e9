"""All heads, by a gradient: a guess at each, of which `verify` measures the largest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr

from harness.ablation import Intervention, Share, applied, asked, by_site, positions, together
from harness.ablation.positions import Places
from harness.hooks import Part
from harness.prompts import batches
from harness.sweep import engine
from harness.sweep.batch import plain
from harness.sweep.gradient import derivatives
from harness.sweep.labels import gathered
from harness.sweep.stage import SweepStage

#: What a block keeps of one token until the way back: so many times d_model, and so many patterns.
_KEPT_WIDTHS, _KEPT_PATTERNS = 24, 3


@dataclass(frozen=True)
class ScreenStage:
    """The stage that estimates what ablating each head does (`harness.sweep.gradient`), and ablates all of them
    together, which the estimates are held against. One unit is a batch of prompts.

    `sweep` says how; its groups are single heads. `steps` is how many points there are along the way from the clean
    run to all heads ablated, the clean run being the first.
    """

    sweep: SweepStage
    steps: int = 1

    @property
    def name(self) -> str:
        return "screen"

    def like(self) -> SweepStage:
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
        return int(self.sweep.budget / (len(shape.sites) * per_block))

    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]:
        """One batch: `estimate` [metric, prompt, group], and `ablated` [metric, prompt] with all heads ablated."""
        with self.sweep.model.alone():
            return self._computed(plan, unit)

    def _computed(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]:
        rows, _ = asked(self.sweep.model, self.sweep.prompts.take(plan["batches"][unit]))
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
        estimate = self.sweep.laid_out(gathered(cut, [unit["estimate"][..., None] for unit in units])[..., 0])
        together = gathered(cut, [unit["ablated"][..., None] for unit in units])[..., 0]
        said = f"mean derivative at {self.steps} point{'s' * (self.steps > 1)} from the clean run on"
        found = {
            "estimate": estimate.assign_attrs(notes | {"method": said}),
            "all_ablated": xr.DataArray(together, dims=("metric", "prompt"), attrs=notes | {"together": "all heads"}),
        }
        return xr.Dataset(found, coords={"metric": self.sweep.metric_names})
