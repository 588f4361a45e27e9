"""Findings about joint ablations: sets that are ablated or kept, one head after another, and pairs."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jaxtyping import Float

from harness.findings.finding import Finding
from harness.findings.format import chance, count, listed, number, signed, with_spread
from harness.findings.intervals import beside_random, interval, summary

if TYPE_CHECKING:
    from harness.results import Run

_NAMED = 4  # heads or sets in one sentence
_BY = {"effect": "in order of their single effects", "estimate": "in order of their estimates"}
_BY["greedy"] = "greedily, measured again after each"

Curve = Float[np.ndarray, " step"]


def together(run: "Run") -> Iterator[Finding]:
    """Yield findings about heads ablated together, by each metric, the leading one first."""
    if not {"set_effect", "pair_difference", "cumulative_effect"} & set(run.data):
        return
    metrics = sorted(map(str, run.data["metric"].values), key=lambda name: name != run.lead_metric)
    for metric in metrics:
        if "set_effect" in run.data:
            yield from _sets(run, metric)
        if "pair_difference" in run.data:
            yield from _pairs(run, metric)
    if "cumulative_effect" in run.data:
        yield from _orders(run, run.lead_metric)


# --- sets -------------------------------------------------------------------------------------------------------


def _sets(run: "Run", metric: str) -> Iterator[Finding]:
    """Yield each set, the largest effects first."""
    effect = run.data["set_effect"].sel(metric=metric).transpose("prompt", "set")
    order = np.argsort(-np.abs(effect.values.mean(axis=0)), kind="stable")[:_NAMED]
    kept = "kept" in effect.attrs.get("together", "")
    for at in order:
        about = interval(run, effect.values[:, at].astype(float))
        name = _named_set(run, str(effect["set"].values[at]))
        done = f"with {name} kept and all other heads ablated" if kept else f"with {name} ablated together"
        text = f"By {metric}, {done} the mean changes by {with_spread(about, run.unit(metric))}"
        share, bar = run.threshold(metric)
        if kept and bar and about.kind == run.interval_name:
            enough = -bar <= about.low and about.high <= bar
            text += f"; the whole interval is {'' if enough else 'not '}within ±{100 * share:g} % of the clean value"
            text += ": the set is enough" if enough else ": that the set is enough is not shown"
        if "random_set_effect" in run.data:
            name = str(effect["set"].values[at])
            random = run.data["random_set_effect"].sel(metric=metric, set=name).mean("prompt").values.astype(float)
            text += f"; {beside_random(about.mean, random, 'as many heads')}"
        yield Finding(f"{text}.", about.mean, about.low, about.high, "set_effect")


def _named_set(run: "Run", name: str) -> str:
    """Return the set's name, with its members where they are few."""
    members = [str(head) for head in (run.spec.get("sets") or {}).get(name, ())]
    return f"{name} ({listed(members)})" if 0 < len(members) <= _NAMED else name


# --- one head after another -------------------------------------------------------------------------------------


def _orders(run: "Run", metric: str) -> Iterator[Finding]:
    """Yield how many heads each order needs to get beyond the bar, beside the random ones."""
    effect = run.data["cumulative_effect"].sel(metric=metric).transpose("prompt", "order", "step")
    curves = {str(name): effect.sel(order=name).values.mean(axis=0) for name in effect["order"].values}
    bar, bar_text = _bar(run, effect, list(curves.values()))
    drawn = [_steps_to(curve, bar) for name, curve in curves.items() if name.startswith("random")]
    for name in [name for name in curves if name in _BY]:
        describe = _spared if _spares(effect) else _taken
        finding = describe(run, effect.sel(order=name), _steps_to(curves[name], bar), bar_text)
        if finding is not None:
            start = f"By {metric}, ablated {_BY[name]} (the {'least' if _spares(effect) else 'most'} needed first), "
            yield replace(finding, text=f"{start}{finding.text}{_at_random(drawn, effect.sizes['step'])}.")


def _taken(run: "Run", effect: xr.DataArray, steps: int | None, bar_text: str) -> Finding | None:
    """State how many of the heads that are needed most it takes."""
    if steps is None:
        return None
    about, heads = _at_step(run, effect, steps), _ablated(run, effect, steps)
    verb = "takes" if steps == 1 else "take"
    text = f"{count(steps, 'head')} ({_some(heads)}) {verb} the mean beyond {bar_text}: {about}"
    return Finding(text, float(steps), np.nan, np.nan, "cumulative_effect")


