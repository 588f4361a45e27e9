"""A saved run to sentences. Each carries the number it states and how sure it is; none is fixed text."""

from collections import Counter
from collections.abc import Iterator, Sequence
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
from harness.stats.summary import SYMMETRY_FROM

if TYPE_CHECKING:
    from harness.results import Run

_CHANCE = {"logit_diff": 0.0, "accuracy": 0.5}
_ORDINALS = {1: "first", 2: "second", 3: "third"}
_NAMED = 3  # heads in one sentence
_CLAIMED = ("ci_low", "ci_high", "p_value", "p_adjusted", "important", "n_clusters")


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

    def shortly(self) -> str:
        """The mean and its spread, where unit and kind of spread were said before."""
        if self.kind in ("one prompt", "standard error"):
            return signed(self.mean) + ("" if self.kind == "one prompt" else f" ± {self.high - self.mean:.2g}")
        return f"{signed(self.mean)} ({signed(self.low)} to {signed(self.high)})"


def findings(run: "Run") -> list[Finding]:
    """What the run shows, the answer first. A run without effects or without patterns says what it can."""
    metrics = by_lead(run)
    parts = [part(run, metric) for part in (_helpers, _hurters, _counts) for metric in metrics]
    clean = [_clean(run, metric) for metric in metrics]
    rest = (*_rankings(run, metrics), *_agreement(run), *_caution(run))
    return [found for found in (*parts, *clean, *rest) if found is not None]


def in_words(run: "Run") -> str:
    """What was run, in a few sentences."""
    spec, sizes = run.spec, run.data.sizes
    prompts, model = _name(spec.get("prompts")), _name(spec.get("model"))
    shape = f" ({sizes['layer']} layers × {sizes['head']} heads)" if {"layer", "head"} <= set(sizes) else ""
    text = f"{model}{shape} read {count(sizes['prompt'], 'prompt')} of the set {prompts}"
    length = run.data["length"].values
    span = f"{length.min()}" if length.min() == length.max() else f"{length.min()} to {length.max()}"
    text += f", {span} token{'s' if length.max() != 1 else ''} each{_example(run)}."
    if "effect" not in run.data:
        return f"{text} Attention patterns were kept; no head was ablated."
    metrics, heads = by_lead(run), len(ablated_heads(run))
    text += f" {count(heads, 'head')} {'was' if heads == 1 else 'were'} ablated one at a time "
    text += f"({_name(spec.get('ablation'))}-ablation), and {_listed(metrics)} "
    return text + f"{'was' if len(metrics) == 1 else 'were'} measured on each prompt."


def lead_metric(run: "Run") -> str:
    """The metric a reader meets first: the right answer against the wrong one where it was measured, else the first."""
    metrics = [str(metric) for metric in run.data["metric"].values]
    return "logit_diff" if "logit_diff" in metrics else metrics[0]


def by_lead(run: "Run") -> list[str]:
    """The metrics of the effects, the leading one first."""
    if "effect" not in run.data:
        return []
    return sorted(map(str, run.data["metric"].values), key=lambda metric: metric != lead_metric(run))


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


@dataclass(frozen=True)
class Claim:
    """What heads.csv claims of one head on one metric; NaN for what was not computed."""

    low: float = np.nan
    high: float = np.nan
    p_value: float = np.nan
    p_adjusted: float = np.nan
    important: float = np.nan
    n_clusters: float = np.nan


def claims(run: "Run", metric: str) -> dict[Head, Claim]:
    """What heads.csv claims of each head on the metric."""
    table = run.heads.loc[run.heads["metric"] == metric].reindex(columns=["layer", "head", *_CLAIMED])
    known = {"True": 1.0, "False": 0.0}
    rows = table.astype(object).itertuples(index=False, name=None)
    return {
        Head(int(layer), int(head)): Claim(*(known.get(str(cell), _number(cell)) for cell in cells))
        for layer, head, *cells in rows
    }


def _number(cell: object) -> float:
    return float(cell) if isinstance(cell, int | float | np.number) else np.nan


def tested(run: "Run", metric: str) -> bool:
    """Whether the heads were tested against chance on this metric."""
    return any(np.isfinite(claim.p_adjusted) for claim in claims(run, metric).values())


def level_of(run: "Run") -> float:
    """The level below which a p counts."""
    return float(run.spec.get("stats", {}).get("level", 0.05))


def kind_of(run: "Run") -> str:
    """What the table's intervals are called."""
    return f"{100 * run.spec.get('stats', {}).get('confidence', 0.95):g} % interval"


def estimate(run: "Run", metric: str, head: Head) -> Estimate:
    """The head's mean effect: heads.csv's interval where it has one, else the standard error over prompts."""
    effect, claim = effect_of(run, metric, head), claims(run, metric).get(head, Claim())
    if np.isfinite([claim.low, claim.high]).all():
        return Estimate(float(effect.mean()), claim.low, claim.high, kind_of(run))
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


