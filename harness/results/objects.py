"""Folders in an object store (``s3://bucket/prefix``), with the interface of `pathlib.Path`.

Writes of an object are atomic, so nothing is written under another name first. A folder exists as long as it holds an
object. Errors of the store become `RequestError`.

universal-pathlib's `UPath` was tried in its place: it creates missing buckets, cannot list an empty folder, and a
subclass that translates errors must be registered for the whole process.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config import RequestError

#: Objects that are read at once.
_AT_ONCE = 64
#: Timeouts and retries: a store that does not answer is an error within half a minute.
_PATIENCE = {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 2}}


@dataclass(frozen=True)
class ObjectPath:
    """A path in an object store, with the part of `pathlib.Path` that a run directory needs."""

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> "ObjectPath":
        return ObjectPath(f"{self.url.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        return self.url.rstrip("/").rpartition("/")[2]

    @property
    def parent(self) -> "ObjectPath":
        return ObjectPath(self.url.rstrip("/").rpartition("/")[0])

    def with_name(self, name: str) -> "ObjectPath":
        return self.parent / name

    def absolute(self) -> "ObjectPath":
        return self

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        """Do nothing: writing an object creates its folder."""

    def is_file(self) -> bool:
        with self._system() as system:
            return system.isfile(self.url)

    def is_dir(self) -> bool:
        with self._system() as system:
            return system.isdir(self.url)

    def exists(self) -> bool:
        with self._system() as system:
            return system.exists(self.url)

    def iterdir(self) -> list["ObjectPath"]:
        with self._system() as system:
            try:
                names = system.ls(self.url, detail=False)
            except FileNotFoundError:
                return []
        return [self / name.rstrip("/").rpartition("/")[2] for name in names]

    def read_bytes(self) -> bytes:
        with self._system() as system:
            return system.cat_file(self.url)

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes) -> None:
        with self._system(FileNotFoundError) as system:
            system.pipe_file(self.url, content)

    def write_text(self, text: str, encoding: str = "utf-8") -> None:
        self.write_bytes(text.encode(encoding))

    def create(self, content: bytes) -> bool:
        """Write the object if it does not exist; of concurrent calls exactly one returns True."""
        with self._system(FileNotFoundError) as system:
            try:
                system.pipe_file(self.url, content, mode="create")
            except FileExistsError:
                return False
        return True

    def contents(self) -> Iterator[tuple[str, bytes]]:
        """Yield all objects below with their relative names, in order."""
        with self._system() as system:
            root = system._strip_protocol(self.url)
            names = sorted(system.find(self.url))
            for start in range(0, len(names), _AT_ONCE):
                block = system.cat(names[start : start + _AT_ONCE])
                yield from ((name.removeprefix(f"{root}/"), block[name]) for name in sorted(block))

    def remove(self) -> None:
        """Remove the object and all objects below, if there are any."""
        with self._system() as system:
            if names := system.find(self.url):
                system.rm(names)

    def zarr(self, read_only: bool) -> Any:
        """Return the folder as a store of zarr."""
        from zarr.storage import FsspecStore

        with self._system():
            return FsspecStore.from_url(self.url, storage_options=_options(), read_only=read_only)

    @contextmanager
    def _system(self, *wrong: type[Exception]) -> Iterator[Any]:
        """Yield the file system, and raise its errors as `RequestError`, but `FileNotFoundError` only where it is
        `wrong` (when writing, it means that the bucket is missing)."""
        try:
            import fsspec
            import s3fs  # noqa: F401  (fsspec's own error has many lines)
        except ImportError:
            remedy = "object stores need s3fs: pip install 'attention-harness[s3]'"
            raise RequestError("store", self.url, remedy) from None
        try:
            yield fsspec.filesystem("s3", **_options())
        except RequestError:
            raise
        except Exception as error:
            absent = isinstance(error, FileNotFoundError) and not isinstance(error, wrong)
            if absent or not (isinstance(error, OSError) or "boto" in type(error).__module__):
                raise
            reason = f"{type(error).__name__}: {error}"
            raise RequestError("store", self.url, f"the object store does not do it ({reason})") from error


def _options() -> dict[str, Any]:
    """Return options without a listings cache, since other processes write too. Keys and address come from the
    environment (``AWS_…``)."""
    return {"use_listings_cache": False, "config_kwargs": _PATIENCE}


#: A folder on a disk or in an object store.
Folder = Path | ObjectPath


def folder_at(place: str | Folder) -> Folder:
    """Return the folder of a path or address."""
    if not isinstance(place, str):
        return place
    return ObjectPath(place.rstrip("/")) if "://" in place else Path(place)
