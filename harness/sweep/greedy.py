"""Greedy order: each step ablates the head with the largest effect on top of those ablated before.

Steps build on each other, so the stage is a chain: a unit is one step, which measures all heads that are left on all
prompts. Batches, chunks and donors are frozen once, for all steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from harness.execute.cost import Trial
from harness.metrics import lead
from harness.sweep.importance import First, ranked, worse
from harness.sweep.interventions import EFFECT
from harness.sweep.stage import SweepStage


@dataclass(frozen=True)
class GreedyStage:
    """The stage that finds the greedy order of the heads that are the groups of `sweep`, `n_steps` long."""

    sweep: SweepStage
    n_steps: int
    first: First = "most_needed"
    name: str = "sweep_greedy"

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]:
        every_prompt = list(range(len(self.sweep.prompts)))
        return {"batches": [every_prompt] * self.n_steps, "step": self.sweep.plan()}

    def _step(self, before: Sequence[str]) -> SweepStage:
        """Return the sweep of one step: each head that is left, together with those ablated before."""
        left = [head for head in self.sweep.groups if head not in before]
        taken = tuple(head for name in before for head in self.sweep.groups[name])
        return self.sweep.of({head: (*taken, *self.sweep.groups[head]) for head in left})

    def cost(self, trial: Trial) -> str:
        return self.as_sweep().cost(trial)

    def as_sweep(self) -> SweepStage:
        """Return a sweep of as many sets of the same sizes, for the forecast, before any head is chosen."""
        names = np.random.default_rng(self.sweep.seed).permutation(list(self.sweep.groups)).tolist()
        steps = [self._step(names[:step]).groups for step in range(self.n_steps)]
        sets = {f"{at} {name}": heads for at, groups in enumerate(steps) for name, heads in groups.items()}
        return self.sweep.of(sets)

    def follow(self, plan: Mapping[str, Any], before: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Run one step: the chosen `head`, the number of edits verified, and the differences to plain forwards."""
        sweep, by = self._step([str(unit["head"]) for unit in before]), lead(self.sweep.metrics)
        units = [sweep.compute(plan["step"], unit) for unit in range(len(plan["step"]["batches"]))]
        effect = sweep.assemble(plan["step"], units)[EFFECT[sweep.kind]].sel(metric=by.name).mean("prompt")
        needed = {head: worse(mean, by) for head, mean in zip(sweep.groups, effect.values.tolist(), strict=True)}
        return {
            "head": np.array(ranked(needed, self.first)[0]),
            "fired": np.array(sum(int(unit["fired"]) for unit in units)),
            "off": np.concatenate([unit["off"] for unit in units]),
        }

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """Return `greedy_head` [step]: the head that each step ablates."""
        notes = {
            "ordered_by": lead(self.sweep.metrics).name,
            "first": self.first,
            "edits_verified": sum(int(unit["fired"]) for unit in units),
            "plain_forward_difference": float(np.concatenate([unit["off"] for unit in units]).max(initial=0)),
        }
        heads = np.array([str(unit["head"]) for unit in units])
        steps = {"step": np.arange(1, len(heads) + 1)}
        return xr.Dataset({"greedy_head": xr.DataArray(heads, dims="step", attrs=notes)}, steps)