def _clean(run: "Run", metric: str) -> Finding | None:
    if sense(metric) == 0:
        return None
    values = run.data["clean"].sel(metric=metric).values.astype(float)
    about = spread(values)
    text = f"Unablated, the mean {metric} is {about.told(number(about.mean), unit(metric))}"
    if metric in _CHANCE:
        right = int((values > _CHANCE[metric]).sum())
        what = "the right answer is preferred" if metric == "logit_diff" else "most scored tokens are right"
        text += f"; {what} on {right} of {count(len(values), 'prompt')}"
    return Finding(f"{text}.", about.mean, about.low, about.high, "clean")


def _helpers(run: "Run", metric: str) -> Finding | None:
    return _strongest(run, metric, sense(metric) or 1)


def _hurters(run: "Run", metric: str) -> Finding | None:
    return _strongest(run, metric, -sense(metric)) if sense(metric) else None


def _strongest(run: "Run", metric: str, way: int) -> Finding | None:
    """The heads with the largest effects of one sign; where heads were tested, only those beyond chance are named."""
    ranked = [head for head in top_heads(run, metric, len(ablated_heads(run))) if _mean(run, metric, head) * way > 0]
    if not ranked:
        return None
    word = verdict(metric, float(way))
    if not tested(run, metric):
        return _about_heads(run, metric, word, ranked[:_NAMED])
    claimed = claims(run, metric)
    named = [head for head in ranked if head in claimed and claimed[head].p_adjusted < level_of(run)][:_NAMED]
    if named:
        return _about_heads(run, metric, word, named)
    about, p = estimate(run, metric, ranked[0]), claimed.get(ranked[0], Claim()).p_adjusted
    text = f"By {metric}, no head {word} beyond chance; the largest such effect is {ranked[0]}'s, "
    text += f"{about.told(signed(about.mean), unit(metric))}, max-T {chance(p)}."
    return Finding(text, about.mean, about.low, about.high, "effect")


def _about_heads(run: "Run", metric: str, word: str, heads: Sequence[Head]) -> Finding:
    first, about, effect = heads[0], estimate(run, metric, heads[0]), effect_of(run, metric, heads[0])
    text = f"By {metric}, {first} {word} most: ablating it changes the mean by "
    text += about.told(signed(about.mean), unit(metric))
    if sense(metric):
        same = int((np.sign(effect) == np.sign(about.mean)).sum())
        text += f", in the same direction on {same} of {count(len(effect), 'prompt')}"
    others = [f"{head} {estimate(run, metric, head).shortly()}" for head in heads[1:]]
    text += f". Next: {_listed(others)}." if others else "."
    return Finding(text, about.mean, about.low, about.high, "effect")


def _counts(run: "Run", metric: str) -> Finding | None:
    """How many heads are beyond chance and matter, and how many tests one by one would have named by chance."""
    if not tested(run, metric):
        return _movers(run, metric)
    level, known = level_of(run), [c for c in claims(run, metric).values() if np.isfinite(c.p_adjusted)]
    sure = sum(claim.p_adjusted < level for claim in known)
    text = f"By {metric}, {sure} of {count(len(known), 'head')} {'is' if sure == 1 else 'are'} beyond chance with all "
    text += f"tests taken together (max-T p < {level:g})"
    if any(np.isfinite(claim.important) for claim in known):
        (share, bar), important = _threshold(run, metric), sum(claim.important == 1 for claim in known)
        text += f" and {important} important (the whole interval beyond ±{100 * share:g} % of the clean value, "
        text += f"±{number(bar)}{unit(metric)}, and p or q < {level:g})"
    alone = sum(claim.p_value < level for claim in known)
    text += f". Tested one by one, {alone} have p < {level:g}; chance alone would give about {level * len(known):.0f}."
    return Finding(text, float(sure), np.nan, np.nan, "heads.csv")


def _movers(run: "Run", metric: str) -> Finding | None:
    share, bar = _threshold(run, metric)
    mean = run.data["effect"].sel(metric=metric).mean("prompt").values
    known = mean[np.isfinite(mean)]
    if sense(metric) == 0 or bar == 0 or not len(known):
        return None
    moved = int((np.abs(known) > bar).sum())
    text = f"{moved} of {count(len(known), 'head')} move the mean {metric} by more than {100 * share:g} % of its "
    text += f"clean value ({number(bar)}{unit(metric)}); none was tested against chance."
    return Finding(text, float(moved), np.nan, np.nan, "effect")


def _threshold(run: "Run", metric: str) -> tuple[float, float]:
    """The smallest effect that is called important: as a share of the clean value, and in the metric's unit."""
    share = float(run.spec.get("stats", {}).get("min_effect", 0.05))
    return share, share * abs(float(run.data["clean"].sel(metric=metric).mean()))


