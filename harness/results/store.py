"""Atomic writes: units with checksums, plans, text, and the arrays made from them.

On a disk everything is written under a temporary name in the same folder and renamed; in an object store (`objects`)
each write is atomic. A full or read-only disk is a `RequestError`, not a traceback.
"""

import asyncio
import hashlib
import io
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from filelock import FileLock, Timeout

from harness.config import RequestError, disk_error
from harness.results.lease import leased
from harness.results.objects import Folder, ObjectPath

#: The lock file of a run, removed at the end; names of leases begin with it.
LOCK = ".lock"


@contextmanager
def writing(path: Folder, key: str = "store") -> Iterator[None]:
    """Raise errors of the disk inside as a `RequestError` with the path and the remedy to change `key`."""
    try:
        yield
    except RequestError:
        raise
    except Exception as error:
        if not (refused := disk_error(error)):
            raise
        raise RequestError(key, path, f"{refused}; choose another with {key}=DIR") from error


def make_folder(path: Folder) -> Folder:
    """Make an empty run directory. Raises `RequestError` for one that is not empty."""
    with writing(path, "run"):
        path.mkdir(parents=True, exist_ok=True)
        check_empty(path)
    return path


def check_empty(path: Folder) -> None:
    """Raise `RequestError` for a new run's directory that is not empty, but for locks and parts of a killed process."""
    names = [entry.name for entry in path.iterdir()]
    if any(not name.startswith(LOCK) and not (name.startswith(".") and name.endswith(".part")) for name in names):
        raise RequestError("run", path, "this directory is not empty; continue it with resume=DIR, or name another")


def make_new_folder(path: Folder) -> bool:
    """Make a directory; False if it exists. Of two processes one succeeds (in an object store, without directories,
    both may, and the lock decides)."""
    if isinstance(path, ObjectPath):
        return not path.is_dir()
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path):
        try:
            path.mkdir()
        except FileExistsError:
            return False
    return True


@contextmanager
def locked(folder: Folder, key: str = "resume") -> Iterator[None]:
    """Lock a run inside the context. Raises `RequestError` with `key` where another process holds the lock.

    A dead process holds no lock on a disk; its lease in an object store lasts until it expires. The lock file is
    removed while it is held, so another process may then lock a nameless file: read again inside whether there is work
    to do.
    """
    if isinstance(folder, ObjectPath):
        with leased(folder, key):
            yield
        return
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        with writing(folder):
            lock.acquire()
    except Timeout:
        raise RequestError(key, folder, "another process is working on this run") from None
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / LOCK).unlink()
        lock.release()


