"""Answer which heads reach farther as the sentence grows."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from harness.findings.finding import Finding
from harness.findings.format import number, with_spread
from harness.findings.intervals import interval
from harness.findings.questions.pattern_statistics import (
    Pattern,
    PerHead,
    extreme,
    looks_ahead,
    patterns,
    resting,
    unanswered,
)
from harness.words import without

if TYPE_CHECKING:
    from harness.results import Run


def long_sentence(run: "Run") -> Finding:
    """State the slope of the mean distance of attention on the prompt's length, over prompts."""
    length = run.data["length"].values.astype(float)
    if len(np.unique(length)) < 3:
        return unanswered("Prompts of at least three different lengths are needed to see what grows with the length.")
    texts = zip(patterns(run), resting(run), strict=True)
    each = [(distance(pattern, rests), _even(pattern, rests)) for pattern, rests in texts]
    reach, even = (np.stack(side) for side in zip(*each, strict=True))
    slope = slopes(reach, length)
    about = interval(run, slope.mean(axis=(1, 2)))
    far, near = extreme(slope), extreme(slope, largest=False)
    by_layer = slope.mean(axis=(0, 2))
    text = f"From {length.min():.0f} to {length.max():.0f} tokens the mean distance of attention grows by "
    text += f"{with_spread(about, sign=False)} tokens for each token of length; even attention would by "
    text += f"{number(float(slopes(even, length).mean()))}. Layer {by_layer.argmax()} grows most "
    text += f"({number(by_layer.max())}), layer {by_layer.argmin()} least ({number(by_layer.min())}); {far[0]} reaches "
    text += (
        f"farthest with the length ({number(far[1])}), {near[0]} stays nearest ({number(near[1])}). The first token "
    )
    text += "and special ones are left out."
    return Finding(text, about.mean, about.low, about.high, "pattern")


def distance(pattern: Pattern, left_out: np.ndarray) -> Float[np.ndarray, "layer head"]:
    """Return the mean distance of attention in tokens; rows with all weight on left-out tokens do not count."""
    kept, at = without(pattern, left_out), np.flatnonzero(~left_out)
    far = (kept * np.abs(at[:, None] - at[None, :])).sum(axis=-1)
    real = kept.sum(axis=-1) > 0
    return (far * real).sum(axis=-1) / np.maximum(real.sum(axis=-1), 1)


def _even(pattern: Pattern, left_out: np.ndarray) -> Float[np.ndarray, "1 1"]:
    """Return the distance for even attention to all allowed keys."""
    allowed = np.ones(pattern.shape[-2:]) if looks_ahead(pattern) else np.tri(pattern.shape[-1])
    return distance((allowed / allowed.sum(axis=-1, keepdims=True))[None, None], left_out)


def slopes(values: PerHead, length: Float[np.ndarray, " prompt"]) -> PerHead:
    """Return each prompt's pseudo-value of the least-squares slope on the length: the slope plus the prompt's influence
    on it, so that their mean is the slope and their spread that of the slope."""
    away = length - length.mean()
    slope = np.tensordot(away, values, axes=1) / (away**2).sum()
    left = values - values.mean(axis=0) - slope * away[:, None, None]
    return slope + len(length) * away[:, None, None] * left / (away**2).sum()
