"""Folders that lie in an object store (``s3://bucket/prefix``), used as those of a disk are.

An object is there whole or not at all, so nothing is written under another name first. There are no folders: one is
there as long as something lies in it. What the store refuses is a `RequestError` that says so.

universal-pathlib's `UPath` was tried in its place: it makes a bucket that is not there, cannot list a folder with
nothing in it, and a class of it that says what was refused must be registered for the whole process.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config import RequestError

#: Objects that are read at once.
_AT_ONCE = 64
#: How long to wait for a store, and how often: one that does not answer is said to within half a minute.
_PATIENCE = {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 2}}


@dataclass(frozen=True)
class ObjectPath:
    """A place in an object store, with as much of `pathlib.Path` as a run directory needs."""

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
        """Nothing: what is written into it makes it."""

    def is_file(self) -> bool:
        with self._asked() as system:
            return system.isfile(self.url)

    def is_dir(self) -> bool:
        with self._asked() as system:
            return system.isdir(self.url)

    def exists(self) -> bool:
        with self._asked() as system:
            return system.exists(self.url)

    def iterdir(self) -> list["ObjectPath"]:
        with self._asked() as system:
            try:
                names = system.ls(self.url, detail=False)
            except FileNotFoundError:
                return []
        return [self / name.rstrip("/").rpartition("/")[2] for name in names]

    def read_bytes(self) -> bytes:
        with self._asked() as system:
            return system.cat_file(self.url)

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes) -> None:
        with self._asked(FileNotFoundError) as system:
            system.pipe_file(self.url, content)

    def write_text(self, text: str, encoding: str = "utf-8") -> None:
        self.write_bytes(text.encode(encoding))

    def create(self, content: bytes) -> bool:
        """Write it if it is not there: of all who ask at once one is told yes."""
        with self._asked(FileNotFoundError) as system:
            try:
                system.pipe_file(self.url, content, mode="create")
            except FileExistsError:
                return False
        return True

    def contents(self) -> Iterator[tuple[str, bytes]]:
        """What lies inside and below, with its name from here, in order."""
        with self._asked() as system:
            root = system._strip_protocol(self.url)
            names = sorted(system.find(self.url))
            for start in range(0, len(names), _AT_ONCE):
                found = system.cat(names[start : start + _AT_ONCE])
                yield from ((name.removeprefix(f"{root}/"), found[name]) for name in sorted(found))

    def remove(self) -> None:
        """It, and all that lies inside and below; nothing if it is not there."""
        with self._asked() as system:
            if names := system.find(self.url):
                system.rm(names)

    def zarr(self, read_only: bool) -> Any:
        """Its arrays, as zarr takes them."""
        from zarr.storage import FsspecStore

        with self._asked():
            return FsspecStore.from_url(self.url, storage_options=_options(), read_only=read_only)

    @contextmanager
    def _asked(self, *wrong: type[Exception]) -> Iterator[Any]:
        """The file system that answers for it. What is not there stays a `FileNotFoundError`, unless that is `wrong`
        (to write, there must be the bucket)."""
        try:
            import fsspec
            import s3fs  # noqa: F401  (or fsspec says it in many lines)
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
            said = f"{type(error).__name__}: {error}"
            raise RequestError("store", self.url, f"the object store does not do it ({said})") from error


def _options() -> dict[str, Any]:
    """Others write there too, so no listing is remembered. Keys and the address are the environment's (``AWS_…``)."""
    return {"use_listings_cache": False, "config_kwargs": _PATIENCE}


#: Where a run lies: on a disk, or in an object store.
Folder = Path | ObjectPath


def folder_at(place: str | Folder) -> Folder:
    """The folder of this name or address."""
    if not isinstance(place, str):
        return place
    return ObjectPath(place.rstrip("/")) if "://" in place else Path(place)
