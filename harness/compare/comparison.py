"""Close a comparison once both models have run: changes, tables, and the distance of weights."""

from dataclasses import dataclass

import pandas as pd
import xarray as xr

from harness.compare.change_table import by_role, changes_table
from harness.compare.changes import with_changes
from harness.compare.pairing import Pairing
from harness.compare.weights import weight_change
from harness.config import CompareSpec, StatsSpec
from harness.execute import Closed
from harness.models import Model
from harness.results.schema import TableName


@dataclass(frozen=True)
class Comparison:
    """Add the changes; write ``roles.csv``, and ``changes.csv`` where the two models have the same heads."""

    base: Model
    other: Model
    pairing: Pairing
    spec: CompareSpec
    stats: StatsSpec

    def close(self, data: xr.Dataset) -> Closed:
        wider = with_changes(data, self.spec, self.base.kind == "decoder")
        tables: dict[TableName, pd.DataFrame] = {"roles": by_role(wider)}
        if self.pairing.same_heads:
            tables["changes"] = changes_table(wider, self.stats)
            note = {"units": "length of the difference over the base's length", "method": "all parameters of a block"}
            wider["weight_change"] = xr.DataArray(weight_change(self.base, self.other), dims="block", attrs=note)
        return Closed(wider, tables)
