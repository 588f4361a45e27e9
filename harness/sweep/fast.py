"""All heads, with matrix products in bf16: a first look at each, of which `verify` does a part again exactly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from harness.sweep.precision import bfloat16_products
from harness.sweep.stage import SweepStage


@dataclass(frozen=True)
class FastStage:
    """The stage that sweeps single heads in bf16. `sweep` says how; one unit is a batch of prompts."""

    sweep: SweepStage

    @property
    def name(self) -> str:
        return "fast"

    def like(self) -> SweepStage:
        return self.sweep

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]:
        return {**self.sweep.plan(done), "products": "bfloat16"}

    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]:
        with bfloat16_products(self.sweep.model):
            return self.sweep.compute(plan, unit)

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """What the sweep gives, under names that begin with ``fast_``."""
        found = self.sweep.assemble(plan, units)
        return found.rename({name: f"fast_{name}" for name in found.data_vars})
