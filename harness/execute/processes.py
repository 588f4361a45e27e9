"""Pool of worker processes on this machine.

They are forked from a server that has only imported the libraries (a process that has run a model must not be forked),
so all but the first start without imports. A worker exits when this process ends.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from harness.execute.spread import TurnResult
from harness.execute.worker import MAX_STARTUP_FAILURES, Build, NoWorkers, Worker, portable
from harness.results.objects import Folder

#: Modules that are slow to import; not this package, of which the server might import another copy.
_PRELOADED = ["torch", "transformers", "transformer_lens.model_bridge", "xarray", "matplotlib.figure"]


@dataclass
class _WorkerProcess:
    """A worker process, as its parent sees it."""

    process: Any
    line: Connection
    place: int
    ready: bool = False
    busy: bool = False


class Processes:
    """A pool of at most `n` workers, each with its share of the threads, and of the `gpus` in turn."""

    def __init__(self, build: Build, run: Folder, n: int, threads: int, gpus: int = 0):
        self._arguments = (build, run, max(1, threads // n))
        self._n, self._gpus = n, gpus
        self._workers, self._next, self._startup_failures = dict[int, _WorkerProcess](), 0, 0
        methods = multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            self._context.set_forkserver_preload(_PRELOADED)

    @property
    def size(self) -> int:
        return self._n

    def start_workers(self, units: int) -> None:
        while len(self._workers) < min(self._n, units):
            here, there = multiprocessing.Pipe()
            taken = {worker.place for worker in self._workers.values()}
            place = next(place for place in range(self._n) if place not in taken)
            gpu = place % self._gpus if self._gpus else None
            process = self._context.Process(
                target=_serve, args=(there, gpu, dict(os.environ), *self._arguments), daemon=True
            )
            process.start()
            there.close()
            self._workers[self._next] = _WorkerProcess(process, here, place)
            self._next += 1

    def free(self) -> int | None:
        return next((name for name, worker in self._workers.items() if worker.ready and not worker.busy), None)

    def submit(self, worker: int, stage: str, unit: int) -> None:
        process = self._workers[worker]
        process.busy = True
        with suppress(OSError):  # it may have died, which `wait` detects
            process.line.send((stage, unit))

    def wait(self) -> list[TurnResult]:
        lines = {worker.line: name for name, worker in self._workers.items()}
        ended = [self._result(lines[line]) for line in wait(list(lines)) if isinstance(line, Connection)]
        return [each for each in ended if each is not None]

    def _result(self, name: int) -> TurnResult | None:
        """Receive a worker's result; ``None`` for its start. Raises what kept it from starting."""
        worker = self._workers[name]
        try:
            seconds, error = worker.line.recv()
        except (EOFError, OSError):
            return self._failed(name)
        if not worker.ready:
            if error is not None:
                raise error
            worker.ready, self._startup_failures = True, 0
            return None
        worker.busy = False
        return TurnResult(name, seconds, error)

    def _failed(self, name: int) -> TurnResult | None:
        worker = self._workers.pop(name)
        worker.line.close()
        worker.process.join()
        if worker.busy:
            return TurnResult(name, died=True)
        self._startup_failures += not worker.ready
        if self._startup_failures == MAX_STARTUP_FAILURES:
            raise NoWorkers(MAX_STARTUP_FAILURES)
        return None

    def stop(self) -> None:
        for worker in self._workers.values():
            worker.process.kill()
        for worker in self._workers.values():
            worker.process.join()
            worker.line.close()
        self._workers.clear()


def _serve(
    line: Connection, gpu: int | None, environment: Mapping[str, str], build: Build, run: Folder, threads: int
) -> None:
    """Run a worker: build the model, report it, then compute units until the line closes.

    The environment is passed, since the fork server's is that of its start, perhaps older than the keys to a store.
    """
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets the signal too, and ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_leave_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(gpu)
    try:
        worker = Worker(build, run, threads)
    except Exception as error:
        line.send((0, portable(error)))
        return
    line.send((0, None))
    while True:
        try:
            stage, unit = line.recv()
        except EOFError:
            return
        line.send(worker.do(stage, unit))


def _leave_with(parent: Any) -> None:
    """Exit this process when its parent ends, however it does."""
    wait([parent.sentinel])
    os._exit(1)
