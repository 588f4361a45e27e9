"""Schedule units on any pool of workers.

A unit whose worker died is submitted again. A unit that has killed two workers is skipped, and named once all others
are done.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

#: Workers that a unit may kill.
_DEATHS = 2


@dataclass(frozen=True)
class TurnResult:
    """The end of a worker's turn: its seconds, an error, or the worker's death."""

    worker: int
    seconds: float = 0.0
    error: Exception | None = None
    died: bool = False


@runtime_checkable
class Pool(Protocol):
    """Workers that each hold a model and write what they compute to the store."""

    @property
    def size(self) -> int:
        """The largest number of workers at once, as known now."""
        ...

    def start_workers(self, units: int) -> None:
        """Start workers for this many units, also in place of dead ones."""
        ...

    def free(self) -> int | None:
        """Return an idle worker; ``None`` if there is none."""
        ...

    def submit(self, worker: int, stage: str, unit: int) -> None: ...

    def wait(self) -> list[TurnResult]:
        """Return the turns that have ended, once one has or a worker has started. Raises a worker's startup error."""
        ...

    def stop(self) -> None: ...


class UnitsLost(RuntimeError):
    """Units that killed their worker again and again; all others of the stage are done."""

    def __init__(self, stage: str, units: Sequence[int]):
        self.stage, self.units = stage, tuple(units)
        names = ", ".join(map(str, units))
        super().__init__(f"{stage}: unit {names} killed its worker twice and is not done; all others are")


def spread(
    pool: Pool, stage: str, units: Sequence[int], made: Callable[[float], None], say: Callable[[str], None]
) -> None:
    """Compute units on the workers, from the last to the first: the heaviest are last in a plan.

    `made` is called with the seconds of each. Raises `UnitsLost` once all other units are done, and a unit's own error
    at once.
    """
    left, doing, deaths, lost = deque(reversed(units)), dict[int, int](), Counter[int](), list[int]()
    while left or doing:
        pool.start_workers(len(left) + len(doing))
        while left and (worker := pool.free()) is not None:
            doing[worker] = left.popleft()
            pool.submit(worker, stage, doing[worker])
        for ended in pool.wait():
            unit = doing.pop(ended.worker)
            if ended.error is not None:
                raise ended.error
            if not ended.died:
                made(ended.seconds)
                continue
            deaths[unit] += 1
            aside = deaths[unit] == _DEATHS
            say(f"{stage}: a worker died in unit {unit}; {'it is left aside' if aside else 'another does it again'}")
            (lost if aside else left).append(unit)
    if lost:
        raise UnitsLost(stage, sorted(lost))
