"""How fast a sweep is, beside what it replaces: loops of whole forwards, alternating in one process; and how soon a
report opens (`page`, in a `browser`).

`sides` are the ways to sweep, `floor` what none of them can be faster than, `peak` the memory they take. All find the
same: effects of the same heads on the same prompts. (The sweep verifies every edit at W_O besides, and of `fast` and
`screen` the part that is measured again is in the time.) Times are medians over rounds with their range; ratios are
taken round by round, so that what disturbs the machine disturbs all sides.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from harness import stats
from harness.benchmark.floor import floor
from harness.benchmark.peak import watched
from harness.benchmark.sides import Effects, SweepTask, by_name
from harness.config import BenchmarkSpec, RequestError
from harness.models import load_model
from harness.prompts import check_prompts, load_prompts
from harness.results import manifest


@dataclass(frozen=True)
class Side:
    """One way to sweep: seconds of each round; how many times faster than the first side, round by round; GB beyond
    the model. Its effects beside the first side's: the largest difference on a prompt, the root mean square of mean
    effects' differences, and Spearman's correlation of mean effects."""

    name: str
    seconds: tuple[float, ...]
    ratio: tuple[float, ...]
    gb: float
    largest_error: float
    rms_error: float
    rank_correlation: float

    def row(self, work: SweepTask, least: float) -> str:
        took, speed = statistics.median(self.seconds), statistics.median(self.ratio)
        rate = work.tokens * work.n_heads / took
        return (
            f"{self.name:<22} {took:7.1f} s ({min(self.seconds):.1f}–{max(self.seconds):.1f})  {speed:5.2f}× "
            f"({min(self.ratio):.2f}–{max(self.ratio):.2f})  {rate:8.0f} tokens × heads/s  {took / least:5.2f} × floor"
            f"  +{self.gb:.1f} GB  off {self.largest_error:.1e}, rms {self.rms_error:.1e}, "
            f"rank {self.rank_correlation:.3f}"
        )


def benchmark(spec: BenchmarkSpec, say: Callable[[str], None]) -> dict[str, Any]:
    """Every side of every round, as plain values; `say` is told a line for each side when all rounds are done."""
    check_prompts(spec.prompts)
    model = load_model(spec.model)
    if model.kind != "decoder":
        raise RequestError("model", model.name, "the loops are those of a decoder; benchmark one of those")
    prompts = load_prompts(spec.prompts, model)
    work = SweepTask(model, prompts, spec.metric, model.heads()[:: spec.every], spec.positions, spec.memory)
    made, least = _timed(work, spec), floor(work)
    for side in made:
        say(side.row(work, least))
    return {
        "model": model.name,
        "prompts": len(prompts),
        "tokens": work.tokens,
        "heads": work.n_heads,
        "metric": work.metric,
        "positions": work.positions,
        "threads": torch.get_num_threads(),
        "device": model.device,
        "floor_seconds": least,
        **manifest.environment(),
        "sides": [asdict(side) for side in made],
    }


def _timed(work: SweepTask, spec: BenchmarkSpec) -> list[Side]:
    """All sides in turn, round after round."""
    run = by_name(spec.methods)
    seconds: dict[str, list[float]] = {name: [] for name in run}
    effects: dict[str, Effects] = {}
    gb = dict.fromkeys(run, 0.0)
    assert work.plain is not None  # made before anything is timed
    for _ in range(spec.rounds):
        for name, side in run.items():
            started = time.perf_counter()
            with watched(work.model.device) as peak:
                effects[name] = side(work)
            seconds[name].append(time.perf_counter() - started)
            gb[name] = max(gb[name], peak.gb)
    return [_side(name, seconds, effects, gb[name]) for name in run]


def _side(name: str, seconds: dict[str, list[float]], effects: dict[str, Effects], gb: float) -> Side:
    first = next(iter(seconds))
    ratio = tuple(loop / mine for loop, mine in zip(seconds[first], seconds[name], strict=True))
    off = effects[name] - effects[first]
    alike = stats.rank_correlation(effects[name].mean(0), effects[first].mean(0))
    rms = float(np.sqrt((off.mean(0) ** 2).mean()))
    return Side(name, tuple(seconds[name]), ratio, gb, float(np.abs(off).max()), rms, alike)
