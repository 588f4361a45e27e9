"""The headline of a run: its answer as a sentence with one number, the line beneath it, and a few figures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.findings.effects import RIGHT_ABOVE, caution, nothing_can_be_shown
from harness.findings.finding import Finding
from harness.findings.format import chance, count, listed, number, rounded, signed, with_spread
from harness.hooks import Head
from harness.metrics import METRICS
from harness.results.run import ROUNDING, Claim

if TYPE_CHECKING:
    from harness.results import Run

#: What each ablation does to a head, as the start of a sentence.
_ABLATED = {
    "zero": "Without {head}",
    "mean": "With {head} replaced by its mean",
    "resample": "With {head} resampled from other prompts",
    "patch": "With {head} patched from the corrupted prompt",
    "scale": "With {head} multiplied by {factor:g}",
}
#: Heads named as large, but not shown.
_NAMED = 3


@dataclass(frozen=True)
class Headline:
    """A sentence with one number, and a line with its interval; `head` is the head it is about, if it is about one."""

    text: str
    detail: str
    head: Head | None = None


@dataclass(frozen=True)
class Figure:
    """A number in large type: what it is of, the side of an effect (or empty), and the head it belongs to."""

    number: str
    label: str
    side: str = ""
    head: Head | None = None


def of_effects(run: "Run") -> Headline:
    """State the largest effect that is shown, by the leading metric; else that none is, or that none could be."""
    metric = run.lead_metric
    ranked = run.top_heads(metric, len(run.ablated_heads))
    if not ranked:
        return Headline("No head was ablated.", "")
    if nothing_can_be_shown(run):
        largest = f" The largest effect on {metric} is {ranked[0]}’s, {_spread(run, metric, ranked[0])}."
        return Headline("Too few prompts to show that any head matters.", f"{next(caution(run)).text}{largest}")
    shown = run.shown(metric)
    first = next((head for head in ranked if head in shown and abs(_mean(run, metric, head)) > ROUNDING), None)
    if first is None:
        p = run.claims(metric).get(ranked[0], Claim()).p_adjusted
        tested = f", max-T {chance(p)}" if np.isfinite(p) else ""
        largest = f"The largest effect is {ranked[0]}’s, {_spread(run, metric, ranked[0])}{tested}."
        return Headline(f"No head is shown to matter for {metric}.", largest)
    larger = ranked[: ranked.index(first)]  # as large, but not shown: a headline about a smaller one must not hide it
    return Headline(_changes(run, metric, first, bool(larger)), _evidence(run, metric, first, larger), first)


def _changes(run: "Run", metric: str, head: Head, larger: bool) -> str:
    """State how far the metric moves without the head, beside its clean value (of a distance: beside other heads)."""
    mean, clean = _mean(run, metric, head), float(run.data["clean"].sel(metric=metric).mean())
    spec = run.spec.get("ablation")
    spec = spec if isinstance(spec, dict) else {"name": str(spec or "zero")}
    start = _ABLATED.get(str(spec.get("name")), "With {head} ablated").format(head=head, factor=spec.get("factor", 0))
    unit, subject = run.unit(metric), METRICS[metric].subject if metric in METRICS else metric
    if run.sense(metric) == 0:
        among = "the heads shown to matter" if larger else count(len(run.ablated_heads), "head")
        return f"{start} {subject} moves by {rounded(mean)}{unit}, the most of {among}."
    way = "rises" if mean > 0 else "falls"
    if way == "falls" and metric == "logit_diff" and clean > 0:
        return f"{start} {subject} falls by {rounded(-mean)} of {rounded(clean)}{unit}."
    return f"{start} {subject} {way} by {rounded(abs(mean))}{unit}, from {rounded(clean)}."


def _evidence(run: "Run", metric: str, head: Head, larger: Sequence[Head]) -> str:
    """State the interval of the change, on how many prompts it has this direction, its p, and what is as large."""
    about, effect = run.estimate(metric, head), run.effect(metric, head)
    way = 1.0 if about.mean > 0 else -1.0
    ends = sorted((way * about.low, way * about.high))
    parts = []
    if about.kind == "standard error":
        parts.append(f"± {about.high - about.mean:.2g} (standard error)")
    elif about.kind != "one prompt" and np.isfinite(about.low):
        # One end of an interval may have the other sign: an effect can be shown whose interval crosses zero.
        parts.append(f"{about.kind} {number(ends[0])} to {number(ends[1])}")
    if run.sense(metric):
        parts.append(f"same direction on {int((np.sign(effect) == way).sum())} of {count(len(effect), 'prompt')}")
    p = run.claims(metric).get(head, Claim()).p_adjusted
    parts.append(f"max-T {chance(p)}" if np.isfinite(p) else "not tested against chance")
    text = f"{', '.join(parts)}."
    text = f"{text[0].upper()}{text[1:]}"
    if larger:
        text += f" As large, but not shown: {listed([str(each) for each in larger[:_NAMED]])}"
        text += f" and {len(larger) - _NAMED} more." if len(larger) > _NAMED else "."
    return text


def figures(run: "Run") -> list[Figure]:
    """Return the few numbers that belong beside the headline of a run with effects of single heads."""
    return [] if "effect" not in run.data else list(_figures(run, run.lead_metric))


def _figures(run: "Run", metric: str) -> Iterator[Figure]:
    lead = of_effects(run).head
    clean = _clean(run, metric)
    if clean is not None:
        yield clean
    yield from _counts(run, metric)
    if lead is None:
        return
    yield from _opposed(run, metric, lead)
    if "direct" in run.data and np.isfinite(direct := float(run.effect(metric, lead, "direct").mean())):
        of = f"{signed(direct)} of {signed(_mean(run, metric, lead))}"
        yield Figure(of, f"of {lead} is direct, the rest goes through later layers", head=lead)


def _clean(run: "Run", metric: str) -> Figure | None:
    if run.sense(metric) == 0:
        return None
    values = run.data["clean"].sel(metric=metric).values.astype(float)
    mean = f"{signed(values.mean())}{run.unit(metric)}"
    if metric not in RIGHT_ABOVE:
        return Figure(mean.lstrip("+"), f"mean {metric} without ablation")
    right = int((values > RIGHT_ABOVE[metric]).sum())
    return Figure(f"{right} / {len(values)}", f"right without ablation ({mean if metric == 'logit_diff' else metric})")


def _counts(run: "Run", metric: str) -> Iterator[Figure]:
    known = [claim for claim in run.claims(metric).values() if np.isfinite(claim.p_adjusted)]
    if not known:
        return
    share, bar = run.threshold(metric)
    if any(np.isfinite(claim.important) for claim in known):
        important = sum(claim.important == 1 for claim in known)
        beyond = f"heads important: beyond ±{100 * share:g} % of clean (±{number(bar)}{run.unit(metric)})"
        yield Figure(f"{important} of {len(known)}", beyond)
    else:
        sure = sum(claim.p_adjusted < run.level for claim in known)
        yield Figure(f"{sure} of {len(known)}", f"heads shown to have an effect (max-T p < {run.level:g})")


def _opposed(run: "Run", metric: str, lead: Head) -> Iterator[Figure]:
    """The strongest head that is shown to have the opposite effect."""
    sense, way = run.sense(metric), np.sign(_mean(run, metric, lead))
    if not sense:
        return
    shown = run.shown(metric)
    others = (head for head in run.top_heads(metric, len(run.ablated_heads)) if head in shown)
    other = next((head for head in others if _mean(run, metric, head) * way < -ROUNDING), None)
    hurts = run.side(metric, float(-way)) == "hurts"
    if other is None:
        yield Figure("none", f"is shown to {'hurt' if hurts else 'help'}")
        return
    label = "hurts: better without it" if hurts else "helps: worse without it"
    side = "hurts" if hurts else "helps"
    yield Figure(f"{other} {signed(_mean(run, metric, other))}", label, side, other)


def of_finding(finding: Finding) -> Headline:
    """Make a headline of a finding: its first sentence, the others beneath."""
    first, _, rest = finding.text.partition(". ")
    return Headline(f"{first.rstrip('.')}.", rest)


def _spread(run: "Run", metric: str, head: Head) -> str:
    return with_spread(run.estimate(metric, head), run.unit(metric))


def _mean(run: "Run", metric: str, head: Head) -> float:
    return float(run.effect(metric, head).mean())
