"""The runs in a store: what each was asked, how it ended, its size and age; and deleting those that are named."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import yaml

from harness.config import ListSpec, RequestError, near
from harness.results import store
from harness.results.manifest import read_manifest

DAMAGED = "damaged"
_COLUMNS = ("run", "model", "prompts", "metrics", "status", "size", "age")


@dataclass(frozen=True)
class RunSummary:
    """One run: its name in the store, what it was asked, how it ended, its size in bytes and when it began."""

    name: str
    runner: str
    model: str
    prompts: str
    metrics: tuple[str, ...]
    status: str
    size: int
    started: float


def runs(asked: ListSpec) -> list[RunSummary]:
    """The runs that pass the filters, newest first."""
    root, where = Path(asked.store), asked.where
    wanted = {"runner": where.runner, "model": where.model, "prompts": where.prompts, "status": where.status}
    found = [
        run
        for run in (_listed(root, folder) for folder in _folders(root))
        if all(value is None or getattr(run, name) == value for name, value in wanted.items())
        and (where.metric is None or where.metric in run.metrics)
    ]
    return sorted(found, key=lambda run: (-run.started, run.name))


def delete(asked: ListSpec) -> list[tuple[str, str]]:
    """Delete the named runs and give their names and sizes. All are checked before the first goes.

    Raises `RequestError` for a name that is no run of the store, and unless it was confirmed.
    """
    if not asked.delete:
        return []
    known = {run.name: run for run in runs(ListSpec(store=asked.store))}
    for name in asked.delete:
        if name not in known:
            raise RequestError("delete", name, f"{asked.store} has no such run; {near(name, tuple(known)[:5])}")
    chosen = [known[name] for name in dict.fromkeys(asked.delete)]
    if not asked.confirm:
        total = _size(sum(run.size for run in chosen))
        raise RequestError(
            "confirm", "false", f"this would delete {', '.join(run.name for run in chosen)} ({total}); say confirm=true"
        )
    for run in chosen:
        folder = Path(asked.store) / run.name
        with store.locked(folder, "delete"):
            shutil.rmtree(folder)
    return [(run.name, _size(run.size)) for run in chosen]


def described(found: Sequence[RunSummary], now: float) -> list[str]:
    """The runs as lines of a table; one line if there are none."""
    if not found:
        return ["no such runs"]
    rows = [
        (run.name, run.model, run.prompts, ",".join(run.metrics), run.status, _size(run.size), _age(now - run.started))
        for run in found
    ]
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    lines = (zip(row, widths, strict=True) for row in (_COLUMNS, *rows))
    return ["  ".join(cell.ljust(width) for cell, width in line).rstrip() for line in lines]


def _folders(root: Path) -> list[Path]:
    """The run directories of a store, ``RUNNER/RUN`` or ones that were given a name; never behind a link."""
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
        return RunSummary(name, folder.parent.name if folder.parent != root else "", "", "", (), DAMAGED, size, began)
    return RunSummary(name, str(manifest["runner"]), model, prompts, metrics, str(manifest["status"]), size, began)


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.1f} MB"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
