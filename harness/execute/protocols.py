"""Stages: a name, a plan, units to compute, and a way to assemble them.

The plan is frozen before the first unit, and a unit with a valid checksum is not computed again. A plan may depend on
earlier stages' results; these are complete before it is frozen, so a resumed run has the same plan.
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
    """Base of all stages. ``plan()["batches"]`` has one entry per unit; `done` holds the arrays of earlier stages, on
    which a plan may depend."""

    @property
    def name(self) -> str: ...

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]: ...

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Arrays]) -> xr.Dataset: ...


@runtime_checkable
class Stage(StageBase, Protocol):
    """A stage with independent units."""

    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]: ...


@runtime_checkable
class Chain(StageBase, Protocol):
    """A stage whose units are computed in order, each from those before it."""

    def follow(self, plan: Mapping[str, Any], before: Sequence[Arrays]) -> dict[str, np.ndarray]: ...


@runtime_checkable
class Divisible(Protocol):
    """A stage whose units can be divided for more workers."""

    def divided(self, n_workers: int) -> Stage | Chain: ...

    def as_planned(self, plan: Mapping[str, Any]) -> Stage | Chain:
        """Return the stage with the division of a frozen plan."""
        ...


@runtime_checkable
class Closing(Protocol):
    """Derives further arrays, and tables by name, once all stages are done."""

    def close(self, data: xr.Dataset) -> "Closed": ...


@dataclass(frozen=True)
class Closed:
    """The arrays of a run so far, the tables made from them, and text files by their path in the run."""

    data: xr.Dataset
    tables: Mapping[TableName, pd.DataFrame] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def close(data: xr.Dataset, closings: Sequence[Closing]) -> Closed:
    """Return the arrays and all tables after these closings, in order."""
    tables: dict[TableName, pd.DataFrame] = {}
    files: dict[str, str] = {}
    for closing in closings:
        closed = closing.close(data)
        data, tables, files = closed.data, tables | dict(closed.tables), files | dict(closed.files)
    return Closed(data, tables, files)


@dataclass(frozen=True)
class Part:
    """One part of a run: its stages in order, and its closings."""

    stages: Sequence[Stage | Chain] = ()
    closings: Sequence[Closing] = ()


def run_in_memory(stage: Stage | Chain, done: xr.Dataset | None = None) -> xr.Dataset:
    """Plan a stage, compute its units in order and assemble them, without a run directory. `done` holds the arrays of
    earlier stages."""
    plan, units = stage.plan(done), list[Arrays]()
    for unit in range(len(plan["batches"])):
        units.append(stage.follow(plan, units) if isinstance(stage, Chain) else stage.compute(plan, unit))
    return stage.assemble(plan, units)


def make_unit(stage: Stage | Chain, folder: StageFolder, plan: Mapping[str, Any], unit: int) -> None:
    """Compute one unit (of a `Chain` from those before it in the store) and write it to the store."""
    if isinstance(stage, Chain):
        before = [folder.read(number) for number in range(unit)]
        made = stage.follow(plan, [each for each in before if each is not None])
    else:
        made = stage.compute(plan, unit)
    folder.write(unit, made)
