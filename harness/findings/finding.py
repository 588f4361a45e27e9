"""A sentence with the number it states."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A sentence, the number in it, its interval (NaN where there is none), and the variable it was computed from."""

    text: str
    value: float
    low: float
    high: float
    source: str
