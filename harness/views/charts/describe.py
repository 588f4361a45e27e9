"""Shared parts of all charts: numbers as JSON, metrics with their units, and captions."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from harness.findings import in_words
from harness.hooks import Head
from harness.metrics import title
from harness.views.text import visible

if TYPE_CHECKING:
    from harness.results import Run

#: A chart, or a part of one, as JSON.
Described = dict[str, Any]

#: Significant digits of a number: those of a 32-bit float.
_DIGITS = 7


def chart(run: "Run", kind: str, name: str, part: str, heading: str, about: str, **rest: object) -> Described:
    """Describe a chart: how it is drawn, the name of its file, its section, and a caption of its own and the run's."""
    caption = f"{heading}. {about} {in_words(run)}"
    return {"kind": kind, "name": name, "part": part, "title": heading, "caption": visible(caption), **rest}


def measured(run: "Run", metric: str) -> str:
    """Return the metric in words and its unit."""
    return f"{in_full(metric)}, {run.units(metric)}" if run.units(metric) else in_full(metric)


def in_full(metric: str) -> str:
    """Return the metric in words: *logit difference*."""
    return visible(title(metric))


def plain_name(text: str) -> str:
    """Write a metric or a head as part of a file's name."""
    return "".join(letter if letter.isalnum() else "_" for letter in text)


def number(value: float) -> float | None:
    """Return a number of 7 digits; None for NaN and infinity, which JSON lacks."""
    return float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None


def numbers(values: Iterable[float] | Float[np.ndarray, "..."]) -> list:
    """Return an array as nested lists of `number`."""
    array = np.asarray(values, dtype=float)
    return [number(each) if array.ndim == 1 else numbers(each) for each in array]


def place(head: Head) -> list:
    """Return a head as the page has it."""
    return [head.layer, head.head, head.stack]


def standard_error(values: Float[np.ndarray, "prompt *other"]) -> Float[np.ndarray, "*other"]:
    """Return the standard error of the mean over prompts; 0 for one prompt."""
    if len(values) < 2:
        return np.zeros(values.shape[1:])
    return values.std(axis=0, ddof=1) / np.sqrt(len(values))
