"""Findings about single heads: which matter, and how many are beyond chance."""

import json
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from harness.findings.finding import Finding
from harness.findings.format import chance, count, decimals, listed, mean_with_spread, number, signed, with_spread
from harness.findings.intervals import interval
from harness.hooks import Head
from harness.results.run import ROUNDING, Claim
from harness.results.schema import by_head
from harness.stats import clusters_needed, prompts_to_separate, rank_correlation, reachable

if TYPE_CHECKING:
    from harness.results import Run

_NAMED = 3  # heads in one sentence
_SUMMED = 5  # largest effects
_INFINITIVE = {"helps": "help", "hurts": "hurt", "matters": "matter"}
RIGHT_ABOVE = {"logit_diff": 0.0, "accuracy": 0.5}


def helpers(run: "Run", metric: str) -> Finding | None:
    """Name the heads whose ablation makes the model worse (or, for a distance, moves it most)."""
    return _strongest(run, metric, run.sense(metric) or 1)


def hurters(run: "Run", metric: str) -> Finding | None:
    """Name the heads whose ablation makes the model better."""
    return _strongest(run, metric, -run.sense(metric)) if run.sense(metric) else None


def _strongest(run: "Run", metric: str, way: int) -> Finding | None:
    """Name the heads shown to have an effect of one sign, the largest first, and those as large but not shown."""
    heads = run.top_heads(metric, len(run.ablated_heads))
    ranked = [head for head in heads if _mean(run, metric, head) * way > ROUNDING]
    if not ranked:
        return None
    word, sure = run.side(metric, float(way)), run.shown(metric)
    known = [head for head in ranked if head in sure][:_NAMED]
    if known:
        larger = [head for head in ranked[: ranked.index(known[-1])] if head not in known]
        return _about_heads(run, metric, word, known, larger)
    about = run.estimate(metric, ranked[0])
    text = f"By {metric}, no head is shown to {_INFINITIVE[word]} ({run.rule(metric)}); the largest such effect is "
    text += f"{ranked[0]}'s, {with_spread(about, run.unit(metric))}{_p_of(run, metric, ranked[0])}"
    text += f"{_more_prompts(run, metric, ranked[0])}."
    return Finding(text, about.mean, about.low, about.high, "effect")


def _p_of(run: "Run", metric: str, head: Head) -> str:
    p = run.claims(metric).get(head, Claim()).p_adjusted
    return f", max-T {chance(p)}" if np.isfinite(p) else ""


def _more_prompts(run: "Run", metric: str, head: Head) -> str:
    """State how many prompts of this kind would separate the head's mean from zero, where that can be estimated."""
    effect, clusters = run.effect(metric, head), run.data["cluster"].values
    needed = None if run.meaning(metric).distance else prompts_to_separate(effect, clusters)
    if needed is None or needed <= len(effect):
        return ""
    return f"; if that is what it does, about {needed} such prompts would separate it from zero"


def _about_heads(run: "Run", metric: str, word: str, heads: Sequence[Head], larger: Sequence[Head]) -> Finding:
    first, about, effect = heads[0], run.estimate(metric, heads[0]), run.effect(metric, heads[0])
    among = f" of the heads that are shown to have an effect ({run.rule(metric)})" * run.tested(metric)
    text = f"By {metric}, {first} {word} most{among}: ablating it changes the mean by "
    text += with_spread(about, run.unit(metric))
    if run.sense(metric):
        same = int((np.sign(effect) == np.sign(about.mean)).sum())
        text += f", in the same direction on {same} of {count(len(effect), 'prompt')}"
    others = [f"{head} {mean_with_spread(run.estimate(metric, head))}" for head in heads[1:]]
    text += f". Next: {listed(others)}." if others else "."
    if larger:
        unsure = [f"{head} {signed(_mean(run, metric, head))}{_p_of(run, metric, head)}" for head in larger[:_NAMED]]
        more = [f"{len(larger) - _NAMED} more"] if len(larger) > _NAMED else []
        text += f" As large, but not shown: {listed([*unsure, *more])}."
    return Finding(text, about.mean, about.low, about.high, "effect")


def counts(run: "Run", metric: str) -> Finding | None:
    """Count the heads shown to have an effect, and those that uncorrected tests would name by chance."""
    if not run.tested(metric):
        return _movers(run, metric)
    level, known = run.level, [c for c in run.claims(metric).values() if np.isfinite(c.p_adjusted)]
    sure = sum(claim.p_adjusted < level for claim in known)
    verb = "is" if sure == 1 or len(known) == 1 else "are"
    text = f"By {metric}, {sure} of {count(len(known), 'head')} {verb} shown to have an effect (max-T p < {level:g} "
    text += f"against {run.null(metric)}, all heads taken together)"
    if any(np.isfinite(claim.important) for claim in known):
        (share, bar), important = run.threshold(metric), sum(claim.important == 1 for claim in known)
        text += f" and {important} important (shown, all heads taken together, to be beyond ±{100 * share:g} % of the "
        text += f"clean value, ±{number(bar)}{run.unit(metric)})"
    alone = sum(claim.p_value < level for claim in known)
    text += f". Tested one by one, {alone} {'has' if alone == 1 else 'have'} p < {level:g}; if no head had an effect, "
    text += f"at most {level * len(known):.2g} would on average."
    return Finding(text, float(sure), np.nan, np.nan, "heads.csv")