def _spared(run: "Run", effect: xr.DataArray, steps: int | None, bar_text: str) -> Finding:
    """State how many of the heads that are needed least can go."""
    last = steps or effect.sizes["step"]
    heads, spared = _ablated(run, effect, last), last - 1 if steps else last
    text = f"{count(spared, 'head')}{f' ({_some(heads[:spared])})' if spared else ''} can go before the mean is beyond "
    text += f"{bar_text}; {f'{heads[-1]} with them changes' if steps else 'all that were tried change'} it by "
    text += _at_step(run, effect, last)
    return Finding(text, float(spared), np.nan, np.nan, "cumulative_effect")


def _at_step(run: "Run", effect: xr.DataArray, steps: int) -> str:
    about = interval(run, effect.sel(step=steps).values.astype(float))
    return with_spread(about, run.unit(str(effect["metric"].values)))


def _ablated(run: "Run", effect: xr.DataArray, steps: int) -> list[str]:
    return [str(head) for head in run.data["cumulative_head"].sel(order=effect["order"]).values[:steps]]


def _some(heads: Sequence[str]) -> str:
    return listed(heads) if len(heads) <= _NAMED else f"{', '.join(heads[:_NAMED])}, …"


def _spares(effect: xr.DataArray) -> bool:
    """Whether the least needed heads are ablated first."""
    return effect.attrs.get("first") == "least_needed"


def _bar(run: "Run", effect: xr.DataArray, curves: Sequence[Curve]) -> tuple[float, str]:
    """Return the bar of the curves and its text: least needed first, the smallest important change; most needed first,
    half of the largest change of all curves."""
    share, important = run.threshold(str(effect["metric"].values))
    if _spares(effect) and important:
        return important, f"±{100 * share:g} % of its clean value"
    half = float(np.abs(curves).max()) / 2
    return half, f"half of the largest change of all orders (±{number(half)})"


def _steps_to(curve: Curve, bar: float) -> int | None:
    """Return how many heads it takes to get beyond the bar."""
    beyond = np.flatnonzero(np.abs(curve) > bar)
    return int(beyond[0]) + 1 if len(beyond) else None


def _at_random(drawn: Sequence[int | None], most: int) -> str:
    """State how many heads the random orders take."""
    there = [steps for steps in drawn if steps is not None]
    if not drawn:
        return ""
    if not there:
        return f"; none of {count(len(drawn), 'random order')} gets there within {count(most, 'head')}"
    span = f"{min(there)}" if min(there) == max(there) else f"{min(there)} to {max(there)}"
    late = f", the others not within {most}" if len(there) < len(drawn) else ""
    gets = "gets" if len(there) == 1 else "get"
    return f"; of {count(len(drawn), 'random order')} {len(there)} {gets} there with {span}{late}"


# --- pairs ------------------------------------------------------------------------------------------------------


def _pairs(run: "Run", metric: str) -> Iterator[Finding]:
    """Name the pair that differs most from its sum (of those beyond chance, if any), and count those beyond chance.

    Differences of distances are not tested: a distance grows with the square of a small change, so that two such
    changes are more than their sum anyway.
    """
    beyond = run.data["pair_difference"].sel(metric=metric).transpose("prompt", "pair")
    distance = run.meaning(metric).distance
    table = summary(run, beyond.values.astype(float), distance=distance)
    p_adjusted, size = table["p_adjusted"].to_numpy(float), np.abs(table["effect_mean"].to_numpy())
    known = p_adjusted < run.level
    at = int(np.where(known, size, -1).argmax() if known.any() else size.argmax())
    about = interval(run, beyond.values[:, at].astype(float))
    joint, alone = (
        float(run.data[name].sel(metric=metric).isel(pair=at).mean()) for name in ("pair_effect", "pair_sum")
    )
    a, b = (str(beyond[end].values[at]) for end in ("head_a", "head_b"))
    text = f"By {metric}, {a} and {b} ablated together do {signed(joint)}{run.unit(metric)}, one by one "
    text += f"{signed(alone)} in sum: {with_spread(about, run.unit(metric))} beyond it"
    if np.isfinite(p_adjusted[at]):
        sure = int(known.sum())
        text += f", max-T {chance(p_adjusted[at])}; {_meaning(joint, alone) if sure else 'this may be chance'}"
        text += f". {sure} of {count(len(table), 'pair')} {'differs' if sure == 1 else 'differ'} from the sum"
        text += f" beyond chance (max-T p < {run.level:g})"
    yield Finding(f"{text}.", about.mean, about.low, about.high, "pair_difference")


def _meaning(joint: float, alone: float) -> str:
    if abs(joint) > abs(alone):
        return "they back each other up"
    return "their effects overlap, or one works through the other"