def _rankings(run: "Run", metrics: Sequence[str]) -> Iterator[Finding]:
    for first, second in combinations(metrics, 2):
        a, b = (abs(run.data["effect"].sel(metric=metric).mean("prompt")).values.ravel() for metric in (first, second))
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
    """What the rollout and the strongest head look at, in words, and whether it is the same."""
    if not {"effect", "pattern"} <= set(run.data):
        return
    metric = lead_metric(run)
    scored = [index for index in range(run.data.sizes["prompt"]) if run.data["target"].values[index].any()]
    for head in top_heads(run, metric, 1) if scored else ():
        rolled = [rollout_of(run, prompt)[_last_scored(run, prompt)] for prompt in scored]
        looked = [_row(run, prompt, head) for prompt in scored]
        same = sum(int(a.argmax()) == int(b.argmax()) for a, b in zip(rolled, looked, strict=True))
        text = f"From the last scored position, attention rollout looks most at {_seen(run, scored, rolled)}, and "
        text += f"{head} (largest effect on {metric}) at {_seen(run, scored, looked)}. They look most at the same "
        yield Finding(f"{text}token on {same} of {len(scored)}.", same / len(scored), np.nan, np.nan, "pattern")


def _seen(run: "Run", prompts: Sequence[int], rows: Sequence[Float[np.ndarray, " _"]]) -> str:
    """The kind of token looked at most often, on how many prompts, and the weight on it there."""
    kinds = [_kind(run, prompt, int(row.argmax())) for prompt, row in zip(prompts, rows, strict=True)]
    kind, times = Counter(kinds).most_common(1)[0]
    weight = np.mean([row.max() for row, other in zip(rows, kinds, strict=True) if other == kind])
    return f"{kind} on {times} of {count(len(prompts), 'prompt')} (mean weight {weight:.2f})"


def _row(run: "Run", prompt: int, head: Head) -> Float[np.ndarray, " key"]:
    """Where the head looks from the prompt's last scored position."""
    weights = run.data["pattern"].isel(prompt=prompt).sel(layer=head.layer, head=head.head).values
    return weights[_last_scored(run, prompt)].astype(float)


def _kind(run: "Run", prompt: int, key: int) -> str:
    """What a position is to a reader: a role where it has one, else its token."""
    row = run.data.isel(prompt=prompt)
    token = str(row["token"].values[key]).strip()
    said = {str(row[name].values).strip(): name for name in ("distractor", "answer") if name in row}
    query = _last_scored(run, prompt)
    if key == 0:
        return "the first token"
    if token and token in said:
        role = "the right answer’s token" if said[token] == "answer" else "the wrong answer’s token"
        return f"{role}{_occurrence(row, key)}"
    return {query: "that position itself", query - 1: "the token before it"}.get(key, f"“{token}”")


def _occurrence(row: xr.Dataset, key: int) -> str:
    """Which time a word stands there, if it stands in the prompt more than once."""
    tokens = [str(token).strip() for token in row["token"].values]
    nth = tokens[: key + 1].count(tokens[key])
    return f" (its {_ORDINALS.get(nth, f'{nth}th')} occurrence)" if tokens.count(tokens[key]) > 1 else ""


def _caution(run: "Run") -> Iterator[Finding]:
    """What the tests take for granted where there are few clusters."""
    told = [claim for metric in by_lead(run) for claim in claims(run, metric).values() if np.isfinite(claim.p_adjusted)]
    clusters = int(min((claim.n_clusters for claim in told), default=SYMMETRY_FROM))
    if clusters < SYMMETRY_FROM:
        text = f"The tests flip signs of whole clusters of prompts, and there {'is' if clusters == 1 else 'are'} "
        text += f"{clusters}: with fewer than {SYMMETRY_FROM} they hold only where effects are about symmetric around "
        text += "zero when a head does nothing; read p-values near the level with doubt."
        yield Finding(text, float(clusters), np.nan, np.nan, "heads.csv")


def _last_scored(run: "Run", prompt: int) -> int:
    return int(np.flatnonzero(run.data["target"].values[prompt])[-1])


def _mean(run: "Run", metric: str, head: Head) -> float:
    return float(run.data["effect"].sel(metric=metric, layer=head.layer, head=head.head).mean())


def _example(run: "Run") -> str:
    """The first prompt with what should follow, where there is one right answer."""
    row = run.data.isel(prompt=0)
    answer = str(row["answer"].values).strip() if "answer" in row else ""
    if not answer:
        return ""
    text = "".join(map(str, row["token"].values[: int(row["length"])])).strip()
    shown = text if len(text) <= 100 else f"…{text[-99:]}"
    wrong = str(row["distractor"].values).strip() if "distractor" in row else ""
    return f", such as “{shown}” (right answer “{answer[:30]}”{f', wrong “{wrong[:30]}”' if wrong else ''})"


def _listed(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else "".join(parts)


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
    if value == 0 or 1000 <= abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:#.3g}".rstrip(".") if 1e-4 <= abs(value) < 1000 else f"{value:.2e}"


def chance(p: float) -> str:
    """A p-value with its sign: ``p < 0.001`` where it is smaller than that."""
    return "p < 0.001" if p < 0.001 else f"p {p:.2g}"


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
