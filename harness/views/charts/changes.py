"""What changed from one model to another: maps over heads, prompt by prompt, and the most changed head."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jaxtyping import Float

from harness.findings.changes import other_name, rows_of
from harness.findings.format import named
from harness.hooks import Head
from harness.results.schema import pattern_variable
from harness.views.charts.describe import Described, chart, in_full, measured, number, numbers, place, plain_name
from harness.views.text import visible

if TYPE_CHECKING:
    from harness.results import Run

DISTANCE = "Jensen–Shannon distance of patterns"


def changes(run: "Run") -> Iterator[Described]:
    """Describe the changes of effects and patterns over heads, the most changed head, and each prompt."""
    if "clean_change" not in run.data:
        return
    metrics = [str(name) for name in run.data["metric"].values]
    if "effect_change" in run.data:
        yield from (_effects(run, metric) for metric in metrics)
        yield _distances(run)
        if "pattern" in run.data:
            yield _side_by_side(run)
    yield from (_by_prompt(run, metric) for metric in metrics)


def model_names(run: "Run") -> tuple[str, str]:
    """Return the names of both models."""
    return visible(named(run.spec.get("model"))), visible(other_name(run))


def mean_change(run: "Run", metric: str) -> xr.DataArray:
    """Return the mean change of each head's effect on a metric."""
    return run.data["effect_change"].sel(metric=metric).mean("prompt")


def mean_distance(run: "Run") -> xr.DataArray:
    """Return the mean distance of each head's patterns in the two models."""
    return run.data["pattern_distance"].mean("prompt")


def by_stack(run: "Run", mean: xr.DataArray) -> dict[str, Float[np.ndarray, "head layer"]]:
    """Return a number for each head as [head, layer], by stack."""
    return {
        stack: (mean.sel(stack=stack) if stack else mean).transpose("head", "layer").values[:, :n]
        for stack, n in run.layers.items()
    }


def _map(run: "Run", mean: xr.DataArray, sure: set[Head]) -> list[Described]:
    """Describe a map of heads for each stack, with a dot on some."""
    rows = [int(number) for number in run.data["head"].values]
    return [
        {
            "name": stack,
            "rows": rows,
            "columns": list(range(values.shape[1])),
            "values": numbers(values),
            "cells": stack,
            "dots": [[rows.index(head.head), head.layer] for head in sorted(sure) if head.stack == stack],
        }
        for stack, values in by_stack(run, mean).items()
    ]


def _effects(run: "Run", metric: str) -> Described:
    sure = {head for head, row in rows_of(run, metric) if row["p_adjusted"] < run.level}
    label = f"change of effect on {measured(run, metric)}"
    return chart(
        run,
        "heat",
        f"change_{plain_name(metric)}",
        "changed",
        f"Change of each head's effect on {in_full(metric)}",
        f"Mean {label}, other model less base; a dot marks a change beyond chance (max-T p < {run.level:g}).",
        panels=_map(run, mean_change(run, metric), sure),
        scale="effect",
        sense=run.sense(metric),
        unit=run.unit(metric).strip(),
        value=label,
        axes=["head", "layer"],
        words={"helps": "helps more", "hurts": "helps less"},
        dot=f"max-T p < {run.level:g}" if sure else "",
    )


def _distances(run: "Run") -> Described:
    return chart(
        run,
        "heat",
        "pattern_distance",
        "changed",
        "How far apart patterns are",
        f"Mean {DISTANCE} of each head in the two models, 0 (alike) to 1.",
        panels=_map(run, mean_distance(run), set()),
        scale="score",
        value=DISTANCE,
        axes=["head", "layer"],
    )


def _by_prompt(run: "Run", metric: str) -> Described:
    base, other = clean_values(run, metric)
    return chart(
        run,
        "pairs-of-dots",
        f"prompts_{plain_name(metric)}",
        "changed",
        f"{in_full(metric)} of each prompt in both models",
        f"Unablated {measured(run, metric)}, a pair of marks for each prompt.",
        pairs=[[number(a), number(b)] for a, b in zip(base, other, strict=True)],
        series=list(model_names(run)),
        x={"label": "prompt"},
        y={"label": measured(run, metric), "unit": run.unit(metric).strip()},
    )


def clean_values(run: "Run", metric: str) -> tuple[Float[np.ndarray, " prompt"], Float[np.ndarray, " prompt"]]:
    """Return the unablated metric of each prompt in both models."""
    base, other = (run.data[name].sel(metric=metric).values.astype(float) for name in ("clean", "other_clean"))
    return base, other


def most_changed(run: "Run") -> Head:
    """Return the head whose patterns are furthest apart; of equal patterns, the one whose effect changed most."""
    rows = rows_of(run, run.lead_metric)
    return max(rows, key=lambda each: np.nan_to_num([each[1]["distance_mean"], abs(each[1]["change_mean"])]).tolist())[
        0
    ]


def furthest_prompt(run: "Run", head: Head) -> int:
    """Return the prompt on which a head's patterns are furthest apart."""
    return int(np.nan_to_num(run.data["pattern_distance"].sel(head.place).values).argmax())


def pattern_of(run: "Run", prompt: int, head: Head, of: str) -> tuple[np.ndarray, list[str], list[str]]:
    """Return one model's weights on a prompt, and the tokens along queries and keys; `of` is a prefix of variables."""
    name, *sides = pattern_variable(head.stack)
    mine = of if f"{of}token" in run.data else ""
    weights = run.data[f"{of}{name}"].isel(prompt=prompt).sel(layer=head.layer, head=head.head).values.astype(float)
    prefixes = ["source_" if side.startswith("source_") else "" for side in sides]
    queries, keys = ([visible(each) for each in run.token_labels(prompt, f"{mine}{prefix}")] for prefix in prefixes)
    return weights[: len(queries), : len(keys)], queries, keys


def _side_by_side(run: "Run") -> Described:
    head = most_changed(run)
    prompt = furthest_prompt(run, head)
    panels = []
    for of, name in zip(("", "other_"), model_names(run), strict=True):
        weights, queries, keys = pattern_of(run, prompt, head, of)
        panels.append({"name": f"{head} of {name}", "rows": queries, "columns": keys, "values": numbers(weights)})
    return chart(
        run,
        "heat",
        "most_changed",
        "changed",
        "Patterns of the most changed head",
        f"{head} in both models on prompt {prompt}, on which its patterns are furthest apart. Rows: tokens that look; "
        "columns: tokens looked at. The shade is the square root of the share of the largest weight.",
        panels=[{**panel, "head": place(head)} for panel in panels],
        scale="attention",
        value="weight",
        axes=["query", "key"],
        prompt=prompt,
    )
