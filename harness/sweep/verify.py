"""Measure some heads exactly: the strongest of an approximate sweep, and a random sample to bound its errors."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import xarray as xr

from harness.execute.cost import Trial
from harness.hooks import Head
from harness.metrics import Metric
from harness.stats import correlation_interval, rank_correlation
from harness.sweep.edges.stage import merge_edges
from harness.sweep.importance import means
from harness.sweep.stage import SweepStage

#: A sample of fewer heads bounds the errors too loosely.
MIN_SAMPLE = 8
#: The confidence with which errors are bounded.
CONFIDENCE = 0.95
#: Standard errors over prompts that count with the size of a mean estimate. A head whose derivatives differ between
#: prompts is one whose effect is far from linear: it is often larger than their mean.
STANDARD_ERRORS = 1.0
#: A screen is blind if its estimates sum to a smaller share of the effect of all heads together.
BLIND_BELOW = 0.1


@dataclass(frozen=True)
class VerifyStage:
    """The stage that ablates some of the heads exactly; one unit is a batch of prompts.

    `sweep` holds model, prompts and ablation; its groups are all heads. By `quick` (``fast_effect`` or ``estimate`` of
    an earlier stage) it takes the `top` strongest, by each metric in turn (of estimates, those that may be strongest:
    `STANDARD_ERRORS`), and a random `share` of all, at least
    `MIN_SAMPLE`; no sample if the share is 0.
    """

    sweep: SweepStage
    quick: str
    top: int
    share: float = 0.0

    @property
    def name(self) -> str:
        return "verify"

    def cost(self, trial: Trial) -> str:
        return self.as_sweep().cost(trial)

    def as_sweep(self) -> SweepStage:
        names = list(self.sweep.groups)
        n = min(len(names), self.top + len(self._sample()))
        return self._of(names[:: max(1, len(names) // n)][:n])

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]:
        """Choose the heads; none where the first stage was exact. Raises `RequestError` without a first stage."""
        if done is not None and "effect" in done:
            return {"batches": []}
        sample = self._sample()
        chosen = {*self._strongest(done), *sample}
        names = [name for name in self.sweep.groups if name in chosen]
        return {**self._of(names).plan(), "sample": sample}

    def _sample(self) -> list[str]:
        names = list(self.sweep.groups)
        n = min(len(names), max(MIN_SAMPLE, round(self.share * len(names)))) if self.share else 0
        return np.random.default_rng([self.sweep.seed, n]).permutation(names)[:n].tolist()

    def _strongest(self, done: xr.Dataset | None) -> list[str]:
        """Return the `top` heads: the first by each metric, then the second by each, and so on."""
        heads = self.sweep.heads
        by_metric = [self._sizes(done, one) for one in self.sweep.metrics]
        ranks = [sorted(filter(size.get, size), key=lambda head: -size[head]) for size in by_metric]
        in_turn = [head for turn in zip_longest(*ranks) for head in turn if head is not None]
        return [str(head) for head in dict.fromkeys([*in_turn, *heads])][: self.top]

    def _sizes(self, done: xr.Dataset | None, metric: Metric) -> dict[Head, float]:
        """Return the size of each head's mean; of estimates, `STANDARD_ERRORS` of it are added."""
        size = {head: abs(mean) for head, mean in means(done, self.quick, self.sweep.heads, metric).items()}
        n = len(self.sweep.prompts)
        if self.quick != "estimate" or n < 2 or done is None:
            return size
        spread = done[self.quick].sel(metric=metric.name).std("prompt", ddof=1) / n**0.5
        return {head: each + STANDARD_ERRORS * float(spread.sel(head.place)) for head, each in size.items()}

    def _of(self, names: Sequence[str]) -> SweepStage:
        return self.sweep.of({name: self.sweep.groups[name] for name in names})

    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]:
        return self.sweep.planned(plan).compute(plan, unit)

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """Return the sweep's arrays, their names prefixed ``exact_``, and which heads were `sampled`."""
        if not units:
            return xr.Dataset()
        arrays = self.sweep.planned(plan).assemble(plan, units)
        effect = arrays["effect"].isel(metric=0, prompt=0, drop=True)
        sampled = xr.zeros_like(effect, dtype=bool).drop_attrs()
        place = {str(head): head.place for head in self.sweep.heads}
        for name in plan["sample"]:
            sampled.loc[place[name]] = True
        exact = {name: f"exact_{name}" for name in arrays.data_vars if name != "clean"}
        return arrays.rename(exact).assign(sampled=sampled)


