"""The weight cache: a folder appears in it whole or not at all.

A converted model is built under a temporary name, described by ``harness.json`` with the SHA-256 of each file, and
renamed into place; a lock keeps two processes from doing the work twice. What has no valid description is not
there.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

RECORD = "harness.json"


def cache_dir() -> Path:
    """Where converted weights live: ``HARNESS_CACHE``, or the user's cache directory."""
    home = os.environ.get("HARNESS_CACHE")
    if home:
        return Path(home).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attention-harness"


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def built(key: str, build: Callable[[Path], None]) -> Path:
    """The folder that `build` fills, from the cache if it is there and unharmed.

    `build` gets an empty temporary folder. If it raises, or the process dies, nothing is left that a later call
    would take for finished.
    """
    root = cache_dir() / "models"
    root.mkdir(parents=True, exist_ok=True)
    final = root / key
    with FileLock(root / f"{key}.lock"):
        if not _intact(final):
            _build(final, build)
    return final


def _build(final: Path, build: Callable[[Path], None]) -> None:
    for left in final.parent.glob(f".{final.name}.*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        build(folder)
        files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
        (folder / RECORD).write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        folder.rename(final)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _intact(folder: Path) -> bool:
    try:
        files = json.loads((folder / RECORD).read_text(encoding="utf-8"))["files"]
        return all(sha256(folder / name) == digest for name, digest in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
