"""What a worker does, wherever it runs: build its own model, then one unit after another, straight to the store."""

import time
from collections.abc import Callable, Sequence

from harness.config import RequestError
from harness.execute.stage import Chain, Divisible, Stage, make_unit
from harness.results.objects import Folder
from harness.results.store import StageFolder

#: Makes a run's stages, with a model of one's own; travels to the worker, and is called there.
Build = Callable[[], Sequence[Stage | Chain]]
#: Workers that may die one after the other before one has come to work.
MAX_STARTUP_FAILURES = 3


class WorkerFailed(RuntimeError):
    """What a worker raised, in words: its own error may be one that cannot travel."""


class NoWorkers(RuntimeError):
    """Workers die before they have begun."""

    def __init__(self, n: int):
        super().__init__(f"{n} workers died one after the other while they loaded the model: is there memory for it?")


class Worker:
    """Stages with a model of its own, and the run directory that units are written to."""

    def __init__(self, build: Build, run: Folder, threads: int):
        import torch

        torch.set_num_threads(threads)
        self.run, self.stages = run, {stage.name: stage for stage in build()}

    def do(self, name: str, unit: int) -> tuple[float, Exception | None]:
        """Make one unit: how many seconds it took, and what went wrong, as it can be sent home."""
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
    """The error as it can be sent home."""
    if isinstance(error, RequestError):
        return error
    return WorkerFailed(f"{where}{type(error).__name__}: {error}")