def write_bytes(path: Folder, content: bytes) -> None:
    """Write a file atomically."""
    if isinstance(path, ObjectPath):
        path.write_bytes(content)
        return
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.write_bytes(content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def remove_parts(folder: Folder) -> None:
    """Remove partial files of a dead process; an object store has none."""
    for part in () if isinstance(folder, ObjectPath) else folder.rglob(".*.part"):
        shutil.rmtree(part) if part.is_dir() else part.unlink()


def write_text(path: Folder, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def seal(values: Mapping[str, Any]) -> str:
    """Return JSON with a SHA-256 checksum of its values."""
    return json.dumps({**values, "checksum": _digest_of(values)}, indent=1, ensure_ascii=False)


def unseal(text: str) -> dict[str, Any]:
    """Parse JSON of `seal`. Raises `ValueError` where the checksum does not match."""
    values = json.loads(text)
    if not isinstance(values, dict) or values.pop("checksum", None) != _digest_of(values):
        raise ValueError("it does not have its checksum")
    return values


def _digest_of(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


# --- stages -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StageFolder:
    """``stages/<stage>/``: the frozen plan and the finished units."""

    path: Folder

    def plan(self) -> dict[str, Any] | None:
        """Read the frozen plan; ``None`` without one. Raises `RequestError` if it is damaged."""
        try:
            return unseal((self.path / "plan.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            raise RequestError("resume", self.path / "plan.json", "this plan is damaged; start a new run") from None

    def freeze(self, plan: Mapping[str, Any]) -> dict[str, Any]:
        """Write the plan, and return it as `plan` will read it."""
        text = seal(plan)
        write_text(self.path / "plan.json", text)
        return unseal(text)

    def _unit(self, number: int) -> Folder:
        return self.path / "units" / f"{number:05d}.unit"

    def write(self, number: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write one unit: a SHA-256, then the arrays (never pickled)."""
        body = io.BytesIO()
        np.savez(body, allow_pickle=False, **arrays)  # pyright: ignore[reportArgumentType]
        content = body.getvalue()
        write_bytes(self._unit(number), hashlib.sha256(content).hexdigest().encode() + b"\n" + content)

    def read(self, number: int) -> dict[str, np.ndarray] | None:
        """Read a unit; ``None`` if it is missing or does not match its checksum."""
        try:
            digest, content = self._unit(number).read_bytes().split(b"\n", 1)
        except (FileNotFoundError, ValueError):
            return None
        if hashlib.sha256(content).hexdigest().encode() != digest:
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)

    def drop_units(self) -> None:
        """Remove the units, once the arrays are written."""
        _remove(self.path / "units")


# --- arrays -----------------------------------------------------------------------------------------------------


def write_data(run: Folder, data: xr.Dataset) -> None:
    """Write ``data.zarr`` atomically; in an object store it is whole only once the run is complete."""
    if isinstance(run, ObjectPath):
        _remove(run / "data.zarr")
        with _zarr_warnings():
            _to_zarr(data, (run / "data.zarr").zarr(read_only=False))
        return
    from zarr.core.sync import sync

    final, building = run / "data.zarr", run / ".data.zarr.part"
    shutil.rmtree(building, ignore_errors=True)
    with writing(run), _zarr_warnings():
        try:
            _to_zarr(data, building)
            shutil.rmtree(final, ignore_errors=True)
            building.rename(final)
        except Exception:  # not an interrupt, which must not wait; a resume removes what is left
            sync(_others_done())
            raise
        finally:
            shutil.rmtree(building, ignore_errors=True)


async def _others_done() -> None:
    """Wait for zarr's other chunk writes, which continue when one fails and would write after the removal."""
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)


def _to_zarr(data: xr.Dataset, where: Any) -> None:
    data.to_zarr(where, mode="w", zarr_format=2, consolidated=True, encoding=_encoding(data))


def read_data(run: Folder) -> xr.Dataset:
    """Open ``data.zarr`` lazily. Raises `RequestError` if it is missing or damaged."""
    where = run / "data.zarr"
    try:
        with _zarr_warnings():
            arrays = where.zarr(read_only=True) if isinstance(where, ObjectPath) else where
            data = xr.open_zarr(arrays, consolidated=True, chunks=None)
    except (OSError, ValueError, KeyError) as error:
        raise RequestError("run", run, f"its data.zarr cannot be read ({type(error).__name__})") from None
    # The consolidated metadata still names an array whose directory is gone, and zarr would read it as fill values.
    lost = [str(name) for name in data.variables if not (where / str(name) / ".zarray").is_file()]
    if lost:
        raise RequestError("run", run, f"its data.zarr is damaged: {', '.join(lost)} is missing")
    return data


def digests(run: Folder) -> dict[str, str]:
    """Return the SHA-256 of each table that `open_run` reads, and of ``data.zarr`` over its files by name."""
    tables = ("heads", "methods", "changes", "parts", "part_heads", "texts", "tasks")
    checksums = {}
    for path in (run / name for name in (*(f"{table}.csv" for table in tables), "data.zarr")):
        if path.is_file():
            checksums[path.name] = _file_digest(path)
        elif path.is_dir():
            lines = "".join(f"{digest}  {name}\n" for name, digest in _digests_inside(path))
            checksums[path.name] = hashlib.sha256(lines.encode()).hexdigest()
    return checksums


def _digests_inside(folder: Folder) -> Iterator[tuple[str, str]]:
    """Yield relative name and SHA-256 of all files below a folder, in order."""
    if isinstance(folder, ObjectPath):
        yield from ((name, hashlib.sha256(content).hexdigest()) for name, content in folder.contents())
    else:
        files = sorted((file.relative_to(folder).as_posix(), file) for file in folder.rglob("*") if file.is_file())
        yield from ((name, _file_digest(file)) for name, file in files)


def _file_digest(path: Folder) -> str:
    if isinstance(path, ObjectPath):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove(folder: Folder) -> None:
    """Remove a folder and its content, if it exists."""
    if isinstance(folder, ObjectPath):
        folder.remove()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _encoding(data: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Chunk patterns by prompt and layer, so that one head is read without the rest."""
    chunks = {"prompt": 1, "layer": 1}
    return {
        str(name): {
            "chunks": tuple(chunks.get(str(dim), size) for dim, size in zip(array.dims, array.shape, strict=True))
        }
        for name, array in data.data_vars.items()
        if "query" in array.dims and "layer" in array.dims
    }


@contextmanager
def _zarr_warnings() -> Iterator[None]:
    """Silence zarr's warnings about strings and consolidated metadata, which are harmless, and no others."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(StringDType|string|Consolidated metadata|data type).*")
        yield
