"""Pool of Ray actors on a cluster, whose nodes may die, join and leave."""

import logging
import os
import signal
from typing import Any

from harness.config import RayExecute, RequestError
from harness.execute.spread import TurnResult
from harness.execute.worker import MAX_STARTUP_FAILURES, Build, NoWorkers, Worker, WorkerFailed, portable
from harness.results.objects import Folder

#: Seconds between looks at the cluster's resources: a node may have joined.
_LOOK = 2.0


class Cluster:
    """A pool with one worker per GPU of the cluster, or without GPUs per `cpus` processors; at most `workers`.

    Raises `RequestError` where Ray is missing or no cluster answers.
    """

    def __init__(self, build: Build, run: Folder, spec: RayExecute):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            remedy = "Ray is not installed: pip install 'attention-harness[ray]'"
            raise RequestError("execute", "ray", remedy) from None
        self._ray, self._spec, self._arguments = ray, spec, (build, run, spec.cpus)
        self._begun = not ray.is_initialized()
        if self._begun:
            _connect(ray, spec.address)
        self._gpus = ray.cluster_resources().get("GPU", 0) > 0
        self._actors, self._idle, self._next, self._startup_failures = dict[int, Any](), list[int](), 0, 0
        #: The worker of each future, and whether it computes a unit (or else starts).
        self._awaited = dict[Any, tuple[int, bool]]()

    @property
    def size(self) -> int:
        there = self._ray.cluster_resources()
        room = there.get("GPU", 0) if self._gpus else there.get("CPU", 0) // self._spec.cpus
        return max(1, min(int(room), self._spec.workers or int(room)))

    def start_workers(self, units: int) -> None:
        for _ in range(min(self.size, units) - len(self._actors)):
            needs = {"num_cpus": self._spec.cpus, "num_gpus": int(self._gpus), "max_restarts": 0}
            self._actors[self._next] = actor = self._ray.remote(_Actor).options(**needs).remote()
            self._awaited[actor.begin.remote(*self._arguments)] = (self._next, False)
            self._next += 1

    def free(self) -> int | None:
        return self._idle.pop() if self._idle else None

    def submit(self, worker: int, stage: str, unit: int) -> None:
        self._awaited[self._actors[worker].do.remote(stage, unit)] = (worker, True)

    def wait(self) -> list[TurnResult]:
        done, _ = self._ray.wait(list(self._awaited), num_returns=1, timeout=_LOOK)
        ended = [self._result(future, *self._awaited.pop(future)) for future in done]
        return [each for each in ended if each is not None]

    def _result(self, future: Any, worker: int, a_unit: bool) -> TurnResult | None:
        """Return the result of a unit, or ``None`` for a worker's start. Raises what kept it from starting."""
        try:
            seconds, error = self._ray.get(future)
        except self._ray.exceptions.RayTaskError as error:
            raise WorkerFailed(f"a Ray worker cannot begin: {error.cause}") from None
        except self._ray.exceptions.RayError:  # the worker, or its whole node, is gone
            self._actors.pop(worker)
            self._startup_failures += not a_unit
            if self._startup_failures == MAX_STARTUP_FAILURES:
                raise NoWorkers(MAX_STARTUP_FAILURES) from None
            return TurnResult(worker, died=True) if a_unit else None
        if error is not None and not a_unit:
            raise error
        self._idle.append(worker)
        self._startup_failures = 0
        return TurnResult(worker, seconds, error) if a_unit else None

    def stop(self) -> None:
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._actors.clear()
        self._awaited.clear()
        if self._begun:
            self._ray.shutdown()


class _Actor:
    """A worker of the cluster."""

    def begin(self, build: Build, run: Folder, threads: int) -> tuple[float, Exception | None]:
        """Build the model, and return the error that prevented it, if any."""
        try:
            self._worker = Worker(build, run, threads)
        except Exception as error:
            return 0, portable(error)
        return 0, None

    def do(self, stage: str, unit: int) -> tuple[float, Exception | None]:
        return self._worker.do(stage, unit)


def _connect(ray: Any, address: str | None) -> None:
    """Join the cluster, or start one, and restore this process's signal handlers."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(address=address, include_dashboard=None if address else False, log_to_driver=False,
                 logging_level=logging.ERROR)  # fmt: skip
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).split(".")[0].split("\n")[0]
        remedy = f"no cluster answers there ({reason}); start one with: ray start --head"
        raise RequestError("execute.address", address, remedy) from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
