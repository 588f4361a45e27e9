"""Sweep all heads with bf16 matrix products, where these are faster; `verify` measures some of them exactly."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from harness.execute.cost import Trial
from harness.sweep.precision import MIN_SPEEDUP, bfloat16_products, speedup
from harness.sweep.stage import SweepStage


@dataclass(frozen=True)
class FastStage:
    """The stage that runs `sweep`, of single heads, in bf16; one unit is a batch of prompts."""

    sweep: SweepStage

    @property
    def name(self) -> str:
        return "fast"

    def cost(self, trial: Trial) -> str:
        return self.as_sweep().cost(trial)

    def as_sweep(self) -> SweepStage:
        return self.sweep

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]:
        """Measure the speedup of bf16 on this machine and freeze it in the plan, so that all workers agree."""
        return {**self.sweep.plan(done), "speedup": round(speedup(self.sweep.model), 2)}

    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]:
        model = self.sweep.model
        with model.alone(), bfloat16_products(model) if _is_faster(plan) else nullcontext():
            return self.sweep.compute(plan, unit)

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """Return the sweep's arrays, their names prefixed ``fast_``; exact and unprefixed where bf16 is not faster."""
        arrays = self.sweep.assemble(plan, units)
        if _is_faster(plan):
            return arrays.rename({name: f"fast_{name}" for name in arrays.data_vars})
        why = f"bf16 products are only {plan['speedup']:.1f} times as fast here, so all is exact"
        return arrays.assign(effect=arrays["effect"].assign_attrs(remark=why))


def _is_faster(plan: Mapping[str, Any]) -> bool:
    return plan["speedup"] >= MIN_SPEEDUP
