"""Run the other model's stages, with names apart from the base's arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from harness.compare.pairing import Pairing

OTHER = "other_"
#: Dimensions that count positions, and heads.
_POSITIONS = ("position", "query", "key", "source_position", "source_query", "source_key")
_HEADS = ("stack", "layer", "head")


@dataclass(frozen=True)
class OtherStage:
    """A stage of the other model. Its arrays are prefixed ``other_``, its dimensions too where the two models differ;
    its plan gets the arrays of the other model's earlier stages under their own names."""

    stage: Any
    pairing: Pairing

    @property
    def name(self) -> str:
        return OTHER + self.stage.name

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]:
        return self.stage.plan(None if done is None else _its_own(done))

    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]:
        return self.stage.compute(plan, unit)

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        return rename_other(self.stage.assemble(plan, units), self.pairing)


def rename_other(arrays: xr.Dataset, pairing: Pairing) -> xr.Dataset:
    """Prefix the other model's arrays, and its dimensions where they are not the base's."""
    apart = (() if pairing.same_tokens else _POSITIONS) + (() if pairing.same_heads else _HEADS)
    dims = {dim: OTHER + dim for dim in map(str, arrays.dims) if dim in apart}
    return arrays.rename({**{name: OTHER + str(name) for name in arrays.data_vars}, **dims})


def _its_own(done: xr.Dataset) -> xr.Dataset:
    """Select the other model's arrays and remove their prefix."""
    mine = done[[name for name in done.data_vars if str(name).startswith(OTHER)]]
    named = [str(name) for name in (*mine.data_vars, *mine.dims) if str(name).startswith(OTHER)]
    return mine.rename({name: name.removeprefix(OTHER) for name in named})
