"""Ablate the heads of each role together, beside random sets of as many heads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from harness import ablation
from harness.ablation.patch import prompts_to_patch
from harness.config import OF_SPEED, RunSpec
from harness.execute import Part
from harness.execute.cost import Trial
from harness.metrics import choose
from harness.models import Model
from harness.prompts import Prompts
from harness.sweep import SweepStage, groups
from harness.sweep.importance import by_role
from harness.sweep.interventions import with_random


@dataclass(frozen=True)
class RoleSetsStage:
    """The stage that ablates the heads of each role together, and random sets of as many heads.

    One unit is a batch of prompts. `sweep` holds model, prompts, ablation and the number of random sets; its groups are
    the heads that may be ablated, one by one.
    """

    sweep: SweepStage
    seed: int = 0
    name: str = "role_sets"

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]:
        """Choose the sets. A role that all heads have has no random sets to compare with, and is left out."""
        heads = self.sweep.heads
        roles = {role: tuple(having) for role, having in by_role(done, heads).items() if len(having) < len(heads)}
        sets = with_random(roles, heads, self.sweep.n_random, self.seed)
        plan = self.sweep.of(sets).plan() if sets else {"batches": []}
        return {**plan, "roles": list(roles)}

    def cost(self, trial: Trial) -> str:
        return self.as_sweep().cost(trial)

    def as_sweep(self) -> SweepStage:
        """Return a sweep of about as much work, for the forecast: six roles of ten heads."""
        heads = self.sweep.heads
        chosen = [heads[at :: max(1, len(heads) // 10)] or heads[:1] for at in range(6 * (self.sweep.n_random + 1))]
        return self.sweep.of({str(at): tuple(some) for at, some in enumerate(chosen)})

    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]:
        return self.sweep.planned(plan).compute(plan, unit)

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """Return `role_effect` [metric, prompt, having] of the heads of each role, `random_effect` [metric, prompt,
        having, draw] of the random sets, and `clean`."""
        if not plan["roles"]:
            return xr.Dataset()
        swept = self.sweep.planned(plan).assemble(plan, units)
        effect, random = swept["set_effect"], swept["random_set_effect"]
        made = {
            "role_effect": xr.DataArray(
                effect.values,
                dims=("metric", "prompt", "having"),
                attrs={**effect.attrs, "together": "all heads that have the role"},
            ),
            "random_effect": xr.DataArray(
                random.values,
                dims=("metric", "prompt", "having", "draw"),
                attrs={**random.attrs, "together": "as many heads drawn at random"},
            ),
            "clean": swept["clean"],
        }
        return xr.Dataset(made, {**swept["clean"].coords, "having": plan["roles"]})


def part(spec: RunSpec, model: Model, prompts: Prompts) -> Part:
    """Return the stage of a run that ablates the heads of each role; none if `n_random_sets` is 0."""
    if not spec.n_random_sets:
        return Part()
    made, positions = ablation.build(spec.ablation, model, prompts)
    heads, metrics = groups(model, list(spec.heads)), choose(spec.metrics, prompts)
    how: dict[str, Any] = {key: getattr(spec.sweep, key) for key in OF_SPEED}
    how |= {"kind": "set", "seed": spec.seed, "n_random": spec.n_random_sets}
    swept = SweepStage(model, prompts_to_patch(made, prompts), heads, metrics, made, positions, **how)
    return Part([RoleSetsStage(swept, spec.roles.seed)])
