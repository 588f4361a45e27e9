"""Where units of work run: here, one after the other.

A stage is anything with a name, a plan, units to compute and a way to assemble them; the plan is frozen before the
first unit, and a unit that is there with its checksum is not computed again. A plan may choose by what stages before it
found; since these are whole before it is frozen, a run that is resumed chooses the same.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import xarray as xr

from harness.results.store import StageFolder

#: Called with the stage, the units that are there, and all units.
Progress = Callable[[str, int, int], None]


class Planned(Protocol):
    """What all stages share. ``plan()["batches"]`` has one entry per unit; `done` is what earlier stages assembled,
    which a plan may choose by."""

    @property
    def name(self) -> str: ...

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]: ...

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset: ...


@runtime_checkable
class Stage(Planned, Protocol):
    """One part of a run, its units independent of each other."""

    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]: ...


@runtime_checkable
class Chain(Planned, Protocol):
    """One part of a run whose units build on each other: each is made from those before it, in order."""

    def follow(self, plan: Mapping[str, Any], before: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]: ...


def run_stage(
    stage: Stage | Chain, folder: StageFolder, progress: Progress, done: xr.Dataset | None = None
) -> xr.Dataset:
    """Freeze the plan (or take the one that is there), compute the units that are missing, assemble them."""
    plan = folder.plan() or folder.freeze(stage.plan(done))
    units, total = [], len(plan["batches"])
    for number in range(total):
        progress(stage.name, number, total)
        unit = folder.read(number)
        if unit is None:
            made = stage.follow(plan, units) if isinstance(stage, Chain) else stage.compute(plan, number)
            folder.write(number, made)
            unit = folder.read(number)
        if unit is None:
            raise OSError(f"{folder.path}: unit {number} was written but does not read back with its checksum")
        units.append(unit)
    progress(stage.name, total, total)
    return stage.assemble(plan, units)
