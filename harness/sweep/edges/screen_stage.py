"""The stage that estimates every edge by edge attribution patching; one unit is a batch of prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from harness.ablation import Share, model_rows, positions, together
from harness.ablation.positions import Places
from harness.execute.cost import Trial, duration
from harness.models import Model, alone
from harness.prompts import batches
from harness.sweep import engine
from harness.sweep.edges.edge import Edge
from harness.sweep.edges.edge_attribution import edge_estimates
from harness.sweep.edges.stage import SCREENED
from harness.sweep.edges.streams import Senders
from harness.sweep.labels import gathered
from harness.sweep.stage import SweepStage

#: Activations that a block keeps for the backward pass, per token: multiples of d_model, and number of patterns.
_KEPT_WIDTHS, _KEPT_PATTERNS = 24, 3


@dataclass(frozen=True)
class EdgeScreenStage:
    """Estimate the effect of each of `edges`; `sweep` holds model, prompts and ablation, its groups are the senders.

    `steps` is the number of points on the path from the clean run (the first) to all senders replaced.
    """

    sweep: SweepStage
    edges: tuple[Edge, ...]
    steps: int = 1
    name: str = "screen_edges"

    @property
    def model(self) -> Model:
        return self.sweep.model

    def cost(self, trial: Trial) -> str:
        n = len(self.sweep.prompts)
        receivers = {(edge.receiver, edge.into) for edge in self.edges}
        # A pull-back through one input of a receiver is a part of a block's backward pass, about three forwards of it.
        blocks = 3 * len(receivers) * len(self.sweep.metrics) * self.steps * self.sweep.ablation.draws
        seconds = duration(n * trial(self.model, self.sweep.prompts) * blocks / self.model.shape.n_layers)
        return f"{n} prompts × estimates of {len(self.edges)} edges by gradients: about {seconds}"

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]:
        cut, most = batches(self.sweep.prompts), self._tokens()
        rows = [max(1, most // int(self.sweep.prompts.width[batch].max())) for batch in cut]
        kept = self.sweep.ablation.plan()
        return {
            "batches": cut,
            "rows": rows,
            "steps": self.steps,
            "n_edges": len(self.edges),
            "metrics": self.sweep.metric_names,
            "ablation": self.sweep.ablation.name,
            "positions": self.sweep.plan()["positions"],
            **kept,
        }

    def _tokens(self) -> int:
        """Return how many tokens' activations, and changes by all senders, fit in memory."""
        shape, length = self.model.shape, int(self.sweep.prompts.width.max())
        per_block = 4 * (_KEPT_WIDTHS * shape.d_model + _KEPT_PATTERNS * shape.n_heads * length)
        of_senders = 3 * 4 * len(self.sweep.groups) * shape.d_model
        return int(self.sweep.fit.budget / (shape.n_layers * per_block + of_senders))

    @alone
    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]:
        """Compute one batch: `estimate` [metric, prompt, edge], mean over draws, in float32."""
        rows, _ = model_rows(self.model, self.sweep.prompts.take(plan["batches"][unit]))
        (where,) = positions.turns(self.sweep.positions, rows)
        total = 0.0
        for some in together(len(rows), plan["rows"][unit]):
            total = total + self._estimated(plan, unit, some, where and where[some.start : some.stop])
        return {"estimate": np.asarray(total, dtype=np.float32)}

    def _estimated(self, plan: Mapping[str, Any], unit: int, some: range, where: Places | None) -> np.ndarray:
        """Compute the share of some rows, mean over draws."""
        sweep, numbers = self.sweep, plan["batches"][unit]
        clean = engine.run_clean(sweep.model, sweep.prompts.take(numbers), sweep.metrics, some)
        by_draw = []
        for draw in range(sweep.ablation.draws):
            baseline = sweep.ablation.prepare(plan, Share(numbers, some), sweep.sites, draw)
            senders = Senders.of(sweep.model, clean, baseline, where)
            points = [step / self.steps for step in range(self.steps)]
            by_draw.append(edge_estimates(senders, self.edges, sweep.metrics, points).cpu().numpy())
        return np.mean(by_draw, axis=0)

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """Return the estimates [metric, prompt, candidate] with each candidate's sender, receiver and input."""
        values = gathered(plan["batches"], [unit["estimate"] for unit in units]).astype(np.float32)
        method = f"edge attribution patching at {self.steps} point{'s' * (self.steps > 1)} from the clean run on"
        notes = self.sweep.attributes(plan) | {"method": method}
        names = zip(("sender", "receiver", "into"), np.array([edge.names for edge in self.edges]).T, strict=True)
        coords = {f"candidate_{name}": ("candidate", each) for name, each in names}
        estimate = xr.DataArray(values, dims=("metric", "prompt", "candidate"), attrs=notes)
        return xr.Dataset({SCREENED: estimate}, {"metric": self.sweep.metric_names, **coords})
