"""What a run directory holds: the variables of ``data.zarr`` with their dimensions, and the tables with their columns.

`VARIABLES` and `TABLES` are the contract that whoever writes and whoever reads lean on; a test holds what every runner
writes against them. Stacks of an encoder-decoder put their prefix before a name (`harness.hooks.variable_name`), the
other model of a comparison ``other_``.
"""

import io
import json
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Shaped

from harness.config import RequestError
from harness.hooks import Head, axes, variable_name
from harness.results.objects import Folder
from harness.results.store import write_bytes, write_text

# --- tables -------------------------------------------------------------------------------------------------------

_PLACE = ("stack", "layer", "head")
TableName = Literal["heads", "methods", "method_pairs", "roles", "changes", "parts", "part_heads"]


@dataclass(frozen=True)
class Table:
    """``NAME.csv``: its columns, and which of them hold names (an empty one is a name, elsewhere it is no number).

    With `by_stack` a run of an encoder-decoder has a column `stack` before `layer`. Without `names` the file is read as
    pandas reads it.
    """

    columns: tuple[str, ...]
    names: tuple[str, ...] | None = None
    by_stack: bool = False

    def columns_of(self, stacks: bool) -> list[str]:
        """The columns, with the stack before the layer where there are stacks."""
        return [each for name in self.columns for each in (["stack", name] if stacks and name == "layer" else [name])]


TABLES: dict[TableName, Table] = {
    "heads": Table(
        (
            *("metric", "layer", "head", "effect_mean", "ci_low", "ci_high", "direct_mean", "effect_size"),
            *("p_value", "q_value", "p_adjusted", "p_important", "significant", "important", "rank"),
            *("n_prompts", "n_clusters", "n_effective_clusters", "method", "estimate", "effect_error", "roles"),
        ),
        by_stack=True,
    ),
    "methods": Table(
        ("method", "cause", "policy", "statistic", "mean", "ci_low", "ci_high", "q_value"),
        names=("method", "cause", "policy", "statistic"),
    ),
    "method_pairs": Table(
        ("method", "against", "cause", "policy", "statistic", "difference", "ci_low", "ci_high", "p_adjusted"),
        names=("method", "against", "cause", "policy", "statistic"),
    ),
    "roles": Table(
        ("role", "heads_base", "of_base", "score_base", "heads_other", "of_other", "score_other"), names=("role",)
    ),
    "changes": Table(
        (
            *("metric", "layer", "head", "distance_mean", "distance_low", "distance_high", "distance_sd"),
            *("distance_rank", "effect_base", "effect_other", "change_mean", "ci_low", "ci_high", "p_value"),
            *("q_value", "p_adjusted", "significant", "rank", "roles_base", "roles_other"),
        ),
        names=("metric", "stack", "significant", "roles_base", "roles_other"),
        by_stack=True,
    ),
    "parts": Table(
        ("measure", "part", "mean", "ci_low", "ci_high", "rank", "n_prompts", "over"), names=("measure", "part", "over")
    ),
    "part_heads": Table(
        ("part", "layer", "head", "mean", "ci_low", "ci_high", "p_adjusted", "attention", "rank", "n_prompts"),
        names=("part",),
    ),
}


def write_table(run: Folder, name: TableName, table: pd.DataFrame) -> None:
    """A table as ``NAME.csv`` and ``NAME.parquet``, each whole or not at all. The CSV is what is read again."""
    write_text(run / f"{name}.csv", table.to_csv(index=False))
    body = io.BytesIO()
    table.to_parquet(body, index=False)
    write_bytes(run / f"{name}.parquet", body.getvalue())


def read_table(run: Folder, name: TableName) -> pd.DataFrame:
    """``NAME.csv``; empty where the run has none. Raises `RequestError` if it is damaged."""
    table, path = TABLES[name], run / f"{name}.csv"
    if not path.is_file():
        return pd.DataFrame(columns=np.array(table.columns))
    try:
        read = pd.read_csv(io.BytesIO(path.read_bytes()), **_reading(table))
    except (OSError, ValueError) as error:
        raise RequestError("run", run, f"its {name}.csv cannot be read ({type(error).__name__})") from None
    if list(read.columns) not in [table.columns_of(stacks) for stacks in {False, table.by_stack}]:
        raise RequestError("run", run, f"its {name}.csv is damaged: the columns are not those of a table of {name}")
    return read


def _reading(table: Table) -> dict:
    """How pandas is to read a table: a part of a context may be called "nan" or "12"."""
    if table.names is None:
        return {}
    numbers = [name for name in table.columns if name not in table.names]
    as_text = {name: str for name in ("part",) if name in table.names}
    return {"keep_default_na": False, "na_values": {name: [""] for name in numbers}, "dtype": as_text}


def with_notes(data: xr.Dataset, table: pd.DataFrame) -> xr.Dataset:
    """The arrays with the notes of their table of heads (``attrs["notes"]``), as an attribute of `effect`."""
    if "effect" not in data:
        return data
    return data.assign(effect=data["effect"].assign_attrs(notes=json.dumps(table.attrs["notes"])))


def roles_joined(given: xr.DataArray) -> pd.DataFrame:
    """`role_given` [role, …, layer, head] as one row per head, its roles joined by ``;`` in the column `roles`."""
    flat = given.stack(which=[dim for dim in given.dims if dim != "role"]).transpose("which", "role")
    names = given["role"].values.astype(object)
    return flat.indexes["which"].to_frame(index=False).assign(roles=[";".join(names[row]) for row in flat.values])


# --- arrays -------------------------------------------------------------------------------------------------------


def pattern_variable(stack: str = "") -> tuple[str, str, str]:
    """The variable that holds a stack's patterns, and what queries and keys are called there."""
    _, query, key = axes("pattern", stack)
    return variable_name("pattern", stack), query, key


def by_head(array: xr.DataArray) -> tuple[list[Head], Shaped[np.ndarray, "*other head"]]:
    """The heads that an array has a place for, in order, and its values with one last axis for them."""
    dims = [dim for dim in _PLACE if dim in array.dims]
    flat = array.stack(which=dims).transpose(..., "which")
    heads = [Head(int(at[-2]), int(at[-1]), *map(str, at[:-2])) for at in flat["which"].values]
    return heads, flat.values