def sums(run: "Run", metric: str) -> Finding | None:
    """State that effects do not add up, where the largest sum to more than the clean value.

    Not for a loss, which is unbounded, nor for a clean value below zero.
    """
    if run.sense(metric) >= 0:
        return None
    heads, whole = run.top_heads(metric, _SUMMED), float(run.data["clean"].sel(metric=metric).mean())
    total = -sum(_mean(run, metric, head) for head in heads if _mean(run, metric, head) < 0)
    if not total > whole > 0:
        return None
    text = f"Effects of single heads do not add up: of the {_SUMMED} largest on {metric}, those that help sum to "
    text += f"{number(total)}{run.unit(metric)}, and the clean mean is {number(whole)}."
    return Finding(text, total, np.nan, np.nan, "effect")


def _movers(run: "Run", metric: str) -> Finding | None:
    share, bar = run.threshold(metric)
    mean = run.data["effect"].sel(metric=metric).mean("prompt").values
    known = mean[np.isfinite(mean)]
    if run.sense(metric) == 0 or bar == 0 or not len(known):
        return None
    moved = int((np.abs(known) > bar).sum())
    verb = "moves" if moved == 1 else "move"
    text = f"{moved} of {count(len(known), 'head')} {verb} the mean {metric} by more than {100 * share:g} % of its "
    text += f"clean value ({number(bar)}{run.unit(metric)}); none was tested against chance."
    return Finding(text, float(moved), np.nan, np.nan, "effect")


def clean(run: "Run", metric: str) -> Finding | None:
    """State the clean value of a metric."""
    if run.sense(metric) == 0:
        return None
    values = run.data["clean"].sel(metric=metric).values.astype(float)
    about = interval(run, values)
    text = f"Unablated, the mean {metric} is {with_spread(about, run.unit(metric), sign=False)}"
    if metric in RIGHT_ABOVE:
        right = int((values > RIGHT_ABOVE[metric]).sum())
        what = "the right answer is preferred" if metric == "logit_diff" else "most scored tokens are right"
        text += f"; {what} on {right} of {count(len(values), 'prompt')}"
    return Finding(f"{text}.", about.mean, about.low, about.high, "clean")


def rankings(run: "Run") -> Iterator[Finding]:
    """Compare the order of heads by two metrics."""
    for first, second in combinations(run.metrics, 2):
        a, b = (by_head(abs(run.data["effect"].sel(metric=each).mean("prompt")))[1] for each in (first, second))
        known = np.isfinite(a) & np.isfinite(b)
        rho = rank_correlation(a[known], b[known])
        if known.sum() < 3 or np.isnan(rho):
            continue
        text = f"{first} and {second} order the heads by size of effect with a Spearman correlation of {decimals(rho)}"
        tops = run.top_heads(first, 1)[0], run.top_heads(second, 1)[0]
        text += f"; both put {tops[0]} first." if tops[0] == tops[1] else f"; {tops[0]} is first by {first}, "
        text += "" if tops[0] == tops[1] else f"{tops[1]} by {second}."
        yield Finding(text, rho, np.nan, np.nan, "effect")


def nothing_can_be_shown(run: "Run") -> bool:
    """Whether there are too few clusters of prompts for any effect to be significant."""
    clusters = _clusters(run)
    return clusters is not None and not reachable(clusters, run.level)


def _clusters(run: "Run") -> int | None:
    """Return the smallest number of clusters whose signs were flipped."""
    flipped = [metric for metric in run.metrics if not run.meaning(metric).distance]
    known = [claim for metric in flipped for claim in run.claims(metric).values() if np.isfinite(claim.p_adjusted)]
    return int(min(claim.n_clusters for claim in known)) if known else None


def caution(run: "Run") -> Iterator[Finding]:
    """State the limits of the tests: few clusters of prompts, unequal ones, or skewed effects."""
    clusters = _clusters(run)
    if clusters is not None and nothing_can_be_shown(run):
        text = f"With {count(clusters, 'cluster')} of prompts nothing can be significant at the level "
        text += f"{run.level:g}: a test that flips the signs of whole clusters needs {clusters_needed(run.level)}."
        yield Finding(text, float(clusters), np.nan, np.nan, "heads.csv")
        return
    notes = json.loads(run.data["effect"].attrs.get("notes", "{}")) if "effect" in run.data else {}
    for note in dict.fromkeys(filter(None, notes.values())):
        about = listed([metric for metric in run.metrics if notes.get(metric) == note])
        yield Finding(f"How far to trust p by {about}: {note}", np.nan, np.nan, np.nan, "effect")


def _mean(run: "Run", metric: str, head: Head) -> float:
    return float(run.effect(metric, head).mean())
