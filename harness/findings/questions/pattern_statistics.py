"""Helpers of the questions about patterns: patterns by token or word, and one number per prompt and head."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from harness.findings.finding import Finding
from harness.findings.intervals import interval
from harness.hooks import Head
from harness.results.run import Estimate
from harness.words import merge_pattern

if TYPE_CHECKING:
    from harness.results import Run

Pattern = Float[np.ndarray, "layer head query key"]
PerHead = Float[np.ndarray, "prompt layer head"]


def patterns(run: "Run") -> Iterator[Pattern]:
    """Yield each prompt's patterns, without padding."""
    for prompt in range(run.data.sizes["prompt"]):
        yield run.pattern(prompt).transpose("layer", "head", "query", "key").values.astype(float)


def by_word(run: "Run", prompt: int) -> Pattern:
    """Return a prompt's patterns merged to words."""
    pattern = run.pattern(prompt).transpose("layer", "head", "query", "key").values.astype(float)
    return merge_pattern(pattern, run.data["word"].values[prompt, : pattern.shape[-1]])


def resting(run: "Run") -> Iterator[Bool[np.ndarray, " position"]]:
    """Yield the attention sinks of each prompt: the first token and special ones."""
    for prompt, end in enumerate(run.data["length"].values):
        rests = run.data["special"].values[prompt, :end].copy()
        rests[0] = True
        yield rests


def per_head(run: "Run", measure: Callable[[Pattern], Float[np.ndarray, "layer head"]]) -> PerHead:
    """Measure every prompt's patterns."""
    return np.stack([measure(pattern) for pattern in patterns(run)])


def looks_ahead(pattern: Pattern) -> bool:
    """Whether any token looks at one after it."""
    return bool(np.triu(pattern, 1).any())


def over_heads(run: "Run", values: PerHead) -> Estimate:
    """Return the mean over heads and prompts, with its interval over prompts."""
    return interval(run, values.mean(axis=(1, 2)))


def extreme(values: PerHead, largest: bool = True) -> tuple[Head, float]:
    """Return the head with the largest (or smallest) mean over prompts, and that mean."""
    mean = values.mean(axis=0)
    layer, head = np.unravel_index(mean.argmax() if largest else mean.argmin(), mean.shape)
    return Head(int(layer), int(head)), float(mean[layer, head])


def unanswered(text: str) -> Finding:
    """Return the finding of a run that has no data for the answer."""
    return Finding(text, np.nan, np.nan, np.nan, "question")
