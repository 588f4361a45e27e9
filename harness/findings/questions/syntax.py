"""Answer which heads follow a syntactic relation, more often than the best fixed distance would."""

import json
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from harness.findings.finding import Finding
from harness.findings.format import count, number, with_spread
from harness.findings.intervals import interval
from harness.findings.questions.pattern_statistics import by_word, looks_ahead, unanswered
from harness.hooks import Head
from harness.prompts.relations import Relation
from harness.results.schema import by_head
from harness.roles.syntax import hits

if TYPE_CHECKING:
    from harness.results import Run

_PREFIX = "syntactic_"


def syntax(run: "Run") -> Finding:
    """Name for each relation the head that hits it most often, beside the rate of the best fixed offset."""
    if "relations" not in run.data:
        return unanswered("The prompts name no relations between words: set prompts.relations.")
    names = [str(name) for name in run.data["role"].values if str(name).startswith(_PREFIX)]
    heads, score = by_head(run.data["role_score"].sel(role=names))
    chance, has_role = (by_head(run.data[f"role_{name}"].sel(role=names))[1] for name in ("chance", "given"))
    best = np.nan_to_num(score, nan=-1.0).argmax(axis=1)
    order = sorted(range(len(names)), key=lambda at: -score[at, best[at]])
    about = [interval(run, hit_rate(run, names[at].removeprefix(_PREFIX), heads[best[at]])) for at in order]
    texts = [
        f"{names[at].removeprefix(_PREFIX)} {heads[best[at]]} {with_spread(each, sign=False)}, the best fixed "
        f"distance {number(float(chance[at, best[at]]))}"
        for at, each in zip(order, about, strict=True)
    ]
    sure = sum(bool(np.nansum(has_role[at]) > 0) for at in order)
    text = f"Of {count(len(names), 'relation')} {sure} {'has' if sure == 1 else 'have'} a head that follows it beyond "
    text += f"chance and distance. How often the head that does so most looks at the right word: {'; '.join(texts)}."
    return Finding(text, about[0].mean, about[0].low, about[0].high, "role_score")


def hit_rate(run: "Run", name: str, head: Head) -> Float[np.ndarray, " prompt"]:
    """Return each prompt's pseudo-value of a head's hit rate on a relation, in the direction of its score.

    It is the rate over all relations plus the prompt's influence on it, so that the mean over prompts is the rate and
    their spread that of the rate. A prompt without the relation has no influence.
    """
    hit, known = np.zeros((2, run.data.sizes["prompt"], 2))
    for prompt, saved in enumerate(run.data["relations"].values):
        mine = [Relation(*each) for each in json.loads(str(saved)) if each[0] == name]
        if mine:
            pattern, row = by_word(run, prompt), run.data.isel(prompt=prompt)
            word = row["word"].values[: int(row["length"])]
            special = np.isin(np.arange(word.max() + 1), word[row["special"].values[: len(word)]])
            hit_now = hits(pattern[head.layer, head.head][None], special, mine, not looks_ahead(pattern))[..., 0]
            hit[prompt], known[prompt] = np.nansum(hit_now, axis=0), np.isfinite(hit_now).sum(axis=0)
    total = np.maximum(known.sum(axis=0), 1)
    rate = hit.sum(axis=0) / total
    score = float(run.data["role_score"].sel(role=f"{_PREFIX}{name}", **head.place))
    way = int(np.where(known.any(axis=0), np.abs(rate - score), np.inf).argmin())
    return rate[way] + len(hit) * (hit[:, way] - rate[way] * known[:, way]) / total[way]
