"""What a run will cost, known before it begins."""

import shutil
import time
from math import inf

import torch

from harness import ablation
from harness.attention import CacheStage
from harness.attribution.context.stage import TraceStage
from harness.attribution.evaluate.stage import AttributionStage
from harness.compare.stage import OtherStage
from harness.config import Place, RequestError
from harness.results.objects import Folder, ObjectPath, folder_at
from harness.study.request import Ablating, Work
from harness.sweep import SweepStage, alike

#: A trial of fewer tokens is slower per row than a sweep's chunks are; a longer one delays every run.
_TRIAL_TOKENS = 512
#: Units lie beside the arrays until these are written.
_COPIES = 2


def forecast(work: Work, place: Place) -> list[str]:
    """One line for each stage. Raises `RequestError` if the disk cannot hold what would be kept."""
    said = []
    for each in work.stages:
        stage = each.stage if isinstance(each, OtherStage) else each
        if isinstance(stage, CacheStage):
            said.append(f"{each.name}: {_kept(stage, place)}")
        if isinstance(stage, Ablating):
            said.append(f"{each.name}: {_swept(alike(stage))}{_unasked(stage.name, work)}")
        if isinstance(stage, AttributionStage):
            said.append(f"{each.name}: {_attributed(stage)}")
        if isinstance(stage, TraceStage):
            said.append(f"{each.name}: {_traced(stage)}")
    return said


def _unasked(name: str, work: Work) -> str:
    """Why single heads are swept where nobody asked for it."""
    asked = work.spec.sweep
    if name != "sweep" or "single" in asked.kind:
        return ""
    kinds = " and ".join(kind for kind in asked.kind if kind in ("cumulative", "pairs"))
    return f" (single heads first: sweep.kind={kinds} goes by their effects)"


def _kept(stage: CacheStage, place: Place) -> str:
    """How much room the cached arrays take, checked against what is free."""
    size, kinds = _COPIES * stage.n_bytes(), ", ".join(("pattern", *stage.also))
    there, free = _room(folder_at(place.resume or place.run or place.store).absolute())
    if size > free:
        raise RequestError(
            "cache.also" if stage.also else "store",
            ",".join(stage.also) or place.store,
            f"keeping {kinds} takes up to {_gigabytes(size)}, and {_gigabytes(free)} are free in {there}; ask for "
            "fewer prompts or kinds, cache.dtype=float16, or another store=DIR",
        )
    return f"{len(stage.prompts)} prompts, up to {_gigabytes(size)} on disk ({kinds})"


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


def _swept(stage: SweepStage) -> str:
    """How many rows go through how much of the model, and about how long that takes, by a trial of a few."""
    plan = stage.plan()
    rows, sweeps = stage.work(plan)
    seconds = rows * (1 + sweeps) * _seconds_per_row(stage)
    masked = ", each scored token masked in a row of its own" if stage.model.kind == "masked_lm" else ""
    return (
        f"{len(stage.prompts)} prompts ({rows} rows{masked}) × {len(plan['groups'])} interventions, the "
        f"work of {rows * (1 + sweeps):.0f} forwards of one row: about {_duration(seconds)}; "
        f"units of work: {len(plan['batches'])}; memory for each worker: up to {_gigabytes(_memory(stage))}"
    )


def _attributed(stage: AttributionStage) -> str:
    """How many methods and causes, and how long they take at most, by a trial as for a sweep."""
    return _at_most(stage, f"{len(stage.methods)} methods, {len(stage.causes)} causes")


def _traced(stage: TraceStage) -> str:
    """How many parts are taken away, in how many ways, and for how many heads one by one."""
    heads = "no heads" if stage.spec.heads == "none" else f"{len(stage.heads)} heads ({stage.spec.heads})"
    return _at_most(stage, f"{len(stage.parts)} parts, {len(stage.spec.causes)} causes, {heads}")


def _at_most(stage: AttributionStage | TraceStage, asked: str) -> str:
    forwards = stage.work()
    seconds = _duration(forwards * _seconds_per_row(stage))
    return f"{len(stage.prompts)} prompts × {asked}, at most the work of {forwards:.0f} forwards of one row: {seconds}"


def _memory(stage: SweepStage) -> float:
    """Bytes of the weights, and of the activations of one chunk at most."""
    weights = sum(each.numel() * each.element_size() for each in stage.model.bridge.parameters())
    return weights + stage.chunk_bytes()


def _seconds_per_row(stage: SweepStage | AttributionStage | TraceStage) -> float:
    """By a forward of a few rows of middling length."""
    order = stage.prompts.width.argsort()
    some = stage.prompts.take([int(order[len(order) // 2])])
    rows, _ = ablation.asked(stage.model, some)
    n = max(4, _TRIAL_TOKENS // rows.token_id.shape[1])
    given = rows.take([at % len(rows) for at in range(n)]).inputs(stage.model.device)
    with torch.no_grad():
        stage.model.forward(given)  # the first is slower
        started = time.perf_counter()
        stage.model.forward(given)
    return (time.perf_counter() - started) / n


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )
