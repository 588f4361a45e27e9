"""In which layer words meet: a verb with its subject and its object."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from harness.findings.intervals import interval
from harness.findings.sentence import Finding
from harness.findings.telling import listed, number
from harness.hooks import Head
from harness.questions.patterns import PerHead, by_word, unanswered

if TYPE_CHECKING:
    from harness.results import Run


def layers(run: "Run") -> Finding:
    """Where the words of the first tag and those of each other tag look at each other most, whichever looks."""
    tags = list((run.spec.get("prompts") or {}).get("words") or {})
    if len(tags) < 2:
        return unanswered("Tag the words that are to meet, the one in the middle first: prompts.words={verb: […], …}.")
    said, first = [], None
    for other in tags[1:]:
        met = meeting(run, tags[0], other)
        if met is None:
            return unanswered(f"Not every prompt has one word tagged {tags[0]} and one tagged {other}.")
        by_layer = met.max(axis=2).mean(axis=0)
        layer = int(by_layer.argmax())
        head = Head(layer, int(met[:, layer].mean(axis=0).argmax()))
        about = interval(run, met[:, head.layer, head.head])
        first = first or about
        said.append(f"{other} in layer {layer} ({head}: {about.told(number(about.mean), '')} of a word's attention)")
    assert first is not None
    text = f"The {tags[0]} meets its {listed(said)}, whichever of the two looks at the other."
    return Finding(text, first.mean, first.low, first.high, "pattern")


def meeting(run: "Run", one: str, other: str) -> PerHead | None:
    """The larger of the two weights between the words of two tags, by prompt, layer and head."""
    found = []
    for prompt in range(run.data.sizes["prompt"]):
        words = [_word(run, prompt, tag) for tag in (one, other)]
        if None in words:
            return None
        pattern: Float[np.ndarray, "layer head query key"] = by_word(run, prompt)
        found.append(np.maximum(pattern[:, :, words[0], words[1]], pattern[:, :, words[1], words[0]]))
    return np.stack(found)


def _word(run: "Run", prompt: int, tag: str) -> int | None:
    """The one word of a prompt that has a tag."""
    row = run.data.isel(prompt=prompt)
    there = set(row["word"].values[row["token_part"].values.astype(str) == tag].tolist())
    return there.pop() if len(there) == 1 else None
