"""Pairs of heads: the effect of ablating both beyond the sum of the single effects.

Heads that back each other up show little singly and much jointly (Wang et al. 2022, arXiv:2211.00593, §3.3: backup
heads); the difference has the other sign where one head works through the other.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr

from harness.config import RequestError
from harness.execute.cost import Trial
from harness.hooks import Head
from harness.metrics import lead
from harness.sweep.importance import by_role, means
from harness.sweep.interventions import EFFECT
from harness.sweep.stage import SweepStage

Pair = tuple[Head, Head]


@dataclass(frozen=True)
class PairsStage:
    """The stage that ablates two heads together; one unit is a batch of prompts, all pairs and their heads on it.

    `sweep` holds model, prompts and ablation; its groups are the candidate heads, one by one. `chosen` is ``all`` pairs
    of them, those among the `top` heads with the largest mean ``effect`` or ``direct`` effect, those within the `top`
    heads of each ``role`` (which need an earlier stage), or the pairs themselves.
    """

    sweep: SweepStage
    chosen: str | tuple[Pair, ...] = "all"
    top: int = 10

    @property
    def name(self) -> str:
        return self.sweep.name

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]:
        """Choose the pairs. Raises `RequestError` where `done` lacks what they are chosen by."""
        pairs = self._pairs(done)
        return {**self._sweep(pairs).plan(), "pairs": [[str(head) for head in pair] for pair in pairs]}

    def _pairs(self, done: xr.Dataset | None) -> list[Pair]:
        if not isinstance(self.chosen, str):
            return list(self.chosen)
        if self.chosen == "all":
            return list(combinations(self.sweep.heads, 2))
        if self.chosen == "role":
            return _pairs_by_role(done, self.sweep.heads, self.top)
        mean = means(done, self.chosen, self.sweep.heads, lead(self.sweep.metrics))
        top = sorted(mean, key=lambda head: -abs(mean[head]))[: self.top]
        return list(combinations([head for head in self.sweep.heads if head in top], 2))

    def _sweep(self, pairs: Iterable[Pair]) -> SweepStage:
        """Return the sweep of these pairs' heads one by one, then of the pairs."""
        pairs = list(pairs)
        singles = {str(head): (head,) for pair in pairs for head in pair}
        return self.sweep.of(singles | {f"{a} + {b}": (a, b) for a, b in pairs})

    def cost(self, trial: Trial) -> str:
        return self.as_sweep().cost(trial)

    def as_sweep(self) -> SweepStage:
        """Return a sweep of as many pairs, for the forecast, before they are chosen."""
        known = self.chosen == "all" or not isinstance(self.chosen, str)
        spread = self.sweep.heads[:: max(1, len(self.sweep.heads) // self.top)][: self.top]
        return self._sweep(self._pairs(None) if known else combinations(spread, 2))

    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]:
        return self.sweep.planned(plan).compute(plan, unit)

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """Return `pair_effect` [metric, prompt, pair], `pair_sum` of the single effects, and their `pair_difference`.

        The coordinates `head_a` and `head_b` name the heads; `clean` comes along.
        """
        swept = self.sweep.planned(plan).assemble(plan, units)
        effect = swept[EFFECT["pairs"]]
        groups, (a, b) = list(effect["set"].values), np.array(plan["pairs"]).T
        first, second = (effect.values[:, :, [groups.index(head) for head in side]] for side in (a, b))
        joint = effect.values[:, :, len(groups) - len(a) :]
        notes = {"chosen_by": self.chosen if isinstance(self.chosen, str) else "list"}
        notes["ordered_by"] = lead(self.sweep.metrics).name
        plain = {key: effect.attrs[key] for key in effect.attrs if key in swept["clean"].attrs} | notes
        dims = ("metric", "prompt", "pair")
        made = {
            "pair_effect": xr.DataArray(joint, dims=dims, attrs={**effect.attrs, **notes}),
            "pair_sum": xr.DataArray(first + second, dims=dims, attrs={**plain, "together": "each by itself, summed"}),
            "pair_difference": xr.DataArray(joint - (first + second), dims=dims, attrs=plain),
            "clean": swept["clean"],
        }
        return xr.Dataset(made, {**swept["clean"].coords, "head_a": ("pair", a), "head_b": ("pair", b)})


def _pairs_by_role(done: xr.Dataset | None, heads: Sequence[Head], top: int) -> list[Pair]:
    """Return the pairs of heads that share a role, among the `top` heads of each, each pair once."""
    pairs: dict[Pair, None] = {}
    for shared in by_role(done, heads).values():
        pairs |= dict.fromkeys(combinations([head for head in heads if head in shared[:top]], 2))
    if not pairs:
        raise RequestError(
            "sweep.pairs", "role", "no two of these heads have a role in common; set effect, or list pairs"
        )
    return list(pairs)
