"""Choose the method of a sweep by how long the exact one takes (`sweep.method=auto`)."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from harness.config import RequestError, SweepSpec
from harness.execute import Chain, Stage
from harness.execute.cost import duration
from harness.sweep.build import Ablating
from harness.sweep.trial import measured_once

#: Builds the stages of a sweep.
Build = Callable[[SweepSpec], Sequence[Stage | Chain]]


def choose_method(spec: SweepSpec, build: Build, workers: int = 1) -> tuple[SweepSpec, str]:
    """Return the spec with the method that ``auto`` stands for, and a line that says which and why; another spec as it
    is, with an empty line.

    That is ``exact`` where its forecast, over `workers`, ends within `sweep.minutes`, or where there is no other; else
    ``screen``. ``fast`` is never chosen: without matrix units for bf16 it is slower than exact, and this process cannot
    tell (docs/measurements.md). Raises `RequestError` where the exact sweep is refused.
    """
    if spec.method != "auto":
        return spec, ""
    exact, screen = (replace(spec, method=name, minutes=SweepSpec.minutes) for name in ("exact", "screen"))
    seconds = _seconds(build(exact)) / workers
    limit, took = f"sweep.minutes={spec.minutes:g}", f"about {duration(seconds)}"
    if seconds <= 60 * spec.minutes:
        return exact, f"sweep.method=auto: exact, {took} ({limit})"
    try:
        build(screen)
    except RequestError as error:
        return exact, f"sweep.method=auto: exact, {took}, though {limit}, since screen is refused: {error}"
    return screen, f"sweep.method=auto: screen, since exact would take {took} ({limit})"


def _seconds(stages: Sequence[Stage | Chain]) -> float:
    """Forecast the seconds of the stages in one process."""
    sweeps, timed = [stage.as_sweep() for stage in stages if isinstance(stage, Ablating)], measured_once()
    return sum(sweep.seconds(timed) for sweep in sweeps)
