"""Which heads matter, in sentences."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from harness.findings.reading import (
    Claim,
    ablated_heads,
    by_head,
    by_lead,
    claims,
    effect_of,
    estimate,
    level_of,
    meaning_of,
    sense,
    spread,
    tested,
    threshold,
    top_heads,
    unit,
    verdict,
)
from harness.findings.sentence import Finding
from harness.findings.telling import chance, count, listed, number, signed
from harness.hooks import Head
from harness.stats import clusters_needed, prompts_to_separate, rank_correlation, reachable
from harness.stats.summary import SYMMETRY_FROM

if TYPE_CHECKING:
    from harness.results import Run

_NAMED = 3  # heads in one sentence
_ROUNDING = 1e-7  # a mean effect that is no larger is none
_RIGHT_ABOVE = {"logit_diff": 0.0, "accuracy": 0.5}


def helpers(run: "Run", metric: str) -> Finding | None:
    """The heads whose ablation makes the model worse (or, for a distance, moves it most)."""
    return _strongest(run, metric, sense(run, metric) or 1)


def hurters(run: "Run", metric: str) -> Finding | None:
    """The heads whose ablation makes the model better."""
    return _strongest(run, metric, -sense(run, metric)) if sense(run, metric) else None


def _strongest(run: "Run", metric: str, way: int) -> Finding | None:
    """The heads with the largest effects of one sign; where heads were tested, only those beyond chance are named."""
    heads = top_heads(run, metric, len(ablated_heads(run)))
    ranked = [head for head in heads if _mean(run, metric, head) * way > _ROUNDING]
    if not ranked:
        return None
    word = verdict(run, metric, float(way))
    if not tested(run, metric):
        return _about_heads(run, metric, word, ranked[:_NAMED])
    claimed = claims(run, metric)
    named = [head for head in ranked if head in claimed and claimed[head].p_adjusted < level_of(run)][:_NAMED]
    if named:
        return _about_heads(run, metric, word, named)
    about, p = estimate(run, metric, ranked[0]), claimed.get(ranked[0], Claim()).p_adjusted
    text = f"By {metric}, no head {word} beyond {_chance(run, metric)}; the largest such effect is {ranked[0]}'s, "
    text += f"{about.told(signed(about.mean), unit(run, metric))}, max-T {chance(p)}"
    text += f"{_more_prompts(run, metric, ranked[0])}."
    return Finding(text, about.mean, about.low, about.high, "effect")


def _more_prompts(run: "Run", metric: str, head: Head) -> str:
    """How many prompts of this kind would keep the head's mean away from zero, where that can be told."""
    effect, clusters = effect_of(run, metric, head), run.data["cluster"].values
    needed = None if meaning_of(run, metric).distance else prompts_to_separate(effect, clusters)
    if needed is None or needed <= len(effect):
        return ""
    return f"; if that is what it does, about {needed} such prompts would separate it from zero"


def _chance(run: "Run", metric: str) -> str:
    """What the heads were tested against."""
    return "what random edits of the same size do" if meaning_of(run, metric).distance else "chance"


def _about_heads(run: "Run", metric: str, word: str, heads: Sequence[Head]) -> Finding:
    first, about, effect = heads[0], estimate(run, metric, heads[0]), effect_of(run, metric, heads[0])
    text = f"By {metric}, {first} {word} most: ablating it changes the mean by "
    text += about.told(signed(about.mean), unit(run, metric))
    if sense(run, metric):
        same = int((np.sign(effect) == np.sign(about.mean)).sum())
        text += f", in the same direction on {same} of {count(len(effect), 'prompt')}"
    others = [f"{head} {estimate(run, metric, head).shortly()}" for head in heads[1:]]
    text += f". Next: {listed(others)}." if others else "."
    return Finding(text, about.mean, about.low, about.high, "effect")


