"""A saved run to sentences. Each carries the number it states and how sure it is; none is fixed text."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jaxtyping import Float

from harness.attribution import rollout
from harness.hooks import Head
from harness.metrics import METRICS
from harness.stats import rank_correlation

if TYPE_CHECKING:
    from harness.results import Run

_CHANCE = {"logit_diff": 0.0, "accuracy": 0.5}


@dataclass(frozen=True)
class Finding:
    """A sentence, the number in it, its interval (NaN where there is none), and the variable it was computed from."""

    text: str
    value: float
    low: float
    high: float
    source: str


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts with its interval: the table's confidence interval, or one standard error each way."""

    mean: float
    low: float
    high: float
    kind: str

    def told(self, mean: str, unit: str) -> str:
        """The written mean with its unit and spread."""
        if self.kind == "one prompt":
            return f"{mean}{unit} (one prompt, so no spread)"
        if self.kind == "standard error":
            return f"{mean} ± {self.high - self.mean:.2g}{unit} (standard error)"
        return f"{mean}{unit} ({self.kind} {signed(self.low)} to {signed(self.high)})"


def findings(run: "Run") -> list[Finding]:
    """What the run shows, the answer first. A run without effects or without patterns says what it can."""
    return [*_clean(run), *_strongest(run), *_movers(run), *_rankings(run), *_agreement(run)]


def in_words(run: "Run") -> str:
    """What was run, in one or two sentences."""
    spec, sizes = run.spec, run.data.sizes
    prompts, model = _name(spec.get("prompts")), _name(spec.get("model"))
    shape = f" ({sizes['layer']} layers × {sizes['head']} heads)" if {"layer", "head"} <= set(sizes) else ""
    text = f"{model}{shape} read {count(sizes['prompt'], 'prompt')} of the set {prompts}"
    length = run.data["length"].values
    span = f"{length.min()}" if length.min() == length.max() else f"{length.min()} to {length.max()}"
    text += f", {span} token{'s' if length.max() != 1 else ''} each."
    if "effect" in run.data:
        metrics = ", ".join(map(str, run.data["metric"].values))
        text += f" {count(len(ablated_heads(run)), 'head')} were ablated one at a time ({_name(spec.get('ablation'))}"
        text += f"-ablation) and {metrics} measured on each prompt."
    return text if "effect" in run.data else f"{text} Attention patterns were kept; no head was ablated."


def ablated_heads(run: "Run") -> list[Head]:
    """The heads that have an effect, in order."""
    if "effect" not in run.data:
        return []
    known = run.data["effect"].notnull().any(["metric", "prompt"]).transpose("layer", "head")
    layers, heads = run.data["layer"].values, run.data["head"].values
    return [Head(int(layers[i]), int(heads[j])) for i, j in np.argwhere(known.values)]