def merge(done: xr.Dataset, arrays: xr.Dataset) -> xr.Dataset:
    """Add a stage's arrays to those of earlier stages, and make `effect` final once heads were verified.

    After a fast sweep `effect` (and `ablated`, `direct`, `source_direct`, `null_effect`) has the exact values where
    there are some and the fast ones elsewhere; after a screen the exact values, and NaN elsewhere. `exact` [layer,
    head] says where; the attributes of `effect` hold the errors of the approximation.
    """
    done = merge_edges(xr.merge([done, arrays], join="exact", compat="no_conflicts", combine_attrs="drop_conflicts"))
    if "exact_effect" not in done:
        return done
    names = ("effect", "ablated", "direct", "source_direct", "null_effect")
    exact = {name: done[f"exact_{name}"] for name in names if f"exact_{name}" in done}
    where = exact["effect"].notnull().any(["metric", "prompt"])
    fast = "fast_effect" in done
    final = {name: _filled(done, name) if fast else array for name, array in exact.items()}
    quality = _errors(done, where) if fast else _screen_quality(done, where)
    final["effect"].attrs |= {"method": "fast" if fast else "screen", **quality}
    left = [name for name in done if str(name).startswith(("exact_", "fast_")) and name != "fast_effect"]
    return done.drop_vars([*left, "sampled"]).assign(final | {"exact": where.drop_attrs()})


def _filled(done: xr.Dataset, name: str) -> xr.DataArray:
    """Return the exact values, and fast ones elsewhere; a fast `ablated` is the exact clean value + fast effect."""
    exact = done[f"exact_{name}"]
    quick = done["clean"] + done["fast_effect"] if name == "ablated" else done[f"fast_{name}"]
    return exact.where(exact.notnull(), quick).transpose(*exact.dims).assign_attrs(exact.attrs)


def _errors(done: xr.Dataset, where: xr.DataArray) -> dict[str, str]:
    """Measure the errors of fast effects by metric, on the random sample alone.

    The sample stands for the unverified heads; the strongest, which are verified too, are not like them. `rms` is the
    root mean square of the errors of mean effects, `rms_high` its upper bound at `CONFIDENCE` if errors are about
    normal (χ², as many degrees of freedom as heads). `largest` is the largest of the sample; at the same confidence the
    `share_within` of all heads has no larger one, whatever the distribution (Wilks 1941). `rank_correlation` is of
    sizes, with the ends of its interval.
    """
    by_metric, n = {}, int(done["sampled"].sum())
    for name in done["metric"].values:
        exact, fast = (done[which].sel(metric=name) for which in ("exact_effect", "fast_effect"))
        off = (fast - exact).where(done["sampled"])
        mean = off.mean("prompt")
        rms = float(np.sqrt((mean**2).mean()))
        rho = _rank_agreement(exact, fast, done["sampled"])
        low, high = correlation_interval(rho, n, CONFIDENCE)
        by_metric[str(name)] = {
            "rms": rms,
            "confidence": CONFIDENCE,
            "rms_high": rms * _rms_factor(n),
            "largest": float(abs(mean).max()),
            "share_within": (1 - CONFIDENCE) ** (1 / n),
            "rms_by_prompt": float(np.sqrt((off**2).mean())),
            "rank_correlation": rho,
            "rank_low": low,
            "rank_high": high,
        }
    counted = {"sampled": n, "verified": int(where.sum())}
    return {"errors": json.dumps(by_metric), **{key: str(value) for key, value in counted.items()}}


def _rms_factor(n: int) -> float:
    """Return the factor by which the rms of n normal errors may be too small."""
    from scipy.stats import chi2

    return float(np.sqrt(n / chi2.ppf(1 - CONFIDENCE, n)))


def _screen_quality(done: xr.Dataset, where: xr.DataArray) -> dict[str, str]:
    """Compare a screen's estimates with the verified heads, and their sum with the effect of all heads together."""
    by_metric = {}
    for name in done["metric"].values:
        exact, estimate = (done[which].sel(metric=name) for which in ("exact_effect", "estimate"))
        together = float((done["all_ablated"] - done["clean"]).sel(metric=name).mean())
        total = float(abs(estimate.mean("prompt")).sum())
        by_metric[str(name)] = {
            "rank_correlation": _rank_agreement(exact, estimate, where),
            "estimates": total,
            "together": together,
            "blind": total < BLIND_BELOW * abs(together),
        }
    return {"screen": json.dumps(by_metric), "verified": str(int(where.sum()))}


def _rank_agreement(exact: xr.DataArray, quick: xr.DataArray, where: xr.DataArray) -> float:
    """Return Spearman's correlation of the sizes of mean effects by both, over the heads `where`."""
    return float(rank_correlation(*(abs(each.mean("prompt")).values[where.values] for each in (exact, quick))))
