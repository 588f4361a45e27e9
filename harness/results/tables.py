"""Arrays to ``heads.csv``: one row per metric and head. What was not computed is empty.

An encoder-decoder has a column `stack` before the layer.
"""

import io
import json
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from harness import stats
from harness.attribution.context.tables import COLUMNS as PARTS_COLUMNS
from harness.attribution.context.tables import HEAD_COLUMNS as PART_HEADS_COLUMNS
from harness.attribution.evaluate.tables import COLUMNS as METHODS_COLUMNS
from harness.compare.tables import changes_columns
from harness.config import RequestError, StatsSpec
from harness.metrics import meaning
from harness.results.objects import Folder
from harness.results.store import write_bytes, write_text
from harness.roles import roles_joined

HEADS_COLUMNS = (
    "metric",
    "layer",
    "head",
    "effect_mean",
    "ci_low",
    "ci_high",
    "direct_mean",
    "effect_size",
    "p_value",
    "q_value",
    "p_adjusted",
    "p_important",
    "significant",
    "important",
    "rank",
    "n_prompts",
    "n_clusters",
    "n_effective_clusters",
    "method",
    "estimate",
    "effect_error",
    "roles",
)

#: Of ``methods.csv``: what is empty there is no number; an empty name is no name.
_NUMBERS = ("mean", "ci_low", "ci_high", "q_value")
#: Of ``changes.csv``, the same.
_MEASURED = [name for name in changes_columns(False) if not name.startswith(("metric", "roles", "significant"))]


def heads_table(data: xr.Dataset, asked: StatsSpec) -> pd.DataFrame:
    """The table of heads from `effect` [metric, prompt, layer, head] and `clean` [metric, prompt].

    `asked.min_effect` is a share of the clean value; a distance, which is 0 when clean, has no such threshold and
    its heads are ranked only. Roles are those of `role_given`; a run that looked for roles and ablated no single heads
    has one row for each head, and no metric in it. ``attrs["notes"]`` says for each metric what its clusters of prompts
    cannot show (`harness.stats.summarize`).
    """
    notes: dict[str, str] = {}
    roles = roles_joined(data["role_given"]) if "role_given" in data else None
    if "effect" in data:
        each = [_of_metric(data, str(name), asked) for name in data["metric"].values]
        notes = {str(name): one.attrs["note"] for name, one in zip(data["metric"].values, each, strict=True)}
        table = pd.concat(each, ignore_index=True)
        table = table if roles is None else table.merge(roles, how="left")
    else:
        assert roles is not None
        table = roles
    table = table.reindex(columns=_columns("stack" in table))
    table.attrs = {"notes": notes}
    return table


def with_notes(data: xr.Dataset, table: pd.DataFrame) -> xr.Dataset:
    """The arrays with the notes of their table of heads, as an attribute of `effect`."""
    if "effect" not in data:
        return data
    return data.assign(effect=data["effect"].assign_attrs(notes=json.dumps(table.attrs["notes"])))


def _columns(stacks: bool) -> list[str]:
    first, *rest = HEADS_COLUMNS
    return [first, *["stack"] * stacks, *rest]


def _of_metric(data: xr.Dataset, name: str, asked: StatsSpec) -> pd.DataFrame:
    """The rows of one metric. A distance is held against what random edits of the same size did."""
    effect = data["effect"].sel(metric=name)
    metric = meaning(name, effect.attrs)
    threshold = asked.min_effect * abs(float(data["clean"].sel(metric=name).mean()))
    table = summarized = stats.summarize(
        effect,
        clusters=data["cluster"].values,
        higher_is_better=bool(metric.higher_is_better),
        confidence=asked.confidence,
        level=asked.level,
        resamples=asked.resamples,
        min_effect=None if metric.distance else threshold,
        seed=asked.seed,
        distance=metric.distance,
        null=data["null_effect"].sel(metric=name) if metric.distance and "null_effect" in data else None,
        tested=int(data["estimate"].sel(metric=name).notnull().any("prompt").sum()) if "estimate" in data else None,
    )
    if "direct" in data:
        table["direct_mean"] = _at(data["direct"].sel(metric=name).mean("prompt"), table)
    made = _with_method(table, data, name).assign(metric=name)
    made.attrs = {"note": summarized.attrs["note"]}
    return made


def _at(values: xr.DataArray, table: pd.DataFrame) -> np.ndarray:
    """Values [layer, head] of the heads of a table."""
    return values.sel({dim: xr.DataArray(table[dim].to_numpy()) for dim in values.dims}).values


