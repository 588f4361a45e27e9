"""Forecasts of a stage's cost."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

#: Measures the seconds that a model takes for one row of prompts.
Trial = Callable[[Any, Any], float]


@runtime_checkable
class Costed(Protocol):
    """A stage that can forecast its cost."""

    def cost(self, trial: Trial) -> str: ...


def gigabytes(size: float) -> str:
    """Format bytes as ``1.5 GB`` or ``3.0 MB``."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    """Format seconds as ``40 s``, ``5 min`` or ``2.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def at_most(n_prompts: int, done: str, forwards: float, seconds_per_row: float) -> str:
    """Format the forecast of a stage that costs at most this many forwards of one row."""
    seconds = duration(forwards * seconds_per_row)
    return f"{n_prompts} prompts × {done}, at most the work of {forwards:.0f} forwards of one row: {seconds}"
