"""Which heads follow a syntactic relation, more often than the best fixed distance would."""

from typing import TYPE_CHECKING

import numpy as np

from harness.findings.reading import Estimate, by_head, kind_of
from harness.findings.sentence import Finding
from harness.findings.telling import listed, number
from harness.questions.patterns import unanswered

if TYPE_CHECKING:
    from harness.results import Run

_CALLED = "syntactic_"


def syntax(run: "Run") -> Finding:
    """For each relation the head that hits it most often, with the rate of the best fixed offset beside it."""
    relations = [str(name) for name in run.data["role"].values if str(name).startswith(_CALLED)]
    if not relations:
        return unanswered("The prompts name no relations between words: give prompts.relations.")
    heads, score = by_head(run.data["role_score"].sel(role=relations))
    low, high, chance, given = (
        by_head(run.data[f"role_{name}"].sel(role=relations))[1] for name in ("low", "high", "chance", "given")
    )
    best = np.nan_to_num(score, nan=-1.0).argmax(axis=1)
    rows = range(len(relations))
    order = sorted(rows, key=lambda at: -score[at, best[at]])
    about = [
        Estimate(float(score[at, best[at]]), float(low[at, best[at]]), float(high[at, best[at]]), kind_of(run))
        for at in order
    ]
    said = [
        f"{relations[at].removeprefix(_CALLED)} {heads[best[at]]} hits {each.told(number(each.mean), '')} of the time, "
        f"the best fixed distance {number(float(chance[at, best[at]]))}"
        for at, each in zip(order, about, strict=True)
    ]
    sure = sum(bool(np.nansum(given[at]) > 0) for at in rows)
    text = f"Of {len(relations)} relations {sure} have a head that follows them beyond chance and distance: "
    text += f"{listed(said)}."
    return Finding(text, about[0].mean, about[0].low, about[0].high, "role_score")
