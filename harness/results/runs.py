"""List the runs in a store with settings, status, size and age, and delete runs by name."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path

import yaml

from harness.config import ListSpec, RequestError, near
from harness.results import store
from harness.results.manifest import read_manifest
from harness.results.settings import differing, flat

DAMAGED = "damaged"
_COLUMNS = ("run", "model", "prompts", "metrics", "differs", "status", "size", "age")
#: Shorter names of what is filtered by most; any other key of ``where`` is a dotted key of the spec.
_SHORT = ("runner", "model", "prompts", "metric", "status")
#: Keys with a column of their own.
_SHOWN = ("model.name", "prompts.name", "metrics")


@dataclass(frozen=True)
class RunSummary:
    """A run's name in the store, status, size in bytes, start in seconds since 1970, and its settings by dotted key."""

    name: str
    runner: str
    model: str
    prompts: str
    metrics: tuple[str, ...]
    status: str
    size: int
    started: float
    settings: Mapping[str, str]


def runs(request: ListSpec) -> list[RunSummary]:
    """List the runs that pass the filters, newest first."""
    root, wanted = Path(request.store), dict(flat(request.where))
    every = [_listed(root, folder) for folder in _folders(root)]
    known = {key for run in every for key in run.settings}
    for key in wanted:
        if key not in known and key not in _SHORT:
            raise RequestError(f"where.{key}", wanted[key], f"no run has this key; {_nearest(key, known)}")
    matches = [
        run for run in every if all(_passes(run, key, value) for key, value in wanted.items() if value != "null")
    ]
    return sorted(matches, key=lambda run: (-run.started, run.name))


def _nearest(key: str, known: set[str]) -> str:
    alike = get_close_matches(key, sorted(known | {*_SHORT}), 1, 0.5)
    return (
        f"did you mean {alike[0]}? " if alike else ""
    ) + f"filter by {', '.join(_SHORT)} or a dotted key of a spec.yaml"


def _passes(run: RunSummary, key: str, value: str) -> bool:
    if key == "metric":
        return value in run.metrics
    return value == (getattr(run, key) if key in _SHORT else run.settings.get(key))


def _differences(summaries: Sequence[RunSummary]) -> list[str]:
    """Return for each run the settings in which the runs of its runner differ, as on a command line, but for those with
    a column of their own."""
    texts: dict[str, str] = {}
    for runner in {run.runner for run in summaries}:
        mine = [run for run in summaries if run.runner == runner and run.settings]
        columns = {key: each for key, each in differing([run.settings for run in mine]).items() if key not in _SHOWN}
        for at, run in enumerate(mine):
            texts[run.name] = " ".join(f"{key}={column[at]}" for key, column in columns.items() if column[at])
    return [texts.get(run.name, "") for run in summaries]


def delete(request: ListSpec) -> list[tuple[str, str]]:
    """Delete the named runs, after checking all of them, and return their names and sizes.

    Raises `RequestError` for a name that is no run of the store, and unless `confirm` is set.
    """
    if not request.delete:
        return []
    known = {run.name: run for run in runs(ListSpec(store=request.store))}
    for name in request.delete:
        if name not in known:
            raise RequestError("delete", name, f"{request.store} has no such run; {near(name, tuple(known)[:5])}")
    chosen = [known[name] for name in dict.fromkeys(request.delete)]
    if not request.confirm:
        total = _size(sum(run.size for run in chosen))
        raise RequestError(
            "confirm", "false", f"this would delete {', '.join(run.name for run in chosen)} ({total}); set confirm=true"
        )
    for run in chosen:
        folder = Path(request.store) / run.name
        with store.locked(folder, "delete"):
            shutil.rmtree(folder)
    return [(run.name, _size(run.size)) for run in chosen]


def format_table(summaries: Sequence[RunSummary], now: float) -> list[str]:
    """Format runs as lines of a table; one line if there are none."""
    if not summaries:
        return ["no such runs"]
    rows = [
        (run.name, run.model, run.prompts, ",".join(run.metrics), differs, run.status, _size(run.size), age)
        for run, differs, age in zip(
            summaries, _differences(summaries), (_age(now - run.started) for run in summaries), strict=True
        )
    ]
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    lines = (zip(row, widths, strict=True) for row in (_COLUMNS, *rows))
    return ["  ".join(cell.ljust(width) for cell, width in line).rstrip() for line in lines]


def _folders(root: Path) -> list[Path]:
    """Return the run directories of a store, ``RUNNER/RUN`` or named ones; symbolic links are not followed."""
    if not root.is_dir():
        raise RequestError("store", root, "there is no such directory")
    inside = [folder for folder in root.iterdir() if folder.is_dir() and not folder.is_symlink()]
    below = [each for folder in inside if not _is_run(folder) for each in folder.iterdir() if not each.is_symlink()]
    return [folder for folder in (*inside, *below) if _is_run(folder)]


def _is_run(folder: Path) -> bool:
    return folder.is_dir() and (folder / "spec.yaml").is_file()


def _listed(root: Path, folder: Path) -> RunSummary:
    name, files = folder.relative_to(root).as_posix(), (each for each in folder.rglob("*") if not each.is_symlink())
    size = sum(each.stat().st_size for each in files if each.is_file())
    began = (folder / "spec.yaml").stat().st_mtime
    try:
        manifest, spec = read_manifest(folder), yaml.safe_load((folder / "spec.yaml").read_text(encoding="utf-8"))
        began = datetime.fromisoformat(manifest["started"]).timestamp()
        metrics = tuple(map(str, spec["metrics"]))
        model, prompts = (str(spec[part]["name"]) for part in ("model", "prompts"))
    except (RequestError, OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return RunSummary(
            name, folder.parent.name if folder.parent != root else "", "", "", (), DAMAGED, size, began, {}
        )
    return RunSummary(
        name, str(manifest["runner"]), model, prompts, metrics, str(manifest["status"]), size, began, dict(flat(spec))
    )


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.1f} MB"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
