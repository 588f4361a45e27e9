"""Which heads are needed most, by what a sweep of single heads found, and which share a role: what orders and pairs are
chosen by."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import xarray as xr

from harness.config import RequestError
from harness.hooks import Head
from harness.metrics import Metric

First = Literal["most_needed", "least_needed"]


def worse(effect: float, by: Metric) -> float:
    """An effect turned so that more is worse for the model; where nobody knows which way is worse, its size."""
    better = by.higher_is_better
    return abs(effect) if better is None else -effect if better else effect


def means(done: xr.Dataset | None, of: str, heads: Iterable[Head], by: Metric) -> dict[Head, float]:
    """Each head's mean over prompts of `effect`, `direct` or `estimate`, on the metric it is ordered by; heads of which
    it is not known are left out. Raises `RequestError` where it was not measured."""
    if done is None or of not in done:
        raise RequestError("sweep", of, f"no stage of this run measured `{of}`")
    mean = done[of].sel(metric=by.name).mean("prompt")
    found = {head: float(mean.sel(head.place)) for head in heads}
    return {head: value for head, value in found.items() if np.isfinite(value)}


def ranked(needed: Mapping[Any, float], first: First = "most_needed") -> list[Any]:
    """What is needed most comes first, or least; of equals the one that runs first."""
    way = -1 if first == "most_needed" else 1
    return sorted(needed, key=lambda one: way * needed[one])


def by_role(done: xr.Dataset | None, heads: Iterable[Head]) -> dict[str, list[Head]]:
    """The heads that have each role, the highest score first; roles that none has are left out. Raises `RequestError`
    where roles were not looked for."""
    if done is None or "role_given" not in done:
        raise RequestError("sweep.pairs", "role", "nobody has looked for roles here; say effect, or list pairs")
    found = {}
    for role in map(str, done["role"].values):
        given, score = (done[name].sel(role=role) for name in ("role_given", "role_score"))
        having = [head for head in heads if bool(given.sel(head.place))]
        if having:
            found[role] = sorted(having, key=lambda head: -float(score.sel(head.place)))
    return found
