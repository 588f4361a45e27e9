"""Run units of work in this process, in worker processes, or on a Ray cluster.

`protocols` defines stages and units, `worker` computes units, `spread` schedules them and handles dead workers;
`processes` and `cluster` are the two kinds of pools. Workers write to the store, so the main process holds no results
until all units of a stage are done.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import xarray as xr

from harness.config import ExecuteSpec, RayExecute
from harness.execute.protocols import Chain as Chain
from harness.execute.protocols import Closed as Closed
from harness.execute.protocols import Closing as Closing
from harness.execute.protocols import Divisible, make_unit
from harness.execute.protocols import Part as Part
from harness.execute.protocols import Stage as Stage
from harness.execute.protocols import close as close
from harness.execute.protocols import run_in_memory as run_in_memory
from harness.execute.spread import Pool as Pool
from harness.execute.spread import UnitsLost as UnitsLost
from harness.execute.spread import spread
from harness.execute.worker import Build as Build
from harness.results.objects import Folder
from harness.results.store import StageFolder

#: Called with the stage, the number of finished units, and the number of all.
Progress = Callable[[str, int, int], None]
Say = Callable[[str], None]
#: Tries of a unit that does not read back with its checksum.
_TRIES = 2
#: Seconds of remaining work from which a forecast is printed.
_LONG = 20


@contextmanager
def pool_of(spec: ExecuteSpec, build: Build, run: Folder) -> Iterator[Pool | None]:
    """Start the workers of a spec, and stop them at the end; ``None`` where this process does the work itself."""
    if isinstance(spec, RayExecute):
        from harness.execute.cluster import Cluster

        pool: Pool = Cluster(build, run, spec)
    elif spec.workers > 1:
        import torch

        from harness.execute.processes import Processes

        pool = Processes(build, run, spec.workers, torch.get_num_threads(), torch.cuda.device_count())
    else:
        yield None
        return
    try:
        yield pool
    finally:
        pool.stop()


def run_stage(
    stage: Stage | Chain,
    folder: StageFolder,
    progress: Progress,
    done: xr.Dataset | None = None,
    pool: Pool | None = None,
    say: Say = lambda _: None,
) -> xr.Dataset:
    """Freeze the plan (or read the frozen one), compute the missing units, and assemble all.

    Raises `UnitsLost` where units kill their workers, after all others are done.
    """
    workers = pool.size if pool else 1
    divided = stage.divided(workers) if isinstance(stage, Divisible) else stage
    plan = folder.plan() or folder.freeze(divided.plan(done))
    stage = stage.as_planned(plan) if isinstance(stage, Divisible) else stage
    total = len(plan["batches"])
    for _ in range(_TRIES):
        missing = [number for number in range(total) if folder.read(number) is None]
        if missing:
            pace = _Pace(stage.name, total - len(missing), total, workers, progress, say)
            if pool is None:
                for number in missing:
                    started = time.monotonic()
                    make_unit(stage, folder, plan, number)
                    pace.made(time.monotonic() - started)
            else:  # each unit of a chain needs the one before it
                for some in [[number] for number in missing] if isinstance(stage, Chain) else [missing]:
                    spread(pool, stage.name, some, pace.made, say)
    units = [folder.read(number) for number in range(total)]
    if None in units:
        raise OSError(f"{folder.path}: unit {units.index(None)} was written but does not read back with its checksum")
    progress(stage.name, total, total)
    return stage.assemble(plan, [unit for unit in units if unit is not None])


class _Pace:
    """Report finished units, and once, by the first of them, the forecast of the others."""

    def __init__(self, stage: str, there: int, total: int, at_once: int, progress: Progress, say: Say):
        self._stage, self._there, self._total, self._at_once = stage, there, total, at_once
        self._progress, self._say, self._first = progress, say, True
        progress(stage, there, total)

    def made(self, seconds: float) -> None:
        self._there += 1
        left = self._total - self._there
        ahead = seconds * left / self._at_once
        if self._first and ahead > _LONG:
            self._say(f"{self._stage}: by the first unit ({seconds:.0f} s), {left} more take about {ahead:.0f} s")
        self._first = False
        if left:
            self._progress(self._stage, self._there, self._total)