def counts(run: "Run", metric: str) -> Finding | None:
    """How many heads are beyond chance and matter, and how many tests one by one would have named by chance."""
    if not tested(run, metric):
        return _movers(run, metric)
    level, known = level_of(run), [c for c in claims(run, metric).values() if np.isfinite(c.p_adjusted)]
    sure = sum(claim.p_adjusted < level for claim in known)
    text = f"By {metric}, {sure} of {count(len(known), 'head')} {'is' if sure == 1 else 'are'} beyond "
    text += f"{_chance(run, metric)} with all tests taken together (max-T p < {level:g})"
    if any(np.isfinite(claim.important) for claim in known):
        (share, bar), important = threshold(run, metric), sum(claim.important == 1 for claim in known)
        text += f" and {important} important (the whole interval beyond ±{100 * share:g} % of the clean value, "
        text += f"±{number(bar)}{unit(run, metric)}, and p or q < {level:g})"
    alone = sum(claim.p_value < level for claim in known)
    text += f". Tested one by one, {alone} have p < {level:g}; chance alone would give about {level * len(known):.0f}."
    return Finding(text, float(sure), np.nan, np.nan, "heads.csv")


def _movers(run: "Run", metric: str) -> Finding | None:
    share, bar = threshold(run, metric)
    mean = run.data["effect"].sel(metric=metric).mean("prompt").values
    known = mean[np.isfinite(mean)]
    if sense(run, metric) == 0 or bar == 0 or not len(known):
        return None
    moved = int((np.abs(known) > bar).sum())
    text = f"{moved} of {count(len(known), 'head')} move the mean {metric} by more than {100 * share:g} % of its "
    text += f"clean value ({number(bar)}{unit(run, metric)}); none was tested against chance."
    return Finding(text, float(moved), np.nan, np.nan, "effect")


def clean(run: "Run", metric: str) -> Finding | None:
    """How well the model does without an ablation."""
    if sense(run, metric) == 0:
        return None
    values = run.data["clean"].sel(metric=metric).values.astype(float)
    about = spread(values)
    text = f"Unablated, the mean {metric} is {about.told(number(about.mean), unit(run, metric))}"
    if metric in _RIGHT_ABOVE:
        right = int((values > _RIGHT_ABOVE[metric]).sum())
        what = "the right answer is preferred" if metric == "logit_diff" else "most scored tokens are right"
        text += f"; {what} on {right} of {count(len(values), 'prompt')}"
    return Finding(f"{text}.", about.mean, about.low, about.high, "clean")


def rankings(run: "Run") -> Iterator[Finding]:
    """Whether two metrics put the heads in the same order."""
    for first, second in combinations(by_lead(run), 2):
        a, b = (by_head(abs(run.data["effect"].sel(metric=each).mean("prompt")))[1] for each in (first, second))
        known = np.isfinite(a) & np.isfinite(b)
        rho = rank_correlation(a[known], b[known])
        if known.sum() < 3 or np.isnan(rho):
            continue
        text = f"{first} and {second} order the heads by size of effect with a Spearman correlation of {rho:.2f}"
        tops = top_heads(run, first, 1)[0], top_heads(run, second, 1)[0]
        text += f"; both put {tops[0]} first." if tops[0] == tops[1] else f"; {tops[0]} is first by {first}, "
        text += "" if tops[0] == tops[1] else f"{tops[1]} by {second}."
        yield Finding(text, rho, np.nan, np.nan, "effect")


def caution(run: "Run") -> Iterator[Finding]:
    """What the sign flips take for granted where there are few clusters."""
    flipped = [metric for metric in by_lead(run) if not meaning_of(run, metric).distance]
    told = [claim for metric in flipped for claim in claims(run, metric).values() if np.isfinite(claim.p_adjusted)]
    clusters = int(min((claim.n_clusters for claim in told), default=SYMMETRY_FROM))
    if told and not reachable(clusters, level_of(run)):
        text = (
            f"With {count(clusters, 'cluster')} of prompts nothing can be significant at the level {level_of(run):g}: "
        )
        text += f"a test that flips the signs of whole clusters needs {clusters_needed(level_of(run))}."
        yield Finding(text, float(clusters), np.nan, np.nan, "heads.csv")
    elif clusters < SYMMETRY_FROM:
        text = f"The tests flip signs of whole clusters of prompts, and there {'is' if clusters == 1 else 'are'} "
        text += f"{clusters}: with fewer than {SYMMETRY_FROM} they hold only where effects are about symmetric around "
        text += "zero when a head does nothing; read p-values near the level with doubt."
        yield Finding(text, float(clusters), np.nan, np.nan, "heads.csv")


def _mean(run: "Run", metric: str, head: Head) -> float:
    return float(effect_of(run, metric, head).mean())
