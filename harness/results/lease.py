"""A lock where no process can hold a file: the right to work on a run in an object store, for a while at a time.

A lease is an object ``.lock.N`` that says who holds it and until when. Its holder renews it while it lives; one that
has run out is followed by ``.lock.N+1``, which the store lets only one process create.

It goes by the machines' clocks, which must agree within half its length. A holder that was stopped for longer than
that (a machine put to sleep) may find another at work when it wakes, and is told at its next renewal, not before: until
then both write. What they write is the same to the bit and each object is whole, so what is lost is time.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from harness.config import RequestError
from harness.results.objects import ObjectPath

#: Seconds for which a process has the right to work, unless it renews it.
LENGTH = 60.0
_PREFIX = ".lock."


@contextmanager
def leased(folder: ObjectPath, key: str, length: float = LENGTH) -> Iterator[None]:
    """Inside, no other process works on this run. Raises `RequestError` where one does, or has died just now, and at
    the end where another has taken over."""
    mine = _claimed(folder, key, length)
    ended, lost = threading.Event(), list[bool]()
    keeper = threading.Thread(target=_keep, args=(folder, mine, length, ended, lost), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        mine.remove()
    if lost:
        raise RequestError(key, folder, "another process has taken this run over while this one was stopped")


def _claimed(folder: ObjectPath, key: str, length: float) -> ObjectPath:
    """The lease that is now ours."""
    last = _last(folder)
    if last:
        left = _until(folder / f"{_PREFIX}{last}") - time.time()
        if left > 0:
            raise RequestError(key, folder, _busy(left))
    mine = folder / f"{_PREFIX}{last + 1}"
    if not mine.create(_said(length)):
        raise RequestError(key, folder, _busy(length))
    if last:
        (folder / f"{_PREFIX}{last}").remove()
    return mine


def _busy(left: float) -> str:
    return f"another process is working on this run; if it has died, this can go on in {left:.0f} s"


def _keep(folder: ObjectPath, mine: ObjectPath, length: float, ended: threading.Event, lost: list[bool]) -> None:
    """Renew until the end, or until another has taken over; a store that does not answer is asked again."""
    while not ended.wait(length / 4):
        try:
            if f"{_PREFIX}{_last(folder)}" != mine.name:
                lost.append(True)
                return
            mine.write_bytes(_said(length))
        except (RequestError, OSError):
            continue


def _last(folder: ObjectPath) -> int:
    """The number of the newest lease; 0 if there is none."""
    numbers = [path.name.removeprefix(_PREFIX) for path in folder.iterdir() if path.name.startswith(_PREFIX)]
    return max((int(number) for number in numbers if number.isdigit()), default=0)


def _until(lease: ObjectPath) -> float:
    """When it runs out, in seconds since 1970; long ago where it was given back or cannot be read."""
    try:
        return float(json.loads(lease.read_bytes())["until"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0.0


def _said(length: float) -> bytes:
    return json.dumps({"host": socket.gethostname(), "process": os.getpid(), "until": time.time() + length}).encode()
