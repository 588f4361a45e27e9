"""Findings about what the weights of a head say alone: which heads it composes with, and whether it copies."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from harness.findings.finding import Finding
from harness.findings.format import listed, number
from harness.hooks import Head

if TYPE_CHECKING:
    from harness.results import Run

_INPUTS = {"q": "query", "k": "key", "v": "value"}


class Partners(NamedTuple):
    """The heads that compose most with one, by one of the receiver's inputs: their scores over that of random matrices
    (the root mean square), the largest first, and the largest of all partners by chance."""

    heads: Sequence[str]
    ratio: Sequence[float]
    chance: float

    @property
    def beyond(self) -> list[tuple[str, float]]:
        """Those beyond chance."""
        pairs = zip(self.heads, self.ratio, strict=True)
        return [(name, ratio) for name, ratio in pairs if name and ratio > self.chance]


#: By way (``is fed by``, ``feeds``) and by input (``q``, ``k``, ``v``).
Composition = Mapping[str, Mapping[str, Partners]]


def composition_of(run: "Run", head: Head) -> Composition | None:
    """Return the partners of a head; None where the run has none of it."""
    if "composition" not in run.data or str(head) not in run.data["card"].values:
        return None
    names, score, chance = (
        run.data[name].sel(card=str(head)) for name in ("composed_head", "composition", "composition_chance")
    )
    random = float(score.attrs["random"])
    return {
        str(way): {
            str(circuit): Partners(
                [str(name) for name in names.sel(way=way, circuit=circuit).values],
                [float(value) / random for value in score.sel(way=way, circuit=circuit).values],
                float(chance.sel(way=way, circuit=circuit)) / random,
            )
            for circuit in score["circuit"].values
        }
        for way in score["way"].values
    }


def composes(run: "Run", head: Head) -> Finding | None:
    """Name the strongest partner of a head by each input, as the later head and as the earlier one, where it is beyond
    chance. The number is the largest score over that of random matrices."""
    partners = composition_of(run, head)
    if partners is None:
        return None
    reads = [_partner(each, f" by its {_INPUTS[way]}") for way, each in partners["is fed by"].items() if each.beyond]
    sends = [
        _partner(each, f" by that head's {_INPUTS[way]}") for way, each in partners["feeds"].items() if each.beyond
    ]
    every = [each for way in partners.values() for each in way.values() if each.heads[0]]
    largest = max((each.ratio[0] for each in every), default=0.0)
    if not largest:  # a model of one layer, or a head without weights
        return None
    text = (
        f"By weights alone, {head} composes with no other head beyond chance: the largest score is {number(largest)} "
    )
    text += "times that of random matrices."
    if reads or sends:
        ways = [f"reads {listed(reads)}"] * bool(reads) + [f"is read by {listed(sends)}"] * bool(sends)
        text = f"By weights alone, in scores over that of random matrices, {head} {'; it '.join(ways)}."
    return Finding(text, largest, np.nan, np.nan, "composition")


def _partner(each: Partners, how: str) -> str:
    name, ratio = each.beyond[0]
    return f"{name}{how} ({number(ratio)}; by chance at most {number(each.chance)})"


def copies(run: "Run", head: Head) -> Finding | None:
    """Say whether a head's OV circuit raises the tokens that it attends to, and how much its first direction holds.

    None for a head that writes nothing.
    """
    if "ov_copying" not in run.data or str(head) not in run.data["card"].values:
        return None
    score, shares = float(run.data["ov_copying"].sel(card=str(head))), singular_shares(run, head)
    if not shares.any():
        return None
    verb = "raises" if score > 0 else "lowers"
    text = (
        f"By weights alone, {head}'s OV circuit {verb} the tokens that it attends to (copying score {number(score)}, "
    )
    text += f"from −1 to 1); its first singular direction holds {number(100 * shares[0])} % of it."
    return Finding(text, score, np.nan, np.nan, "ov_copying")


def singular_shares(run: "Run", head: Head) -> Float[np.ndarray, " direction"]:
    """Return the share of each singular direction in the squared size of the OV circuit; 0 where that is 0."""
    squares = run.data["ov_singular"].sel(card=str(head)).values.astype(float) ** 2
    return squares / (squares.sum() or 1.0)
