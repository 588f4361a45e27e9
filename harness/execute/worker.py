"""A worker: builds its own model, then computes units and writes them to the store."""

import time
from collections.abc import Callable, Sequence

from harness.config import RequestError
from harness.execute.protocols import Chain, Divisible, Stage, make_unit
from harness.results.objects import Folder
from harness.results.store import StageFolder

#: Builds a run's stages with a new model; pickled, and called in the worker.
Build = Callable[[], Sequence[Stage | Chain]]
#: Workers that may die in a row before one has started.
MAX_STARTUP_FAILURES = 3


class WorkerFailed(RuntimeError):
    """A worker's error as text: the original may not be picklable."""


class NoWorkers(RuntimeError):
    """Raised when workers die while they load the model."""

    def __init__(self, n: int):
        super().__init__(f"{n} workers died one after the other while they loaded the model: is there memory for it?")


class Worker:
    """Stages with their own model, and the run directory that units are written to."""

    def __init__(self, build: Build, run: Folder, threads: int):
        import torch

        torch.set_num_threads(threads)
        self.run, self.stages = run, {stage.name: stage for stage in build()}

    def do(self, name: str, unit: int) -> tuple[float, Exception | None]:
        """Compute one unit; return its seconds and its error, picklable, if any."""
        started = time.monotonic()
        try:
            folder = StageFolder(self.run / "stages" / name)
            plan = folder.plan()
            assert plan is not None
            stage = self.stages[name]
            stage = stage.as_planned(plan) if isinstance(stage, Divisible) else stage
            make_unit(stage, folder, plan, unit)
        except Exception as error:
            return time.monotonic() - started, portable(error, f"{name}, unit {unit}: ")
        return time.monotonic() - started, None


def portable(error: Exception, where: str = "") -> Exception:
    """Return an error that can be pickled."""
    if isinstance(error, RequestError):
        return error
    return WorkerFailed(f"{where}{type(error).__name__}: {error}")
