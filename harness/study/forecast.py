"""Forecast the cost of a run before it begins."""

import shutil
import time
from math import inf

import torch

from harness import ablation
from harness.attention import ON_DISK, CacheStage
from harness.compare.stage import OtherStage
from harness.config import Place, RequestError
from harness.execute.cost import Costed, Trial, gigabytes
from harness.models import Model
from harness.prompts import Prompts
from harness.results.objects import Folder, ObjectPath, folder_at
from harness.study.request import Request

#: Tokens of the timed trial: fewer are slower per row than a sweep's chunks, more delay every run.
_TRIAL_TOKENS = 512


def forecast(work: Request, place: Place) -> list[str]:
    """Return one line for each stage that takes time or disk space. Raises `RequestError` if the disk is too small."""
    for stage in (each.stage if isinstance(each, OtherStage) else each for each in work.stages):
        if isinstance(stage, CacheStage):
            _check_room(stage, place)
    trial = _measured_once()
    costs = {each.name: each.cost(trial) for each in work.stages if isinstance(each, Costed)}
    return [f"{name}: {cost}{_why_singles(name, work)}" for name, cost in costs.items() if cost]


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


def _measured_once() -> Trial:
    """Return `seconds_per_row` that times the same model and prompts once: a trial takes seconds, a screen has two."""
    known: dict[tuple[int, int], float] = {}

    def trial(model: Model, prompts: Prompts) -> float:
        key = id(model), id(prompts)
        known[key] = known.get(key) or seconds_per_row(model, prompts)
        return known[key]

    return trial


def seconds_per_row(model: Model, prompts: Prompts) -> float:
    """Measure the seconds of one row, by a forward of a few rows of median length."""
    order = prompts.width.argsort()
    rows, _ = ablation.model_rows(model, prompts.take([int(order[len(order) // 2])]))
    n = max(4, _TRIAL_TOKENS // rows.token_id.shape[1])
    inputs = rows.take([at % len(rows) for at in range(n)]).inputs(model.device)
    with torch.no_grad():
        model.forward(inputs)  # warm-up
        started = time.perf_counter()
        model.forward(inputs)
    return (time.perf_counter() - started) / n
