"""Time two ways to the same numbers, alternating in one process, and compare what they find."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from harness.config import BenchmarkSpec, RequestError
from harness.metrics import METRICS
from harness.models import Model, load_model
from harness.prompts import Prompts, check_prompts, load_prompts
from harness.prompts.targets import Targets
from harness.results import manifest
from harness.sweep.engine import by_prompt


@dataclass
class Alternated:
    """What a loop and a sweep found and how long they took, in seconds by round; NaN where there is nothing to find."""

    loop: np.ndarray
    sweep: np.ndarray
    seconds: dict[str, list[float]]
    ratio: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self.ratio = [one / other for one, other in zip(*self.seconds.values(), strict=True)]

    @property
    def largest_error(self) -> float:
        return float(np.nanmax(np.abs(self.sweep - self.loop)))

    @property
    def count(self) -> int:
        """How many numbers were found."""
        return int(np.isfinite(self.sweep).sum())

    def line(self) -> str:
        loop, own = map(statistics.median, self.seconds.values())
        return (
            f"loop {loop:.1f} s, sweep {own:.1f} s, {statistics.median(self.ratio):.2f}× "
            f"({min(self.ratio):.2f}–{max(self.ratio):.2f}), off {self.largest_error:.1e}"
        )

    def values(self, model: Model, prompts: Prompts, **about: Any) -> dict[str, Any]:
        """Return plain values, with what they are of and the environment."""
        timed = {"seconds": self.seconds, "ratio": self.ratio, "largest_error": self.largest_error}
        return {"model": model.name, "prompts": len(prompts), **about, **timed, **manifest.environment()}


def alternate(rounds: int, sides: Mapping[str, Callable[[], np.ndarray]]) -> Alternated:
    """Run both sides in every round: the loop, then the sweep."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    made: dict[str, np.ndarray] = {}
    for _ in range(rounds):
        for name, side in sides.items():
            began = time.perf_counter()
            made[name] = side()
            seconds[name].append(time.perf_counter() - began)
    loop, sweep = made.values()
    return Alternated(loop, sweep, seconds)


def load(spec: BenchmarkSpec) -> tuple[Model, Prompts]:
    """Load model and prompts; raises `RequestError` for a model that is no decoder."""
    check_prompts(spec.prompts)
    model = load_model(spec.model)
    if model.kind != "decoder":
        raise RequestError("model", model.name, "the loop is that of a decoder; benchmark one of those")
    return model, load_prompts(spec.prompts, model)


def measured(targets: Targets, metric: str, logits: Tensor) -> Float[Tensor, " prompt"]:
    """Return a metric of each prompt of a whole forward."""
    read = targets.read(slice(None), logits[targets.row, targets.position], None)
    return by_prompt(targets, [METRICS[metric]], METRICS[metric].compute(read)[None, None])[0, 0]
