"""Where units of work run: in this process, in processes of their own, or over a Ray cluster.

`stage` says what is computed, `worker` is what one worker does, `spread` who gets which unit and what happens when a
worker dies; `processes` and `cluster` are the two kinds of workers. Workers
write to the store, so whoever asks for a stage holds no results until all of its units are there.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import xarray as xr

from harness.config import ExecuteSpec, RayExecute
from harness.execute.spread import Pool as Pool
from harness.execute.spread import UnitsLost as UnitsLost
from harness.execute.spread import spread
from harness.execute.stage import Chain as Chain
from harness.execute.stage import Closed as Closed
from harness.execute.stage import Closing as Closing
from harness.execute.stage import Divisible, make_unit
from harness.execute.stage import Part as Part
from harness.execute.stage import Stage as Stage
from harness.execute.stage import run_in_memory as run_in_memory
from harness.execute.worker import Build as Build
from harness.results.objects import Folder
from harness.results.store import StageFolder

#: Called with the stage, the units that are there, and all units.
Progress = Callable[[str, int, int], None]
Say = Callable[[str], None]
#: How often a unit that does not read back with its checksum is made.
_TRIES = 2
#: Seconds of work ahead that are worth a word.
_LONG = 20


@contextmanager
def pool_of(asked: ExecuteSpec, build: Build, run: Folder) -> Iterator[Pool | None]:
    """The workers that are asked for, while this lasts; none where this process does the work itself."""
    if isinstance(asked, RayExecute):
        from harness.execute.cluster import Cluster

        pool: Pool = Cluster(build, run, asked)
    elif asked.workers > 1:
        import torch

        from harness.execute.processes import Processes

        pool = Processes(build, run, asked.workers, torch.get_num_threads(), torch.cuda.device_count())
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
    """Freeze the plan (or take the one that is there), have the units made that are missing, assemble them.

    Raises `UnitsLost` where units kill their workers, after all others were made.
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
            _make(stage, folder, plan, missing, pool, pace.made, say)
    units = [folder.read(number) for number in range(total)]
    if None in units:
        raise OSError(f"{folder.path}: unit {units.index(None)} was written but does not read back with its checksum")
    progress(stage.name, total, total)
    return stage.assemble(plan, [unit for unit in units if unit is not None])


def _make(
    stage: Stage | Chain,
    folder: StageFolder,
    plan: Mapping[str, Any],
    missing: Sequence[int],
    pool: Pool | None,
    made: Callable[[float], None],
    say: Say,
) -> None:
    """Make the units that are missing: here, by all workers at once, or one after the other where each needs the
    last."""
    if pool is None:
        for number in missing:
            started = time.monotonic()
            make_unit(stage, folder, plan, number)
            made(time.monotonic() - started)
    elif isinstance(stage, Chain):
        for number in missing:
            spread(pool, stage.name, [number], made, say)
    else:
        spread(pool, stage.name, missing, made, say)


class _Pace:
    """Tells of units as they are made, and once, by the first of them, how long the others will take."""

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
