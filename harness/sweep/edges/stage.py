"""The stage that measures edges exactly: the edges with the largest estimates, by path patching.

An edge is an intervention on its receiver: the z (or MLP output) that it has when one input reads the changed stream.
It runs in the sweep's batches, and is verified at W_O, as any other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import xarray as xr

from harness.ablation import Share, model_rows, positions, together
from harness.ablation.positions import Places
from harness.config.edges import Between
from harness.execute.cost import Trial
from harness.hooks import Head
from harness.models import Model, alone
from harness.sweep.batch import Batch, check_finite
from harness.sweep.edges.edge import Edge
from harness.sweep.edges.halves import choosing, halves
from harness.sweep.edges.receivers import interventions, received
from harness.sweep.edges.streams import Senders
from harness.sweep.interventions import EFFECT
from harness.sweep.labels import gathered
from harness.sweep.stage import SweepStage

#: Edges whose receivers are in memory at once.
_AT_ONCE = 256
#: The estimates of all edges by prompt; `merge_edges` keeps those of the measured ones.
SCREENED = "screened_estimate"


@dataclass(frozen=True)
class EdgesStage:
    """The stage that measures edges; one unit is a batch of prompts, all measured edges on it.

    `sweep` holds model, prompts and ablation; its groups are the senders, one by one. The `top` of the `edges` with the
    largest mean estimates are measured, by each metric in turn, on the prompts of the choosing half (`halves`).
    """

    sweep: SweepStage
    edges: tuple[Edge, ...]
    between: Between
    top: int
    name: str = "sweep_edges"

    @property
    def model(self) -> Model:
        return self.sweep.model

    def cost(self, trial: Trial) -> str:
        return self.as_sweep().cost(trial)

    def as_sweep(self) -> SweepStage:
        """Return a sweep of as many heads as edges are measured, spread over their receivers' layers."""
        layers = sorted(edge.receiver.layer for edge in self.edges)
        spread = layers[:: max(1, len(layers) // self.top)][: self.top]
        return self.sweep.of({str(number): (Head(layer, 0),) for number, layer in enumerate(spread)})

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]:
        """Choose the edges, by the estimates of an earlier stage."""
        half = halves(self.sweep.prompts.cluster, self.sweep.seed, len(self.edges) > self.top)
        chosen = self._chosen(done, half)
        senders = dict.fromkeys(str(edge.sender) for edge in chosen)
        plan = self.sweep.of({name: self.sweep.groups[name] for name in senders}).plan()
        return {**plan, "edges": [list(edge.names) for edge in chosen], "mlps": self.between, "half": half.tolist()}

    def _chosen(self, done: xr.Dataset | None, half: np.ndarray) -> list[Edge]:
        """Return the edges to measure, in the order of senders."""
        if len(self.edges) <= self.top:
            return list(self.edges)
        assert done is not None
        estimate = done[SCREENED].values[:, choosing(half)].mean(axis=1)
        ranks = [np.argsort(-np.abs(each), kind="stable")[: self.top].tolist() for each in estimate]
        in_turn = dict.fromkeys(at for turn in zip_longest(*ranks) for at in turn if at is not None)
        return [self.edges[at] for at in sorted(list(in_turn)[: self.top])]

    @alone
    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]:
        """Compute one batch: `clean` [metric, prompt] and `ablated` [metric, prompt, edge], mean over draws, with the
        number of edits verified (`fired`) and differences to plain forwards (`off`)."""
        check = self.sweep.check
        before, tried = check.fired, len(check.spot_checks)
        rows, _ = model_rows(self.model, self.sweep.prompts.take(plan["batches"][unit]))
        (where,) = positions.turns(self.sweep.positions, rows)
        parts = []
        for some in together(len(rows), plan["rows"][unit]):
            parts.append(self._measured(plan, unit, some, where and where[some.start : some.stop]))
        arrays = {name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]}
        return arrays | {"fired": np.array(check.fired - before), "off": np.array(check.spot_checks[tried:])}

    def _measured(self, plan: Mapping[str, Any], unit: int, some: range, where: Places | None) -> dict[str, np.ndarray]:
        """Compute the share of some of a batch's rows in its arrays."""
        sweep, numbers, size = self.sweep, plan["batches"][unit], plan["chunks"][unit]
        prompts, ablated = sweep.prompts.take(numbers), sweep.ablation
        batch = Batch(sweep.model, prompts, sweep.metrics, sweep.check, some, positionwise=ablated.positionwise)
        check_finite(sweep.model, sweep.metric_names, numbers, batch.clean)
        edges, sites = [Edge.parse(*names) for names in plan["edges"]], sweep.sites
        by_draw = []
        for draw in range(ablated.draws):
            baseline = ablated.prepare(plan, Share(numbers, some), sites, draw)
            senders = Senders.of(sweep.model, batch.whole, baseline, where)
            is_first = unit == draw == some.start == 0
            by_draw.append(self._of_draw(batch, senders, edges, size, is_first))
        values = np.mean(by_draw, axis=0)
        check_finite(sweep.model, sweep.metric_names, numbers, values, list(map(str, edges)))
        return {"clean": batch.clean, "ablated": values}

    def _of_draw(self, batch: Batch, senders: Senders, edges: Sequence[Edge], size: int, is_first: bool) -> np.ndarray:
        """Measure the edges [metric, prompt, edge]; two of a run's first are checked against plain forwards."""
        parts = []
        for start in range(0, len(edges), _AT_ONCE):
            todo = interventions(received(senders, edges[start : start + _AT_ONCE], self.between, size))
            parts.append(batch.ablated(todo, size))
            if is_first and start == 0:
                for at in sorted({0, len(todo) // 2}):
                    batch.spot_check(todo[at], parts[0][:, :, at])
        return np.concatenate(parts, axis=2)

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """Return `edge_effect` [metric, prompt, edge] with `sender`, `receiver` and `into` of each edge, `edge_half`
        [prompt] and `clean`."""
        cut, notes = plan["batches"], self.sweep.attributes(plan)
        clean = gathered(cut, [unit["clean"][..., None] for unit in units])[..., 0]
        effect = gathered(cut, [unit["ablated"] for unit in units]) - clean[..., None]
        off = float(np.concatenate([unit["off"] for unit in units]).max(initial=0))
        checks = {"edits_verified": sum(int(unit["fired"]) for unit in units), "plain_forward_difference": off}
        checks |= {"mlps": plan["mlps"], "n_candidates": len(self.edges)}
        arrays = {
            EFFECT["edges"]: xr.DataArray(effect, dims=("metric", "prompt", "edge"), attrs={**notes, **checks}),
            "edge_half": xr.DataArray(np.array(plan["half"]), dims="prompt"),
            "clean": xr.DataArray(clean, dims=("metric", "prompt"), attrs=dict(notes)),
        }
        names = zip(("sender", "receiver", "into"), np.array(plan["edges"]).T, strict=True)
        return xr.Dataset(
            arrays, {"metric": self.sweep.metric_names, **{name: ("edge", values) for name, values in names}}
        )


def merge_edges(done: xr.Dataset) -> xr.Dataset:
    """Replace the estimates of all edges by prompt by `edge_estimate` [metric, prompt, edge] of the measured ones and
    `edge_estimate_mean` [metric, candidate] of all, once edges are measured."""
    if SCREENED not in done or EFFECT["edges"] not in done:
        return done
    screened = done[SCREENED]
    of_candidate = [screened[f"candidate_{name}"].values for name in ("sender", "receiver", "into")]
    place = {names: at for at, names in enumerate(zip(*of_candidate, strict=True))}
    measured = zip(*(done[name].values for name in ("sender", "receiver", "into")), strict=True)
    own = screened.values[:, :, [place[names] for names in measured]]
    estimate = xr.DataArray(own, dims=("metric", "prompt", "edge"), attrs=screened.attrs)
    mean = screened.mean("prompt", keep_attrs=True)
    return done.drop_vars(SCREENED).assign(edge_estimate=estimate, edge_estimate_mean=mean)
