"""What the mean over heads hides."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from harness.findings.sentence import Finding
from harness.findings.telling import number
from harness.questions.patterns import Pattern, extreme, over_heads, patterns, per_head

if TYPE_CHECKING:
    from harness.results import Run


def mean_vs_head(run: "Run") -> Finding:
    """On how many rows a head looks most at another token than the mean over the heads of its layer."""
    differing = per_head(run, other_top)
    about, most = over_heads(run, differing), extreme(differing)
    nobody = float(np.mean([of_nobody(pattern) for pattern in patterns(run)]))
    text = f"On {about.told(number(about.mean), '')} of its rows a head looks most at another token than the mean over "
    text += f"the heads of its layer does; {most[0]} on {number(most[1])}. On {number(nobody)} of the rows no head at "
    return Finding(f"{text}all looks most where the mean does.", about.mean, about.low, about.high, "pattern")


def other_top(pattern: Pattern) -> Float[np.ndarray, "layer head"]:
    """The share of rows (after the first) whose largest weight is elsewhere than that of the layer's mean."""
    return (pattern.argmax(-1) != pattern.mean(axis=1, keepdims=True).argmax(-1))[:, :, 1:].mean(axis=-1)


def of_nobody(pattern: Pattern) -> float:
    """The share of rows of a layer's mean whose largest weight is where no head of the layer has its own."""
    return float((pattern.argmax(-1) != pattern.mean(axis=1, keepdims=True).argmax(-1))[:, :, 1:].all(axis=1).mean())
