"""Rank heads by the effects of a sweep of single heads, and group them by role, to choose orders and pairs."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import xarray as xr

from harness.config import RequestError
from harness.hooks import Head
from harness.metrics import Metric

First = Literal["most_needed", "least_needed"]


def worse(effect: float, by: Metric) -> float:
    """Return the effect with the sign that makes more worse for the model; its size where the metric has no sign."""
    better = by.higher_is_better
    return abs(effect) if better is None else -effect if better else effect


def means(done: xr.Dataset | None, of: str, heads: Iterable[Head], by: Metric) -> dict[Head, float]:
    """Return each head's mean over prompts of `effect`, `direct` or `estimate`, by one metric.

    Heads without a value are left out. Raises `RequestError` where no stage measured it.
    """
    if done is None or of not in done:
        raise RequestError("sweep", of, f"no stage of this run measured `{of}`")
    mean = done[of].sel(metric=by.name).mean("prompt")
    by_head = {head: float(mean.sel(head.place)) for head in heads}
    return {head: value for head, value in by_head.items() if np.isfinite(value)}


def ranked(needed: Mapping[Any, float], first: First = "most_needed") -> list[Any]:
    """Sort by need, the most (or least) needed first; ties in the order in which they run."""
    way = -1 if first == "most_needed" else 1
    return sorted(needed, key=lambda one: way * needed[one])


def by_role(done: xr.Dataset | None, heads: Iterable[Head]) -> dict[str, list[Head]]:
    """Return the heads of each role, the highest score first; roles without heads are left out.

    Raises `RequestError` where the run scored no roles.
    """
    if done is None or "role_given" not in done:
        raise RequestError("sweep.pairs", "role", "this run scored no roles; set effect, or list pairs")
    heads_of = {}
    for role in map(str, done["role"].values):
        has_role, score = (done[name].sel(role=role) for name in ("role_given", "role_score"))
        having = [head for head in heads if bool(has_role.sel(head.place))]
        if having:
            heads_of[role] = sorted(having, key=lambda head: -float(score.sel(head.place)))
    return heads_of
