"""Where units of work run: here, one after the other.

A stage is anything with a name, a plan, units to compute and a way to assemble them; the plan is frozen before the
first unit, and a unit that is there with its checksum is not computed again.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import xarray as xr

from harness.results.store import StageFolder

#: Called with the stage, the units that are there, and all units.
Progress = Callable[[str, int, int], None]


@runtime_checkable
class Stage(Protocol):
    """One part of a run. ``plan()["batches"]`` has one entry per unit."""

    @property
    def name(self) -> str: ...

    def plan(self) -> dict[str, Any]: ...

    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]: ...

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset: ...


def run_stage(stage: Stage, folder: StageFolder, progress: Progress) -> xr.Dataset:
    """Freeze the plan (or take the one that is there), compute the units that are missing, assemble them."""
    plan = folder.plan() or folder.freeze(stage.plan())
    units, total = [], len(plan["batches"])
    for number in range(total):
        progress(stage.name, number, total)
        unit = folder.read(number)
        if unit is None:
            folder.write(number, stage.compute(plan, number))
            unit = folder.read(number)
        if unit is None:
            raise OSError(f"{folder.path}: unit {number} was written but does not read back with its checksum")
        units.append(unit)
    progress(stage.name, total, total)
    return stage.assemble(plan, units)
