"""Where a run is written, and where runs are read from."""

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from harness.config.errors import RequestError
from harness.config.types import PathText


def check_place(key: str, place: str) -> None:
    """Raise `RequestError` for an address that is no object store's, or that carries a password (not repeated)."""
    scheme, there, rest = place.partition("://")
    if not there:
        if os.path.isfile(place):  # False too for a path that is too long, which is refused by name later
            raise RequestError(key, place, "this is a file: name a folder")
        return
    if "@" in rest or "?" in rest:
        remedy = "leave keys out of the address: set them in the environment (AWS_ACCESS_KEY_ID …)"
        raise RequestError(key, f"{scheme}://…", remedy)
    if scheme != "s3" or not re.fullmatch(r"[a-z0-9][a-z0-9.-]+(/[^/]+)*/?", rest):
        raise RequestError(key, place, "name a folder, or an object store as s3://BUCKET/PREFIX")


def check_new(key: str, place: str) -> None:
    """Raise `RequestError` for a place that is no new or empty folder of a disk."""
    if "://" in place:
        raise RequestError(key, place, "a checkpoint is written to a disk: name a folder")
    check_place(key, place)
    if Path(place).is_dir() and any(Path(place).iterdir()):
        raise RequestError(key, place, "this folder is not empty: name a new one")


def check_there(key: str, place: str) -> None:
    """Raise `RequestError` for a missing folder on disk, before the slow imports of its reader."""
    if "://" not in place and not Path(place).is_dir():
        raise RequestError(key, place, "there is no such directory")


def _holds_runs(path: str) -> bool:
    """Whether a path is a folder of runs, not a run itself."""
    return bool(path) and not (Path(path) / "spec.yaml").is_file() and any(Path(path).glob("*/spec.yaml"))


def run_folders(patterns: Sequence[str]) -> list[str]:
    """Return the run directories of these patterns and paths, each once, those of a pattern in order of their names.

    A folder that is no run stands for the runs in it. What a pattern matches beside runs is left out. Raises
    `RequestError` where there is no run, or not at a path.
    """
    patterns = [f"{glob.escape(each)}/*" if _holds_runs(each) else each for each in patterns]
    listed = [path for each in patterns for path in (sorted(glob.glob(each)) or [each])]
    folders = [path for path in listed if (Path(path) / "spec.yaml").is_file()]
    missing = [path for path in patterns if path in listed and path not in folders]
    if missing or not folders:
        value = missing[0] if missing else ",".join(patterns)
        raise RequestError("runs", value, "no run is there: give a pattern such as results/ablate_heads/*")
    return [*dict.fromkeys(folders)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Place:
    """Where a run is written."""

    store: PathText = "results"
    """Folder or object store (s3://bucket/prefix) of new runs."""
    run: PathText | None = None
    """The run's own directory, in place of one in the store."""
    resume: PathText | None = None
    """Directory of a run to go on with."""
    dry_run: bool = False
    """Check the request and forecast its cost; write nothing."""

    def __post_init__(self) -> None:
        if self.run and self.resume:
            raise RequestError("run", self.run, "resume goes on in its own directory; leave out run or resume")
        for key in ("store", "run", "resume"):
            check_place(key, getattr(self, key) or "")
