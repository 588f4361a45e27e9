"""Reproduce a saved run in today's environment and compare it value by value."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.config import Place, RequestError, RunSpec
from harness.hooks import Head
from harness.results import manifest, open_run, store
from harness.results.objects import Folder, folder_at
from harness.results.schema import read_table

#: The columns of ``heads.csv`` that are in the metric's unit.
VALUES = ("effect_mean", "ci_low", "ci_high", "direct_mean")
#: Keys of a manifest that describe how a run went, not what decided its numbers.
_OF_ITS_TIME = {
    "status",
    "hash",
    "started",
    "wall_seconds",
    "peak_memory_gb",
    "files",
    "error",
    "intervention_check",
    "code",
}


@dataclass(frozen=True)
class ValueChange:
    """A compared value: its name, its value before and now, and its saved interval."""

    name: str
    before: float
    now: float
    low: float = np.nan
    high: float = np.nan

    def __str__(self) -> str:
        text = f"{self.name}: {self.before:.6g} → {self.now:.6g} ({self.now - self.before:+.2g}"
        return f"{text}, its interval {self.low:.4g} to {self.high:.4g})" if np.isfinite(self.low) else f"{text})"


@dataclass(frozen=True)
class Reproduction:
    """The new run, the number of compared values, those that moved by more than `tolerance`, and the differences of
    the two environments."""

    run: Folder
    compared: int
    tolerance: float
    moved: tuple[ValueChange, ...]
    environment: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not self.moved


def reproduce(
    saved: str | Folder,
    where: str,
    progress: Callable[[str, int, int], None],
    say: Callable[[str], None],
    resume: str | None = None,
) -> Reproduction:
    """Run the spec of a saved run again, into the store `where`, and compare.

    `resume` is the directory of an unfinished earlier call; one with a complete run is only compared. A reference
    without arrays (spec, manifest and ``heads.csv``) is compared by its table. Raises `RequestError` for a directory
    that is no complete run, or has nothing to compare.
    """
    folder = folder_at(saved)
    if not folder.is_dir():
        raise RequestError("run", saved, "there is no such directory")
    record = manifest.read_manifest(folder)
    from harness import study  # here: it imports torch, and the checks above do not need it

    spec = study.saved_spec(folder, "run")
    if record["status"] != "complete":
        raise RequestError("run", saved, f"this run is {record['status']}, not complete: there is nothing to compare")
    table = read_table(folder, "heads")
    if table.empty and not (folder / "data.zarr").is_dir():
        raise RequestError("run", saved, "it has neither heads.csv nor data.zarr: there is nothing to compare")
    again = _run_again(record["runner"], spec, folder, Place(store=where, resume=resume), progress, say)
    try:
        return _compared(folder, record, table, again)
    except KeyboardInterrupt:
        raise study.Interrupted(again, run=str(folder)) from None


def _run_again(
    runner: str,
    spec: RunSpec,
    saved: Folder,
    place: Place,
    progress: Callable[[str, int, int], None],
    say: Callable[[str], None],
) -> Folder:
    """Run the spec and return the directory; a complete run to be resumed is returned as it is."""
    from harness import study

    if place.resume is not None:
        folder = folder_at(place.resume)
        if folder.absolute() == saved.absolute():
            raise RequestError("resume", folder, "this is the saved run itself; name the directory of the new one")
        if study.is_complete(runner, spec, folder):
            return folder
    try:
        again = study.run(runner, spec, place, progress, say)
    except study.Interrupted as stop:
        stop.settings = {"run": str(saved), **stop.settings}
        raise
    assert again is not None
    return again


def _compared(folder: Folder, record: dict[str, Any], table: pd.DataFrame, again: Folder) -> Reproduction:
    """Compare the saved run (its `record` and `table`) with the new one, and write ``reproduction.json`` there."""
    now, tolerance = open_run(again), float(record["tolerance"])
    compared = list(_of_tables(table, now.heads))
    if (folder / "data.zarr").is_dir():
        compared += _of_arrays(open_run(folder).data, now.data)
    moved = tuple(each for each in compared if not abs(each.now - each.before) <= tolerance)
    result = Reproduction(again, len(compared), tolerance, moved, tuple(_differences(record, now.manifest)))
    plain = {**asdict(result), "run": str(again), "of": str(folder), "holds": result.holds}
    store.write_text(again / "reproduction.json", json.dumps(plain, indent=1, default=str))
    return result


def _of_tables(before: pd.DataFrame, now: pd.DataFrame) -> Iterator[ValueChange]:
    """Yield every value of the table; NaN for one that the new run lacks."""
    new = {_key(row): row for row in now.to_dict("records")}
    for row in before.to_dict("records"):
        metric, head = _key(row)
        other = new.get((metric, head), {})
        for column in VALUES:
            if np.isfinite(row[column]):
                ends = (row["ci_low"], row["ci_high"]) if column == "effect_mean" else (np.nan, np.nan)
                yield ValueChange(f"{metric} {head} {column}", row[column], float(other.get(column, np.nan)), *ends)


def _key(row: dict[Any, Any]) -> tuple[str, Head]:
    return str(row["metric"]), Head(int(row["layer"]), int(row["head"]), str(row.get("stack", "")))


def _of_arrays(before: Any, now: Any) -> Iterator[ValueChange]:
    """Yield the value with the largest difference of every array of floats, and of the tokens that were written."""
    for name, array in before.data_vars.items():
        if array.dtype.kind != "f" and "new_position" not in array.dims:
            continue
        old = array.values.astype(float)
        new = now[name].values.astype(float) if name in now else np.empty(0)
        if old.shape != new.shape:
            yield ValueChange(f"{name} (another shape: {old.shape} → {new.shape})", 0.0, np.nan)
            continue
        off = np.where(np.isnan(old) & np.isnan(new) | (old == new), 0, np.abs(new - old))
        at = np.unravel_index(int(np.nan_to_num(off, nan=np.inf).argmax()), old.shape)
        label = ", ".join(f"{dim} {int(index)}" for dim, index in zip(array.dims, at, strict=True))
        before_there = np.nan_to_num(old[at]) if off[at] == 0 else old[at]  # NaN in both is equal
        yield ValueChange(f"{name} at {label}", float(before_there), float(before_there if off[at] == 0 else new[at]))


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the manifest entries that decide numbers and differ."""
    for key in sorted({*old, *new} - (set() if prefix else _OF_ITS_TIME)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}: {before} → {after}"
