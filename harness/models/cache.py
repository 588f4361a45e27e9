"""Weight cache, in which a folder appears whole or not at all.

A converted model is built under a temporary name, described by ``harness.json`` with the SHA-256 of each file, and
renamed into place; a lock keeps two processes from doing the work twice. A folder without a valid description is built
again.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from harness.config import RequestError, disk_error

RECORD = "harness.json"


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Raise errors of the disk inside as a `RequestError` with the path and a remedy."""
    try:
        yield
    except RequestError:
        raise
    except Exception as error:
        if not (refused := disk_error(error)):
            raise
        advice = f"{refused}; set HARNESS_CACHE to a folder that can be written to"
        raise RequestError("HARNESS_CACHE", path, advice) from error


def cache_dir() -> Path:
    """Return the folder of converted weights: ``HARNESS_CACHE``, or in the user's cache directory."""
    home = os.environ.get("HARNESS_CACHE")
    if home:
        return Path(home).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attention-harness"


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def build_cached(key: str, build: Callable[[Path], None]) -> Path:
    """Return the cached folder `key`, filled by `build` unless it is there with its checksums.

    `build` gets an empty temporary folder. If it raises, or the process dies, no later call takes the folder for
    finished.
    """
    root = cache_dir() / "models"
    final = root / key
    if _intact(final):
        return final
    with _writing(root):
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{key}.lock"):
            if not _intact(final):
                _build(final, build)
    return final


def read_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a folder of `build_cached`, which verified them."""
    return json.loads((folder / RECORD).read_text(encoding="utf-8"))["files"]


def _build(final: Path, build: Callable[[Path], None]) -> None:
    for left in final.parent.glob(f".{final.name}.*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        build(folder)
        inside = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): sha256(path) for path in inside}
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
