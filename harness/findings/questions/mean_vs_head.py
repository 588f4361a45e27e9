"""What the mean over heads hides."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from harness.findings.format import number, with_spread
from harness.findings.intervals import interval
from harness.findings.questions.patterns import Pattern, extreme, patterns, resting
from harness.findings.sentence import Finding
from harness.words import without

if TYPE_CHECKING:
    from harness.results import Run


def mean_vs_head(run: "Run") -> Finding:
    """On how many rows a head looks most at another token than the mean over the heads of its layer. Special tokens and
    the first are left out: nearly all heads rest there, and so does their mean."""
    kept = list(_ordinary(run))
    differing, hidden = np.stack([other_top(pattern) for pattern in kept]), np.array([of_nobody(each) for each in kept])
    about, most, nobody = interval(run, differing.mean(axis=(1, 2))), extreme(differing), interval(run, hidden)
    text = f"On {with_spread(about, sign=False)} of its rows a head looks most at another token than the mean over "
    text += f"the heads of its layer does; {most[0]} on {number(most[1])}. On {with_spread(nobody, sign=False)} of "
    text += "the rows no head at all looks most where the mean does. The first token and special ones are left out."
    return Finding(text, about.mean, about.low, about.high, "pattern")


def _ordinary(run: "Run") -> Iterator[Pattern]:
    """Patterns over ordinary tokens, without the first of them, which has little to look at."""
    for pattern, rests in zip(patterns(run), resting(run), strict=True):
        yield without(pattern, rests)[:, :, 1:]


def other_top(pattern: Float[np.ndarray, "layer head query key"]) -> Float[np.ndarray, "layer head"]:
    """The share of rows whose largest weight is elsewhere than that of the layer's mean."""
    return (pattern.argmax(-1) != pattern.mean(axis=1, keepdims=True).argmax(-1)).mean(axis=-1)


def of_nobody(pattern: Float[np.ndarray, "layer head query key"]) -> float:
    """The share of rows of a layer's mean whose largest weight is where no head of the layer has its own."""
    return float((pattern.argmax(-1) != pattern.mean(axis=1, keepdims=True).argmax(-1)).all(axis=1).mean())
