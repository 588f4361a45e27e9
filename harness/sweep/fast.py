"""All heads, with matrix products in bf16 where that pays: a first look at each, of which `verify` does a part again
exactly."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from harness.execute.cost import Trial
from harness.sweep.precision import PAYS_FROM, bfloat16_products, speedup
from harness.sweep.stage import SweepStage


@dataclass(frozen=True)
class FastStage:
    """The stage that sweeps single heads in bf16. `sweep` says how; one unit is a batch of prompts."""

    sweep: SweepStage

    @property
    def name(self) -> str:
        return "fast"

    def cost(self, trial: Trial) -> str:
        return self.as_sweep().cost(trial)

    def as_sweep(self) -> SweepStage:
        return self.sweep

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]:
        """Whether bf16 pays is measured now, and frozen."""
        return {**self.sweep.plan(done), "speedup": round(speedup(self.sweep.model), 2)}

    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]:
        model = self.sweep.model
        with model.alone(), bfloat16_products(model) if _pays(plan) else nullcontext():
            return self.sweep.compute(plan, unit)

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """What the sweep gives, under names that begin with ``fast_``; under its own where bf16 does not pay, and all
        is exact."""
        found = self.sweep.assemble(plan, units)
        if _pays(plan):
            return found.rename({name: f"fast_{name}" for name in found.data_vars})
        why = f"bf16 products are only {plan['speedup']:.1f} times as fast here, so all is exact"
        return found.assign(effect=found["effect"].assign_attrs(remark=why))


def _pays(plan: Mapping[str, Any]) -> bool:
    return plan["speedup"] >= PAYS_FROM
