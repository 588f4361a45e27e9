"""Some heads again, exactly: the strongest that a quick look found, and of a fast sweep a random sample beside them,
whose errors say how far the others may be off."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import xarray as xr

from harness.execute.cost import Trial
from harness.stats import correlation_interval, rank_correlation
from harness.sweep.importance import means
from harness.sweep.stage import SweepStage

#: A sample of fewer heads says too little of the errors.
LEAST_SAMPLE = 8
#: The confidence with which errors are bounded.
SURE = 0.95
#: Estimates that add up to a smaller share of what all heads do together have not seen what they do.
SEEN_FROM = 0.1


@dataclass(frozen=True)
class VerifyStage:
    """The stage that ablates a part of the heads exactly; one unit is a batch of prompts.

    `sweep` says how, and its groups are all the heads. By `quick` (``fast_effect`` or ``estimate``, which an earlier
    stage must have found) the `top` strongest are taken, by each metric in turn, and a random `share` of all, at least
    `LEAST_SAMPLE`; none if it is 0.
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
        """The heads, frozen: none where a first look was exact. Raises `RequestError` where there was none."""
        if done is not None and "effect" in done:
            return {"batches": []}
        sample = self._sample()
        chosen = {*self._strongest(done), *sample}
        names = [name for name in self.sweep.groups if name in chosen]
        return {**self._of(names).plan(), "sample": sample}

    def _sample(self) -> list[str]:
        names = list(self.sweep.groups)
        n = min(len(names), max(LEAST_SAMPLE, round(self.share * len(names)))) if self.share else 0
        return np.random.default_rng([self.sweep.seed, n]).permutation(names)[:n].tolist()

    def _strongest(self, done: xr.Dataset | None) -> list[str]:
        """The `top` heads: the first by each metric, then the second by each, and so on."""
        heads = self.sweep.heads
        by_metric = [means(done, self.quick, heads, one) for one in self.sweep.metrics]
        ranks = [sorted(filter(size.get, size), key=lambda head: -abs(size[head])) for size in by_metric]
        in_turn = [head for turn in zip_longest(*ranks) for head in turn if head is not None]
        return [str(head) for head in dict.fromkeys([*in_turn, *heads])][: self.top]

    def _of(self, names: Sequence[str]) -> SweepStage:
        return self.sweep.of({name: self.sweep.groups[name] for name in names})

    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]:
        return self.sweep.planned(plan).compute(plan, unit)

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """What the sweep gives, with names that begin with ``exact_``, and which heads were `sampled`."""
        if not units:
            return xr.Dataset()
        found = self.sweep.planned(plan).assemble(plan, units)
        effect = found["effect"].isel(metric=0, prompt=0, drop=True)
        sampled = xr.zeros_like(effect, dtype=bool).drop_attrs()
        place = {str(head): head.place for head in self.sweep.heads}
        for name in plan["sample"]:
            sampled.loc[place[name]] = True
        return found.rename({name: f"exact_{name}" for name in found.data_vars if name != "clean"}).assign(
            sampled=sampled
        )


def with_found(done: xr.Dataset, found: xr.Dataset) -> xr.Dataset:
    """What stages found with what one more found; effects are made whole as soon as quick ones were verified.

    Of a fast sweep `effect` (and `ablated`, `direct`, `null_effect`) are the exact values where there are such and the
    fast ones elsewhere; of a screen they are the exact values, and NaN elsewhere. `exact` [layer, head] says where, and
    the attributes of `effect` how far the quick look was off.
    """
    done = xr.merge([done, found], join="exact", compat="no_conflicts", combine_attrs="drop_conflicts")
    return _settled(done) if "exact_effect" in done else done


def _settled(done: xr.Dataset) -> xr.Dataset:
    names = ("effect", "ablated", "direct", "null_effect")
    exact = {name: done[f"exact_{name}"] for name in names if f"exact_{name}" in done}
    where = exact["effect"].notnull().any(["metric", "prompt"])
    fast = "fast_effect" in done
    found = {name: _filled(done, name) if fast else array for name, array in exact.items()}
    said = _errors(done, where) if fast else _blindness(done, where)
    found["effect"].attrs |= {"method": "fast" if fast else "screen", **said}
    left = [name for name in done if str(name).startswith(("exact_", "fast_")) and name != "fast_effect"]
    return done.drop_vars([*left, "sampled"]).assign(found | {"exact": where.drop_attrs()})


def _filled(done: xr.Dataset, name: str) -> xr.DataArray:
    """The exact values, and fast ones where there are none; what is ablated is held against the exact clean run."""
    exact = done[f"exact_{name}"]
    quick = done["clean"] + done["fast_effect"] if name == "ablated" else done[f"fast_{name}"]
    return exact.where(exact.notnull(), quick).transpose(*exact.dims).assign_attrs(exact.attrs)


def _errors(done: xr.Dataset, where: xr.DataArray) -> dict[str, str]:
    """How far fast effects are off exact ones, by metric. All of it is of the random sample alone, which stands for the
    heads that were not verified: the strongest, which are verified too, are not like them.

    `rms` is the root mean square of the errors of mean effects, and `rms_high` its upper bound: with the confidence
    `SURE` the rms over all heads is no larger, if errors are about normal (χ², as many degrees of freedom as heads).
    `largest` is the largest of the sample; with the same confidence the `share_within` of all heads has no larger one,
    however errors are distributed (Wilks 1941). `rank_correlation` is of sizes, with the ends of its interval.
    """
    said, n = {}, int(done["sampled"].sum())
    for name in done["metric"].values:
        exact, fast = (done[which].sel(metric=name) for which in ("exact_effect", "fast_effect"))
        off = (fast - exact).where(done["sampled"])
        mean = off.mean("prompt")
        rms = float(np.sqrt((mean**2).mean()))
        rho = _alike(exact, fast, done["sampled"])
        low, high = correlation_interval(rho, n, SURE)
        said[str(name)] = {
            "rms": rms,
            "confidence": SURE,
            "rms_high": rms * _rms_factor(n),
            "largest": float(abs(mean).max()),
            "share_within": (1 - SURE) ** (1 / n),
            "rms_by_prompt": float(np.sqrt((off**2).mean())),
            "rank_correlation": rho,
            "rank_low": low,
            "rank_high": high,
        }
    counted = {"sampled": n, "verified": int(where.sum())}
    return {"errors": json.dumps(said), **{key: str(value) for key, value in counted.items()}}


def _rms_factor(n: int) -> float:
    """By how much the rms of n normal errors may be too small."""
    from scipy.stats import chi2

    return float(np.sqrt(n / chi2.ppf(1 - SURE, n)))


def _blindness(done: xr.Dataset, where: xr.DataArray) -> dict[str, str]:
    """How a screen's estimates rank the verified heads, and what share they have seen of what all heads do together."""
    said = {}
    for name in done["metric"].values:
        exact, guess = (done[which].sel(metric=name) for which in ("exact_effect", "estimate"))
        together = float((done["all_ablated"] - done["clean"]).sel(metric=name).mean())
        total = float(abs(guess.mean("prompt")).sum())
        said[str(name)] = {
            "rank_correlation": _alike(exact, guess, where),
            "estimates": total,
            "together": together,
            "blind": total < SEEN_FROM * abs(together),
        }
    return {"screen": json.dumps(said), "verified": str(int(where.sum()))}


def _alike(exact: xr.DataArray, quick: xr.DataArray, where: xr.DataArray) -> float:
    """Spearman's correlation of the sizes of mean effects by both, over the heads `where`."""
    return float(rank_correlation(*(abs(each.mean("prompt")).values[where.values] for each in (exact, quick))))
