"""Answer in which layer words attend to each other: a verb with its subject and its object."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from harness.findings.finding import Finding
from harness.findings.format import listed, with_spread
from harness.findings.intervals import interval
from harness.findings.questions.pattern_statistics import Pattern, PerHead, by_word, extreme, unanswered

if TYPE_CHECKING:
    from harness.results import Run


def layers(run: "Run") -> Finding:
    """Name the head in which the words of two tags attend to each other most, beyond its mean weight at that distance.

    (Without that baseline a head that always looks at the next word would win.)
    """
    tags = list((run.spec.get("prompts") or {}).get("words") or {})
    if len(tags) < 2:
        return unanswered("Tag the words to compare, the one in the middle first: prompts.words={verb: […], …}.")
    texts, first = [], None
    for other in tags[1:]:
        met = meeting(run, tags[0], other)
        if met is None:
            return unanswered(f"Not every prompt has one word tagged {tags[0]} and one tagged {other}.")
        head, _ = extreme(met)
        about = interval(run, met[:, head.layer, head.head])
        first = first or about
        texts.append(f"its {other} in layer {head.layer} ({head}, {with_spread(about)})")
    assert first is not None
    text = f"The {tags[0]} meets {listed(texts)}: the larger attention weight between the two, less the head's mean "
    return Finding(f"{text}weight at that distance.", first.mean, first.low, first.high, "pattern")


def meeting(run: "Run", one: str, other: str) -> PerHead | None:
    """Return the weight between the words of two tags, the larger of both directions, by prompt, layer and head."""
    weights = []
    for prompt in range(run.data.sizes["prompt"]):
        a, b = _word(run, prompt, one), _word(run, prompt, other)
        if a is None or b is None:
            return None
        pattern = by_word(run, prompt)
        weights.append(np.maximum(beyond_distance(pattern, a, b), beyond_distance(pattern, b, a)))
    return np.stack(weights)


def beyond_distance(pattern: Pattern, query: int, key: int) -> Float[np.ndarray, "layer head"]:
    """Return a weight less the mean of all others at the same distance in the same direction."""
    along = np.diagonal(pattern, key - query, axis1=2, axis2=3)
    others = (along.sum(axis=-1) - pattern[:, :, query, key]) / max(along.shape[-1] - 1, 1)
    return pattern[:, :, query, key] - others


def _word(run: "Run", prompt: int, tag: str) -> int | None:
    """Return the word of a prompt that has a tag; None if it is not exactly one."""
    row = run.data.isel(prompt=prompt)
    there = set(row["word"].values[row["token_part"].values.astype(str) == tag].tolist())
    return there.pop() if len(there) == 1 else None
