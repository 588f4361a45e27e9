"""Manifests: everything that decides a run's numbers, and how the run ended. No key is optional."""

import hashlib
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harness.config import RequestError
from harness.results.objects import Folder
from harness.results.store import seal, unseal, write_text

PACKAGES = (
    "torch",
    "transformers",
    "transformer-lens",
    "numpy",
    "pandas",
    "xarray",
    "zarr",
    "safetensors",
    "circuitsvis",
)
STATUSES = ("running", "complete", "failed")
#: The format of a run directory (`harness.results.schema`), raised whenever older runs become unreadable.
FORMAT = 4
KEYS = (
    "format",
    "version",
    "status",
    "runner",
    "parent",
    "hash",
    "started",
    "commit",
    "dirty",
    "code",
    "packages",
    "python",
    "platform",
    "threads",
    "device",
    "dtype",
    "model",
    "prompts_sha256",
    "words",
    "bos_first",
    "choices",
    "seed",
    "intervention_check",
    "tolerance",
    "wall_seconds",
    "peak_memory_gb",
    "files",
    "error",
)


def write_manifest(run: Folder, values: Mapping[str, Any]) -> None:
    """Write ``manifest.json``. Raises `ValueError` for missing or unknown keys."""
    if set(values) != set(KEYS) or values["status"] not in STATUSES:
        raise ValueError(f"not a manifest: {sorted(set(values) ^ set(KEYS))}, status {values.get('status')}")
    write_text(run / "manifest.json", seal({key: values[key] for key in KEYS}))


def begun(run: Folder) -> bool:
    """Whether the run has a manifest."""
    return (run / "manifest.json").is_file()


def read_manifest(run: Folder) -> dict[str, Any]:
    """Read ``manifest.json``. Raises `RequestError` if it is missing, damaged or of another format."""
    try:
        values = unseal((run / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RequestError("run", run, "this directory holds no run: it has no manifest.json") from None
    except (OSError, ValueError):
        remedy = "its manifest.json is damaged; one that was not complete goes on without it: remove it, and resume=DIR"
        raise RequestError("run", run, remedy) from None
    if values.get("format") != FORMAT:
        written = f"format {values.get('format', 1)} by attention-harness {values.get('version', '0.1.0')}"
        commit = f" (commit {str(values['commit'])[:12]})" if values.get("commit") else ""
        remedy = f"this version reads format {FORMAT}: open it with that one, or run its spec.yaml again"
        raise RequestError("run", run, f"it was written in {written}{commit}; {remedy}")
    if set(values) != set(KEYS) or values["status"] not in STATUSES:
        raise RequestError("run", run, "its manifest.json is damaged: keys are missing or unknown")
    return values


def environment() -> dict[str, Any]:
    """Describe the environment: commit, packages, Python, platform."""
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    return {
        "version": _version("attention-harness"),
        "commit": commit,
        "dirty": None if changes is None else bool(changes),
        "code": code_digest(),
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


@cache
def code_digest() -> str:
    """Return the SHA-256 of this package's Python files, read once in a process."""
    return digest_of(Path(__file__).resolve().parents[1])


def digest_of(home: Path) -> str:
    """Return the SHA-256 of the names and contents of a folder's Python files."""
    files = sorted((path.relative_to(home).as_posix(), path) for path in home.rglob("*.py"))
    content = b"".join(name.encode() + b"\0" + path.read_bytes() for name, path in files)
    return hashlib.sha256(content).hexdigest()


def peak_memory_gb() -> float:
    """Return the largest resident size of this process so far, in GB, from ``/proc`` where possible: on Linux
    `getrusage` includes the process it was forked from."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) * 1024 / 1e9, 3)
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 3)


@cache
def _git(*arguments: str) -> str | None:
    """Run git on this file's checkout, once in a process (whose code is that of its start); ``None`` without one."""
    home = Path(__file__).resolve().parents[2]
    if not (home / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", home, *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
