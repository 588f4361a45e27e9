"""A run to what a page draws from: labels as text, effects as 32-bit floats, patterns as bytes, within a budget."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jaxtyping import Float

from harness.attribution import mean_pattern
from harness.findings.reading import (
    Claim,
    by_lead,
    claims,
    estimate,
    kind_of,
    level_of,
    pattern_of,
    rollout_of,
    sense,
    top_heads,
    unit,
    units,
)
from harness.hooks import Head
from harness.views.choose import Kept, all_heads, is_causal
from harness.views.pack import Packed, pack_numbers, pack_weights
from harness.views.text import visible

if TYPE_CHECKING:
    from harness.results import Run

STRONGEST = 12


def payload(
    run: "Run", kept: Kept, prompt: int, head: Head | None, metric: str | None = None, only_kept: bool = False
) -> dict:
    """Everything a page needs, JSON-ready. ``prompt``, ``head`` and ``metric`` say what it shows first;
    with ``only_kept`` its menus offer nothing else than ``kept``.
    """
    data = run.data
    causal = is_causal(run, kept.prompts)
    layers = [int(layer) for layer in data["layer"].values] if "layer" in data.coords else []
    heads = [int(number) for number in data["head"].values] if "head" in data.coords else []
    offered = {
        "layers": sorted({head.layer for head in kept.heads}) if only_kept else layers,
        "heads": heads,
        "prompts": list(kept.prompts) if only_kept else list(range(data.sizes["prompt"])),
    }
    return {
        "layers": layers,
        "heads": heads,
        "offered": offered,
        "causal": causal,
        "metrics": [_metric(run, name) for name in by_lead(run)],
        "level": level_of(run),
        "interval": kind_of(run),
        "prompts": [_prompt(run, index) for index in range(data.sizes["prompt"])],
        "slots": [[head.layer, head.head] for head in kept.heads],
        "patterns": {str(index): _matrices(run, kept, index, causal) for index in kept.prompts},
        "leftOut": kept.left_out,
        "start": {"prompt": prompt, "head": list(head) if head else None, "metric": metric},
    }


def _matrices(run: "Run", kept: Kept, prompt: int, causal: bool) -> dict[str, Packed]:
    pattern = pattern_of(run, prompt)
    layers, heads = list(pattern["layer"].values), list(pattern["head"].values)
    at = [layers.index(head.layer) for head in kept.heads], [heads.index(head.head) for head in kept.heads]
    return {
        "heads": pack_weights(pattern.transpose("layer", "head", "query", "key").values[at], causal),
        "rollout": pack_weights(rollout_of(run, prompt), causal, bits=16),
        "mean": pack_weights(mean_pattern(pattern), causal, bits=16),
    }


def _metric(run: "Run", metric: str) -> dict:
    effect = run.data["effect"].sel(metric=metric).transpose("prompt", "layer", "head").values.astype(float)
    clean = run.data["clean"].sel(metric=metric).values.astype(float)
    strongest = top_heads(run, metric, STRONGEST)
    return {
        "name": visible(metric),
        "unit": unit(run, metric).strip(),
        "units": units(run, metric),
        "sense": sense(run, metric),
        "clean": [float(value) if np.isfinite(value) else None for value in clean],
        "effect": pack_numbers(effect),
        "claims": pack_numbers(_claims(run, metric)),
        "strongest": [{"head": list(head), **_interval(run, metric, head)} for head in strongest],
    }


def _claims(run: "Run", metric: str) -> Float[np.ndarray, "claim head"]:
    """Interval and adjusted p of each head, layer by layer; NaN where there is none."""
    claimed = claims(run, metric)
    found = [claimed.get(head, Claim()) for head in all_heads(run)]
    return np.array([[claim.low, claim.high, claim.p_adjusted] for claim in found], dtype=float).T


def _interval(run: "Run", metric: str, head: Head) -> dict:
    about = estimate(run, metric, head)
    ends = (about.low, about.high) if np.isfinite(about.low) else (None, None)
    return {"low": ends[0], "high": ends[1], "kind": about.kind}


def _prompt(run: "Run", prompt: int) -> dict:
    row = run.data.isel(prompt=prompt)
    length = int(row["length"])
    scored = np.flatnonzero(row["target"].values[:length])
    return {
        "tokens": [visible(token) for token in row["token"].values[:length]],
        "scored": [int(position) for position in scored],
        "answer": _said(row, "answer"),
        "distractor": _said(row, "distractor"),
    }


def _said(row: xr.Dataset, name: str) -> str:
    text = str(row[name].values) if name in row else ""
    return visible(text) if text else ""