def _with_method(table: pd.DataFrame, data: xr.Dataset, name: str) -> pd.DataFrame:
    """The table with how each head was measured: how far a fast effect may be off; a screen's estimates, those of heads
    that it left at that too."""
    said = data["effect"].attrs
    if "exact" not in data:
        return table.assign(method=said.get("method", "exact"))
    if "estimate" in data:
        mean = data["estimate"].sel(metric=name).mean("prompt")
        every = mean.to_series().dropna().rename("estimate").reset_index()
        table = table.merge(every, on=list(mean.dims), how="outer")
    exact = _at(data["exact"], table)
    error = json.loads(said["errors"])[name]["rms"] if "errors" in said else np.nan
    return table.assign(method=np.where(exact, "exact", said["method"]), effect_error=np.where(exact, 0.0, error))


#: The tables that a run may have.
Table = Literal["heads", "methods", "method_pairs", "roles", "changes", "parts", "part_heads"]


def write(run: Folder, name: Table, table: pd.DataFrame) -> None:
    """A table as ``NAME.csv`` and ``NAME.parquet``, each whole or not at all. The CSV is what is read again."""
    write_text(run / f"{name}.csv", table.to_csv(index=False))
    body = io.BytesIO()
    table.to_parquet(body, index=False)
    write_bytes(run / f"{name}.parquet", body.getvalue())


def _read(path: Folder) -> io.BytesIO:
    return io.BytesIO(path.read_bytes())


def read_heads(run: Folder) -> pd.DataFrame:
    """``heads.csv``; empty where the run ablated no single heads. Raises `RequestError` if it is damaged."""
    if not (run / "heads.csv").is_file():
        return pd.DataFrame(columns=np.array(HEADS_COLUMNS))
    try:
        table = pd.read_csv(_read(run / "heads.csv"))
    except (OSError, ValueError) as error:
        raise RequestError("run", run, f"its heads.csv cannot be read ({type(error).__name__})") from None
    if list(table.columns) not in (_columns(False), _columns(True)):
        raise RequestError("run", run, "its heads.csv is damaged: the columns are not those of a table of heads")
    return table


def read_methods(run: Folder) -> pd.DataFrame:
    """``methods.csv``; empty where no method was held against a cause. Raises `RequestError` if it is damaged."""
    if not (run / "methods.csv").is_file():
        return pd.DataFrame(columns=np.array(METHODS_COLUMNS))
    try:
        table = pd.read_csv(
            _read(run / "methods.csv"), keep_default_na=False, na_values={name: [""] for name in _NUMBERS}
        )
    except (OSError, ValueError) as error:
        raise RequestError("run", run, f"its methods.csv cannot be read ({type(error).__name__})") from None
    if tuple(table.columns) != METHODS_COLUMNS:
        raise RequestError("run", run, "its methods.csv is damaged: the columns are not those of a table of methods")
    return table


def read_changes(run: Folder) -> pd.DataFrame:
    """``changes.csv``; empty where no two models with the same heads were compared. Raises `RequestError` if it is
    damaged."""
    if not (run / "changes.csv").is_file():
        return pd.DataFrame(columns=np.array(changes_columns(False)))
    try:
        table = pd.read_csv(
            _read(run / "changes.csv"), keep_default_na=False, na_values={name: [""] for name in _MEASURED}
        )
    except (OSError, ValueError) as error:
        raise RequestError("run", run, f"its changes.csv cannot be read ({type(error).__name__})") from None
    if list(table.columns) not in (changes_columns(False), changes_columns(True)):
        raise RequestError("run", run, "its changes.csv is damaged: the columns are not those of a table of changes")
    return table


def read_parts(run: Folder, name: str) -> pd.DataFrame:
    """``parts.csv`` or ``part_heads.csv``; empty where nothing was traced. Raises `RequestError` if it is damaged."""
    columns = PARTS_COLUMNS if name == "parts" else PART_HEADS_COLUMNS
    empty = {each: [""] for each in columns if each not in ("measure", "part", "over")}  # a part may be called "nan"
    if not (run / f"{name}.csv").is_file():
        return pd.DataFrame(columns=np.array(columns))
    try:
        table = pd.read_csv(_read(run / f"{name}.csv"), dtype={"part": str}, keep_default_na=False, na_values=empty)
    except (OSError, ValueError) as error:
        raise RequestError("run", run, f"its {name}.csv cannot be read ({type(error).__name__})") from None
    if tuple(table.columns) != columns:
        raise RequestError("run", run, f"its {name}.csv is damaged: the columns are not those of a table of parts")
    return table
