"""In which layer words meet: a verb with its subject and its object."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from harness.findings.format import listed, with_spread
from harness.findings.intervals import interval
from harness.findings.questions.patterns import Pattern, PerHead, by_word, extreme, unanswered
from harness.findings.sentence import Finding

if TYPE_CHECKING:
    from harness.results import Run


def layers(run: "Run") -> Finding:
    """Where the words of the first tag and those of each other tag look at each other most, beyond what the head gives
    to any words that far apart (or a head that always looks at the next word would be one where they meet)."""
    tags = list((run.spec.get("prompts") or {}).get("words") or {})
    if len(tags) < 2:
        return unanswered("Tag the words that are to meet, the one in the middle first: prompts.words={verb: […], …}.")
    said, first = [], None
    for other in tags[1:]:
        met = meeting(run, tags[0], other)
        if met is None:
            return unanswered(f"Not every prompt has one word tagged {tags[0]} and one tagged {other}.")
        head, _ = extreme(met)
        about = interval(run, met[:, head.layer, head.head])
        first = first or about
        said.append(f"its {other} in layer {head.layer} ({head}, {with_spread(about)})")
    assert first is not None
    text = f"The {tags[0]} meets {listed(said)}: so much more of its attention one of the two gives the other than it "
    return Finding(f"{text}gives to words at that distance elsewhere.", first.mean, first.low, first.high, "pattern")


def meeting(run: "Run", one: str, other: str) -> PerHead | None:
    """What the words of two tags give each other, the larger of both ways, by prompt, layer and head."""
    found = []
    for prompt in range(run.data.sizes["prompt"]):
        a, b = _word(run, prompt, one), _word(run, prompt, other)
        if a is None or b is None:
            return None
        pattern = by_word(run, prompt)
        found.append(np.maximum(beyond_distance(pattern, a, b), beyond_distance(pattern, b, a)))
    return np.stack(found)


def beyond_distance(pattern: Pattern, query: int, key: int) -> Float[np.ndarray, "layer head"]:
    """A weight less the mean of all others at the same distance in the same direction."""
    along = np.diagonal(pattern, key - query, axis1=2, axis2=3)
    others = (along.sum(axis=-1) - pattern[:, :, query, key]) / max(along.shape[-1] - 1, 1)
    return pattern[:, :, query, key] - others


def _word(run: "Run", prompt: int, tag: str) -> int | None:
    """The one word of a prompt that has a tag."""
    row = run.data.isel(prompt=prompt)
    there = set(row["word"].values[row["token_part"].values.astype(str) == tag].tolist())
    return there.pop() if len(there) == 1 else None
