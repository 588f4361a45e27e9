"""Answer which heads change when words are swapped."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from harness.findings.finding import Finding
from harness.findings.format import count, number, with_spread
from harness.findings.intervals import interval
from harness.findings.questions.pattern_statistics import by_word, extreme, unanswered

if TYPE_CHECKING:
    from harness.results import Run

_SAME = 0.05  # a head that moves no more of its attention than this depends on position alone


def word_order(run: "Run") -> Finding:
    """State how much of a head's attention moves to another place; prompts of one cluster have the same words."""
    clusters = run.data["cluster"].values.astype(str)
    groups = [np.flatnonzero(clusters == name).tolist() for name in dict.fromkeys(clusters)]
    if any(len(group) != 2 for group in groups):
        return unanswered(
            "Prompts are compared in pairs: set prompts.cluster to one name for a sentence and its swapped one."
        )
    moved = np.empty((len(clusters), run.data.sizes["layer"], run.data.sizes["head"]))
    for first, second in groups:
        one, other = by_word(run, first), by_word(run, second)
        if one.shape != other.shape:
            return unanswered(f"Prompts {first} and {second} have not the same number of words, so none was swapped.")
        moved[[first, second]] = place_change(one, other)
    about, most = interval(run, moved.mean(axis=(1, 2))), extreme(moved)
    still = int((moved.mean(axis=0) <= _SAME).sum())
    by_layer, verb = moved.mean(axis=(0, 2)), "depends" if still == 1 else "depend"
    text = f"Swapping words moves {with_spread(about, sign=False)} of a head's attention to another place "
    text += (
        f"({count(len(groups), 'pair')}). {most[0]} changes most ({number(most[1])}), layer {by_layer.argmax()} more "
    )
    text += f"than the others ({number(by_layer.max())}); {still} of {count(moved[0].size, 'head')} {verb} on position "
    return Finding(f"{text}alone (at most {_SAME:g} moves).", about.mean, about.low, about.high, "pattern")


def place_change(
    one: Float[np.ndarray, "layer head query key"], other: Float[np.ndarray, "layer head query key"]
) -> Float[np.ndarray, "layer head"]:
    """Return the share of attention at another place (total variation), mean over queries after the first."""
    return np.abs(one - other)[:, :, 1:].sum(axis=-1).mean(axis=-1) / 2
