"""What a run will cost, known before it begins."""

import shutil
import time
from math import inf

import torch

from harness import ablation
from harness.attention import ON_DISK, CacheStage
from harness.compare.stage import OtherStage
from harness.config import Place, RequestError
from harness.execute.cost import Costed, gigabytes
from harness.models import Model
from harness.prompts import Prompts
from harness.results.objects import Folder, ObjectPath, folder_at
from harness.study.request import Request

#: A trial of fewer tokens is slower per row than a sweep's chunks are; a longer one delays every run.
_TRIAL_TOKENS = 512


def forecast(work: Request, place: Place) -> list[str]:
    """One line for each stage that takes time or room. Raises `RequestError` if the disk cannot hold what would be
    kept."""
    for stage in (each.stage if isinstance(each, OtherStage) else each for each in work.stages):
        if isinstance(stage, CacheStage):
            _check_room(stage, place)
    costs = {each.name: each.cost(seconds_per_row) for each in work.stages if isinstance(each, Costed)}
    return [f"{name}: {cost}{_why_singles(name, work)}" for name, cost in costs.items() if cost]


def _why_singles(name: str, work: Request) -> str:
    """Why single heads are swept where another kind was asked for."""
    kinds = work.spec.sweep.kind
    if name != "sweep" or "single" in kinds:
        return ""
    going = " and ".join(kind for kind in kinds if kind in ("cumulative", "pairs"))
    return f" (single heads first: sweep.kind={going} goes by their effects)"


def _check_room(stage: CacheStage, place: Place) -> None:
    """Refuse cached arrays that take more than is free."""
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
    """The nearest folder that is there, and how much it can hold; a place that cannot be is refused elsewhere.
    An object store holds what is paid for."""
    if isinstance(folder, ObjectPath):
        return folder, inf
    try:
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        usage = shutil.disk_usage(there)
    except OSError:
        return folder, inf
    return there, usage.free if usage.total else inf


def seconds_per_row(model: Model, prompts: Prompts) -> float:
    """The time of one row, by a forward of a few rows of middling length."""
    order = prompts.width.argsort()
    rows, _ = ablation.model_rows(model, prompts.take([int(order[len(order) // 2])]))
    n = max(4, _TRIAL_TOKENS // rows.token_id.shape[1])
    given = rows.take([at % len(rows) for at in range(n)]).inputs(model.device)
    with torch.no_grad():
        model.forward(given)  # the first is slower
        started = time.perf_counter()
        model.forward(given)
    return (time.perf_counter() - started) / n
