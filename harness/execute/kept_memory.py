"""Keep freed memory in the process, where its C library is glibc.

glibc maps each tensor of more than 32 MiB anew and unmaps it when it is freed, and returns the end of its heap to the
system, so that every chunk of a sweep touches fresh pages: page faults took 12–17 % of a sweep's processor time. Here
tensors come from the heap, and the heap is not returned until the end.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

# From glibc's malloc.h: what `mallopt` sets.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
#: What is set while memory is kept: no tensor is mapped by itself, nothing is trimmed, the heap grows by 64 MiB.
_KEPT = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 64 * 2**20}
#: What is set afterwards: the values that glibc itself arrives at once it has seen large tensors.
_RETURNED = {_MMAP_MAX: 65_536, _MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20, _TOP_PAD: 128 * 2**10}


@cache
def _glibc() -> Any:
    """Return the C library of this process where it is glibc; ``None`` elsewhere."""
    try:
        library = ctypes.CDLL(None)
        return library if hasattr(library, "gnu_get_libc_version") and hasattr(library, "mallopt") else None
    except (OSError, TypeError):  # TypeError: on Windows
        return None


def keep_memory() -> None:
    """Keep freed memory from now on, in the whole process; nothing happens where the C library is not glibc."""
    _set(_KEPT)


@contextmanager
def memory_kept(keep: bool = True) -> Iterator[None]:
    """Keep freed memory, in the whole process, and return it at the end; with `keep` false do nothing."""
    if not keep:
        yield
        return
    keep_memory()
    try:
        yield
    finally:
        _set(_RETURNED)
        if library := _glibc():
            library.malloc_trim(0)


def _set(values: dict[int, int]) -> None:
    if library := _glibc():
        for name, value in values.items():
            library.mallopt(name, value)
