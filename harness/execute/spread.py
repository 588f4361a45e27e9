"""Units given to workers as they come free, whoever the workers are.

A unit whose worker died is given to another. One that has killed its worker twice is left aside and the others are
done; then it is named.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

#: Workers that a unit may take down with it.
_DEATHS = 2


@dataclass(frozen=True)
class TurnResult:
    """How a worker's turn ended: well, after so many seconds; with an error; or with the worker's death."""

    worker: int
    seconds: float = 0.0
    error: Exception | None = None
    died: bool = False


@runtime_checkable
class Pool(Protocol):
    """Workers that each hold a model and write what they compute to the store."""

    @property
    def size(self) -> int:
        """How many workers there may be at once, as far as is known now."""
        ...

    def start_workers(self, units: int) -> None:
        """See that there are workers for so many units, in place of those that died too."""
        ...

    def free(self) -> int | None:
        """A worker that has nothing to do."""
        ...

    def submit(self, worker: int, stage: str, unit: int) -> None: ...

    def wait(self) -> list[TurnResult]:
        """The turns that have ended, once one has or a worker has come; raises what kept a worker from coming."""
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
    """Have every unit made, from the last to the first: the heaviest are last in a plan. `made` is told of each
    how many seconds it took.

    Raises `UnitsLost` when all others are made, and at once what a unit itself raises.
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
