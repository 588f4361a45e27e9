"""Ablate the heads of each role together, beside random sets of as many heads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from harness import ablation
from harness.config import RunSpec
from harness.execute import Part
from harness.execute.cost import Trial
from harness.metrics import choose
from harness.models import Model
from harness.prompts import Prompts
from harness.sweep import SweepStage, groups
from harness.sweep.importance import by_role

#: The names of a role's random sets among the interventions.
_RANDOM = "{} random {}"


@dataclass(frozen=True)
class RoleSetsStage:
    """The stage that ablates the heads of each role together, and `n` random sets of as many heads.

    One unit is a batch of prompts. `sweep` holds model, prompts and ablation; its groups are the heads that may be
    ablated, one by one.
    """

    sweep: SweepStage
    n: int
    seed: int = 0
    name: str = "role_sets"

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]:
        """Choose the sets. A role that all heads have has no random sets to compare with, and is left out."""
        heads, rng = self.sweep.heads, np.random.default_rng(self.seed)
        roles = {role: having for role, having in by_role(done, heads).items() if len(having) < len(heads)}
        sets = {role: tuple(having) for role, having in roles.items()}
        for role, having in roles.items():
            for number in range(self.n):
                drawn = rng.choice(len(heads), len(having), replace=False)
                sets[_RANDOM.format(role, number)] = tuple(heads[at] for at in sorted(drawn))
        plan = self.sweep.of(sets).plan() if sets else {"batches": []}
        return {**plan, "roles": list(roles)}

    def cost(self, trial: Trial) -> str:
        return self.as_sweep().cost(trial)

    def as_sweep(self) -> SweepStage:
        """Return a sweep of about as much work, for the forecast: six roles of ten heads."""
        heads = self.sweep.heads
        chosen = [heads[at :: max(1, len(heads) // 10)] or heads[:1] for at in range(6 * (self.n + 1))]
        return self.sweep.of({str(at): tuple(some) for at, some in enumerate(chosen)})

    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]:
        return self.sweep.planned(plan).compute(plan, unit)

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """Return `role_effect` [metric, prompt, having] of the heads of each role, `random_effect` [metric, prompt,
        having, draw] of the random sets, and `clean`."""
        if not plan["roles"]:
            return xr.Dataset()
        swept = self.sweep.planned(plan).assemble(plan, units)
        effect, roles = swept["set_effect"], plan["roles"]
        random = [effect.sel(set=[_RANDOM.format(role, at) for at in range(self.n)]).values for role in roles]
        plain = {key: value for key, value in effect.attrs.items() if key in swept["clean"].attrs}
        made = {
            "role_effect": xr.DataArray(
                effect.sel(set=roles).values,
                dims=("metric", "prompt", "having"),
                attrs={**effect.attrs, "together": "all heads that have the role"},
            ),
            "random_effect": xr.DataArray(
                np.stack(random, axis=2),
                dims=("metric", "prompt", "having", "draw"),
                attrs={**plain, "together": "as many heads drawn at random"},
            ),
            "clean": swept["clean"],
        }
        return xr.Dataset(made, {**swept["clean"].coords, "having": roles})


def part(spec: RunSpec, model: Model, prompts: Prompts) -> Part:
    """Return the stage of a run that ablates the heads of each role; none if ``roles.n_random_sets`` is 0."""
    if not spec.roles.n_random_sets:
        return Part()
    made, positions = ablation.build(spec.ablation, model, prompts)
    heads, metrics = groups(model, list(spec.heads)), choose(spec.metrics, prompts)
    memory, seed = spec.sweep.memory, spec.seed
    swept = SweepStage(model, prompts, heads, metrics, made, positions, kind="set", memory=memory, seed=seed)
    return Part([RoleSetsStage(swept, spec.roles.n_random_sets, spec.roles.seed)])
