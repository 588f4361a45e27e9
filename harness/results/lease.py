"""Leases: locks on a run in an object store, where no process can hold a file lock.

A lease is an object ``.lock.N`` with its holder and its expiry. The holder renews it while it runs; an expired one is
followed by ``.lock.N+1``, which the store lets only one process create.

The machines' clocks must agree within half a lease's length. A holder that was stopped for longer (a machine put to
sleep) notices at its next renewal that another has taken over; until then both write. They write the same bits and each
object is whole, so only time is lost.
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

#: Seconds until a lease expires, unless it is renewed.
LENGTH = 60.0
_PREFIX = ".lock."


@contextmanager
def leased(folder: ObjectPath, key: str, length: float = LENGTH) -> Iterator[None]:
    """Lock a run inside the context. Raises `RequestError` where another process holds the lease (or has just died),
    and at the end where another has taken over."""
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
    """Create a lease and return it. Raises `RequestError` where another one has not expired."""
    last = _last(folder)
    if last:
        left = _until(folder / f"{_PREFIX}{last}") - time.time()
        if left > 0:
            raise RequestError(key, folder, _busy(left))
    mine = folder / f"{_PREFIX}{last + 1}"
    if not mine.create(_content(length)):
        raise RequestError(key, folder, _busy(length))
    if last:
        (folder / f"{_PREFIX}{last}").remove()
    return mine


def _busy(left: float) -> str:
    return f"another process is working on this run; if it has died, this can go on in {left:.0f} s"


def _keep(folder: ObjectPath, mine: ObjectPath, length: float, ended: threading.Event, lost: list[bool]) -> None:
    """Renew until the end, or until another process has taken over; retry when the store fails."""
    while not ended.wait(length / 4):
        try:
            if f"{_PREFIX}{_last(folder)}" != mine.name:
                lost.append(True)
                return
            mine.write_bytes(_content(length))
        except (RequestError, OSError):
            continue


def _last(folder: ObjectPath) -> int:
    """Return the number of the newest lease; 0 if there is none."""
    numbers = [path.name.removeprefix(_PREFIX) for path in folder.iterdir() if path.name.startswith(_PREFIX)]
    return max((int(number) for number in numbers if number.isdigit()), default=0)


def _until(lease: ObjectPath) -> float:
    """Return a lease's expiry in seconds since 1970; 0 where it was removed or is unreadable."""
    try:
        return float(json.loads(lease.read_bytes())["until"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0.0


def _content(length: float) -> bytes:
    return json.dumps({"host": socket.gethostname(), "process": os.getpid(), "until": time.time() + length}).encode()
