"""Benchmark a sweep against loops of whole forwards, alternating in one process, and time the opening of a report
(`page_times`, in a `browser`).

`sides` are the ways to sweep, `floor` a lower bound of their time, `peak` measures their memory; `map_times` and
`edge_times` `alternate` a loop and a sweep of patching maps and edges. All measure effects of the same heads on the
same prompts. (The sweep also verifies every edit at W_O, and the exact verification of `fast` and `screen` is in their
time.) Times are medians over rounds with their range; ratios are taken within a round, so that a disturbance of the
machine affects all sides.
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
    """Results of one way to sweep: seconds and speed-up over the first side, by round; GB beyond the model.

    Its effects are compared with the first side's: the largest difference on a prompt, the root mean square difference
    of mean effects, and Spearman's correlation of mean effects.
    """

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
    """Run every side in every round and return plain values; `say` is called with a line for each side at the end.

    Raises `RequestError` for a model that is no decoder.
    """
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
    """Run all sides in turn, round after round."""
    run = by_name(spec.methods)
    seconds: dict[str, list[float]] = {name: [] for name in run}
    effects: dict[str, Effects] = {}
    gb = dict.fromkeys(run, 0.0)
    assert work.plain is not None  # a cached property: load it before anything is timed
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
