"""What is computed: stages with a plan, units, and a way to assemble them.

A stage is anything with a name, a plan, units to compute and a way to assemble them; the plan is frozen before the
first unit, and a unit that is there with its checksum is not computed again. A plan may choose by what stages before it
found; since these are whole before it is frozen, a run that is resumed chooses the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import xarray as xr

from harness.results.schema import TableName
from harness.results.store import StageFolder

Arrays = Mapping[str, np.ndarray]


class StageBase(Protocol):
    """What all stages share. ``plan()["batches"]`` has one entry per unit; `done` is what earlier stages assembled,
    which a plan may choose by."""

    @property
    def name(self) -> str: ...

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]: ...

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Arrays]) -> xr.Dataset: ...


@runtime_checkable
class Stage(StageBase, Protocol):
    """One part of a run, its units independent of each other."""

    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]: ...


@runtime_checkable
class Chain(StageBase, Protocol):
    """One part of a run whose units build on each other: each is made from those before it, in order."""

    def follow(self, plan: Mapping[str, Any], before: Sequence[Arrays]) -> dict[str, np.ndarray]: ...


@runtime_checkable
class Divisible(Protocol):
    """A stage whose units can be cut finer, for more workers than it has units."""

    def divided(self, n_workers: int) -> Stage | Chain: ...

    def as_planned(self, plan: Mapping[str, Any]) -> Stage | Chain:
        """The stage as the plan has cut it."""
        ...


@runtime_checkable
class Closing(Protocol):
    """What is made of the arrays once all stages are done: further arrays, and tables by name."""

    def close(self, data: xr.Dataset) -> "Closed": ...


@dataclass(frozen=True)
class Closed:
    """The arrays of a run as far as they are made, and the tables that go with them."""

    data: xr.Dataset
    tables: Mapping[TableName, pd.DataFrame] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """One part of a run, as its room makes it: the stages in their order, and what closes it."""

    stages: Sequence[Stage | Chain] = ()
    closings: Sequence[Closing] = ()


def run_in_memory(stage: Stage | Chain, done: xr.Dataset | None = None) -> xr.Dataset:
    """Plan a stage, compute its units one after the other and assemble them, without a run directory. `done` is what
    earlier stages assembled."""
    plan, units = stage.plan(done), list[Arrays]()
    for unit in range(len(plan["batches"])):
        units.append(stage.follow(plan, units) if isinstance(stage, Chain) else stage.compute(plan, unit))
    return stage.assemble(plan, units)


def make_unit(stage: Stage | Chain, folder: StageFolder, plan: Mapping[str, Any], unit: int) -> None:
    """Compute one unit and write it to the store, where those before it are, if it follows them."""
    if isinstance(stage, Chain):
        before = [folder.read(number) for number in range(unit)]
        made = stage.follow(plan, [each for each in before if each is not None])
    else:
        made = stage.compute(plan, unit)
    folder.write(unit, made)
