"""Forecast the cost of a run before it begins."""

import shutil
from math import inf

from harness.attention import ON_DISK, CacheStage
from harness.compare.stage import OtherStage
from harness.config import Place, RequestError
from harness.execute.cost import Costed, gigabytes
from harness.results.objects import Folder, ObjectPath, folder_at
from harness.study.request import Request
from harness.sweep.trial import measured_once


def forecast(work: Request, place: Place) -> list[str]:
    """Return one line for each stage that takes time or disk space. Raises `RequestError` if the disk is too small."""
    for stage in (each.stage if isinstance(each, OtherStage) else each for each in work.stages):
        if isinstance(stage, CacheStage):
            _check_room(stage, place)
    trial = measured_once()
    costs = {each.name: each.cost(trial) for each in work.stages if isinstance(each, Costed)}
    lines = [f"{name}: {cost}{_why_singles(name, work)}" for name, cost in costs.items() if cost]
    return [work.method, *lines] if work.method else lines


def _why_singles(name: str, work: Request) -> str:
    """Describe why single heads are swept too where the kind needs their effects; empty otherwise."""
    kinds = work.spec.sweep.kind
    if name != "sweep" or "single" in kinds:
        return ""
    dependent = " and ".join(kind for kind in kinds if kind in ("cumulative", "pairs"))
    return f" (single heads first: sweep.kind={dependent} needs their effects)"


def _check_room(stage: CacheStage, place: Place) -> None:
    """Raise `RequestError` for cached arrays that take more than the free space."""
    size = ON_DISK * stage.n_bytes()
    there, free = _room(folder_at(place.resume or place.run or place.store).absolute())
    if size > free:
        raise RequestError(
            "cache.also" if stage.also else "store",
            ",".join(stage.also) or place.store,
            f"keeping {stage.kinds} takes up to {gigabytes(size)}, and {gigabytes(free)} are free in {there}; ask for "
            "fewer prompts or kinds, cache.dtype=float16, or another store=DIR",
        )


def _room(folder: Folder) -> tuple[Folder, float]:
    """Return the nearest existing folder and its free bytes: infinite in an object store, and for an impossible path,
    which is refused elsewhere."""
    if isinstance(folder, ObjectPath):
        return folder, inf
    try:
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        usage = shutil.disk_usage(there)
    except OSError:
        return folder, inf
    return there, usage.free if usage.total else inf
