"""Answer what the mean over heads hides."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from harness.findings.finding import Finding
from harness.findings.format import number, with_spread
from harness.findings.intervals import interval
from harness.findings.questions.pattern_statistics import Pattern, extreme, patterns, resting
from harness.words import without

if TYPE_CHECKING:
    from harness.results import Run


def mean_vs_head(run: "Run") -> Finding:
    """State on how many rows a head looks most at another token than its layer's mean does.

    Special tokens and the first are left out: they are attention sinks of nearly all heads, and of the mean.
    """
    kept = list(_ordinary(run))
    differing, hidden = (
        np.stack([other_top(pattern) for pattern in kept]),
        np.array([hidden_top(each) for each in kept]),
    )
    about, most, none = interval(run, differing.mean(axis=(1, 2))), extreme(differing), interval(run, hidden)
    text = f"On {with_spread(about, sign=False)} of its rows a head looks most at another token than the mean over "
    text += f"the heads of its layer does; {most[0]} on {number(most[1])}. On {with_spread(none, sign=False)} of "
    text += "the rows no head at all looks most where the mean does. The first token and special ones are left out."
    return Finding(text, about.mean, about.low, about.high, "pattern")


def _ordinary(run: "Run") -> Iterator[Pattern]:
    """Yield patterns over ordinary tokens, without the first of them, which has one key."""
    for pattern, rests in zip(patterns(run), resting(run), strict=True):
        yield without(pattern, rests)[:, :, 1:]


def other_top(pattern: Float[np.ndarray, "layer head query key"]) -> Float[np.ndarray, "layer head"]:
    """Return the share of rows whose largest weight is elsewhere than that of the layer's mean."""
    return (pattern.argmax(-1) != pattern.mean(axis=1, keepdims=True).argmax(-1)).mean(axis=-1)


def hidden_top(pattern: Float[np.ndarray, "layer head query key"]) -> float:
    """Return the share of rows of a layer's mean whose largest weight is where no head of the layer has its own."""
    return float((pattern.argmax(-1) != pattern.mean(axis=1, keepdims=True).argmax(-1)).all(axis=1).mean())
