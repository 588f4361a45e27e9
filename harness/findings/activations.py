"""Findings about a head's q, k, v and pattern: which of them alone carries the effect of the strongest heads."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.findings.finding import Finding
from harness.findings.format import chance, decimals, listed, with_spread
from harness.hooks import Head
from harness.results.run import ROUNDING, Estimate, spread

if TYPE_CHECKING:
    from harness.results import Run

VARIABLE = "activation_effect"
#: An activation in words.
IN_WORDS = {"z": "z", "q": "query", "k": "key", "v": "value", "pattern": "pattern"}
_NAMED = 3  # heads of the leading metric


def replaced(run: "Run") -> list[str]:
    """Return the activations other than z that the run replaced, in words."""
    return [IN_WORDS[str(name)] for name in run.data["activation"].values] if VARIABLE in run.data else []


def carried(run: "Run") -> Iterator[Finding]:
    """State for the strongest heads of the leading metric what each activation alone does, beside z; without z, the
    strongest of all."""
    if VARIABLE not in run.data or not len(run.activations):
        return
    metric = run.lead_metric
    table = run.activations.loc[run.activations["metric"] == metric]
    if "effect" not in run.data:
        yield _strongest(run, metric, table.sort_values("rank", kind="stable").iloc[0])
        return
    for head in run.top_heads(metric, _NAMED):
        if abs(float(run.effect(metric, head).mean())) > ROUNDING:
            yield _of_head(run, metric, head, table)


def _of_head(run: "Run", metric: str, head: Head, table: pd.DataFrame) -> Finding:
    """Name the activation of a head with the largest effect, and each one's share of the effect of z."""
    mine = table.loc[np.logical_and.reduce([table[dim] == value for dim, value in head.place.items()])]
    mine = mine.loc[mine["effect_mean"].abs().sort_values(ascending=False, kind="stable").index]
    rows = [row for _, row in mine.iterrows()]
    first, about = rows[0], _estimate(run, metric, rows[0])
    shares = [decimals(round(row["effect_mean"] / row["z_effect_mean"], 2) + 0.0) for row in rows]
    text = f"By {metric}, replacing the {IN_WORDS[first['activation']]} of {head} alone changes the mean by "
    text += f"{with_spread(about, run.unit(metric))}, {shares[0]} of what replacing its z does"
    rest = [f"the {IN_WORDS[row['activation']]} {share}" for row, share in zip(rows[1:], shares[1:], strict=True)]
    return Finding(f"{text}{f'; {listed(rest)}' if rest else ''}.", about.mean, about.low, about.high, VARIABLE)


def _strongest(run: "Run", metric: str, row: Any) -> Finding:
    """Name the head and activation with the largest effect."""
    about = _estimate(run, metric, row)
    head = Head(int(row["layer"]), int(row["head"]), str(row.get("stack", "")))
    text = f"By {metric}, of the {listed(replaced(run))} of each head alone, the {IN_WORDS[row['activation']]} of "
    text += f"{head} does most: replacing it changes the mean by {with_spread(about, run.unit(metric))}"
    text += f", max-T {chance(row['p_adjusted'])}" if np.isfinite(row["p_adjusted"]) else ""
    return Finding(f"{text}.", about.mean, about.low, about.high, VARIABLE)


def _estimate(run: "Run", metric: str, row: Any) -> Estimate:
    """Return an activation's mean with the interval of the table, or without one the standard error over prompts."""
    if np.isfinite(row["ci_low"]):
        return Estimate(row["effect_mean"], row["ci_low"], row["ci_high"], run.interval_name)
    place = {dim: row[dim] for dim in ("activation", "stack", "layer", "head") if dim in row}
    return spread(run.data[VARIABLE].sel(metric=metric, **place).values.astype(float))