def top_heads(run: "Run", metric: str, n: int) -> list[Head]:
    """The n heads with the largest absolute mean effect on the metric, largest first."""
    mean = run.data["effect"].sel(metric=metric).mean("prompt").transpose("layer", "head")
    flat = np.where(np.isfinite(mean), np.abs(mean), -1).ravel()
    order = [i for i in np.argsort(-flat, kind="stable")[:n] if flat[i] >= 0]
    layers, heads = run.data["layer"].values, run.data["head"].values
    return [Head(int(layers[i // len(heads)]), int(heads[i % len(heads)])) for i in order]


def estimate(run: "Run", metric: str, head: Head) -> Estimate:
    """The head's mean effect: heads.csv's interval where it has one, else the standard error over prompts."""
    effect = effect_of(run, metric, head)
    mean = float(effect.mean())
    table = run.heads
    if {"ci_low", "ci_high"} <= set(table.columns):
        row = table[(table["metric"] == metric) & (table["layer"] == head.layer) & (table["head"] == head.head)]
        interval = np.array([row["ci_low"], row["ci_high"]], dtype=float).T
        if len(interval) and np.isfinite(interval).all():
            share = run.spec.get("stats", {}).get("confidence", 0.95)
            return Estimate(mean, interval[0, 0], interval[0, 1], f"{100 * share:g} % interval")
    return spread(effect)


def spread(values: Float[np.ndarray, " prompt"]) -> Estimate:
    """The mean of one number per prompt, plus and minus one standard error."""
    mean = float(values.mean())
    if len(values) < 2:
        return Estimate(mean, np.nan, np.nan, "one prompt")
    error = float(values.std(ddof=1) / np.sqrt(len(values)))
    return Estimate(mean, mean - error, mean + error, "standard error")


def effect_of(run: "Run", metric: str, head: Head) -> Float[np.ndarray, " prompt"]:
    """One head's effect on each prompt, in the metric's unit."""
    return run.data["effect"].sel(metric=metric, layer=head.layer, head=head.head).values.astype(float)


def verdict(metric: str, effect: float) -> str:
    """``helps`` or ``hurts`` (what the head does for the model's behaviour), ``matters`` for a distance."""
    if sense(metric) == 0:
        return "matters"
    return "helps" if sense(metric) * effect > 0 else "hurts"


def _clean(run: "Run") -> Iterator[Finding]:
    if "clean" not in run.data:
        return
    for metric in map(str, run.data["metric"].values):
        values = run.data["clean"].sel(metric=metric).values.astype(float)
        if sense(metric) == 0:
            continue
        about = spread(values)
        text = f"Unablated, the mean {metric} is {about.told(number(about.mean), unit(metric))}"
        if metric in _CHANCE:
            right = int((values > _CHANCE[metric]).sum())
            what = "the right answer is preferred" if metric == "logit_diff" else "most scored tokens are right"
            text += f"; {what} on {right} of {count(len(values), 'prompt')}"
        yield Finding(f"{text}.", about.mean, about.low, about.high, "clean")


def _strongest(run: "Run") -> Iterator[Finding]:
    if "effect" not in run.data:
        return
    for metric in map(str, run.data["metric"].values):
        mean = run.data["effect"].sel(metric=metric).mean("prompt")
        heads = [head for head in ablated_heads(run) if np.isfinite(mean.sel(layer=head.layer, head=head.head))]
        means = np.array([float(mean.sel(layer=head.layer, head=head.head)) for head in heads])
        way = sense(metric)
        for score in (way * means, -way * means) if way else (np.abs(means),):
            if len(heads) and score.max() > 0:
                yield _about_head(run, metric, heads[int(score.argmax())])


def _about_head(run: "Run", metric: str, head: Head) -> Finding:
    about, effect = estimate(run, metric, head), effect_of(run, metric, head)
    word = verdict(metric, about.mean)
    text = f"{head} {word} most: ablating it changes {metric} by {about.told(signed(about.mean), unit(metric))}"
    if sense(metric):
        same = int((np.sign(effect) == np.sign(about.mean)).sum())
        text += f", in the same direction on {same} of {count(len(effect), 'prompt')}"
    return Finding(f"{text}.", about.mean, about.low, about.high, "effect")


def _movers(run: "Run") -> Iterator[Finding]:
    if "effect" not in run.data:
        return
    share = run.spec.get("stats", {}).get("min_effect", 0.05)
    for metric in map(str, run.data["metric"].values):
        clean = abs(float(run.data["clean"].sel(metric=metric).mean()))
        mean = run.data["effect"].sel(metric=metric).mean("prompt").values
        known = mean[np.isfinite(mean)]
        if sense(metric) == 0 or clean == 0 or not len(known):
            continue
        moved = int((np.abs(known) > share * clean).sum())
        text = f"{moved} of {count(len(known), 'head')} move the mean {metric} by more than {100 * share:g} % of its "
        text += f"clean value ({number(share * clean)}{unit(metric)})."
        yield Finding(text, float(moved), np.nan, np.nan, "effect")


def _rankings(run: "Run") -> Iterator[Finding]:
    if "effect" not in run.data:
        return
    mean = abs(run.data["effect"].mean("prompt"))
    for first, second in combinations(map(str, run.data["metric"].values), 2):
        a, b = (mean.sel(metric=metric).values.ravel() for metric in (first, second))
        known = np.isfinite(a) & np.isfinite(b)
        rho = rank_correlation(a[known], b[known])
        if known.sum() < 3 or np.isnan(rho):
            continue
        text = f"{first} and {second} order the heads by size of effect with a Spearman correlation of {rho:.2f}"
        tops = top_heads(run, first, 1)[0], top_heads(run, second, 1)[0]
        text += f"; both put {tops[0]} first." if tops[0] == tops[1] else f"; {tops[0]} is first by {first}, "
        text += "" if tops[0] == tops[1] else f"{tops[1]} by {second}."
        yield Finding(text, rho, np.nan, np.nan, "effect")


def _agreement(run: "Run") -> Iterator[Finding]:
    if "effect" not in run.data or "pattern" not in run.data:
        return
    metric = str(run.data["metric"].values[0])
    for head in top_heads(run, metric, 1):
        looks = [_looks_at(run, prompt, head) for prompt in range(run.data.sizes["prompt"])]
        pairs = [pair for pair in looks if pair is not None]
        if pairs:
            same = sum(a == b for a, b in pairs)
            text = f"From the last scored position, attention rollout and {head} (largest effect on {metric}) look "
            text += f"most at the same token on {same} of {count(len(pairs), 'prompt')}."
            yield Finding(text, same / len(pairs), np.nan, np.nan, "pattern")


def _looks_at(run: "Run", prompt: int, head: Head) -> tuple[int, int] | None:
    """Which position the rollout and the head weigh most, seen from the prompt's last scored position."""
    scored = np.flatnonzero(run.data["target"].isel(prompt=prompt).values)
    if not len(scored):
        return None
    query = int(scored[-1])
    weights = run.data["pattern"].isel(prompt=prompt).sel(layer=head.layer, head=head.head)
    return int(rollout_of(run, prompt)[query].argmax()), int(weights.values[query].argmax())


def rollout_of(run: "Run", prompt: int) -> Float[np.ndarray, "query key"]:
    """The prompt's rollout: the saved one, or computed from its patterns with the run's own options. Padding off."""
    length = int(run.data["length"].values[prompt])
    if "rollout" in run.data:
        return run.data["rollout"].isel(prompt=prompt).values[:length, :length].astype(float)
    return rollout(pattern_of(run, prompt), **(run.spec.get("attribution", {}).get("rollout") or {}))


def pattern_of(run: "Run", prompt: int) -> xr.DataArray:
    """The prompt's patterns [layer, head, query, key], padding off."""
    length = int(run.data["length"].values[prompt])
    return run.data["pattern"].isel(prompt=prompt, query=slice(length), key=slice(length)).load()


def count(n: int, noun: str) -> str:
    """``1 head``, ``2 heads``."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def number(value: float) -> str:
    """Three significant digits, without an exponent where a reader does not need one."""
    return f"{value:.3g}" if 1e-4 <= abs(value) < 1e6 or value == 0 else f"{value:.2e}"


def signed(value: float) -> str:
    """A number with its sign, minus as a minus."""
    return ("+" if value > 0 else "−" if value < 0 else "") + number(abs(value))


def sense(metric: str) -> int:
    """+1 where a positive effect means that the head helped, -1 where a negative one does, 0 where neither does."""
    known = METRICS.get(metric)
    if known is None or known.distance:
        return 0
    return -1 if known.higher_is_better else 1


def units(metric: str) -> str:
    """What the metric is counted in, in full; empty for a metric that is not one of ours."""
    return METRICS[metric].units if metric in METRICS else ""


def unit(metric: str) -> str:
    """What stands behind a number: `` nats`` or `` logits`` with its space, nothing for a share."""
    first = units(metric).partition(" ")[0]
    return f" {first}" if first in ("nats", "logits") else ""


def _name(part: dict | str | None) -> str:
    return str(part.get("name", "unnamed")) if isinstance(part, dict) else str(part or "unnamed")
