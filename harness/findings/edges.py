"""Findings about edges: the strongest, and how many are shown on prompts that did not choose them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.findings.finding import Finding
from harness.findings.format import chance, count, listed, mean_with_spread
from harness.hooks import Head
from harness.results.run import Estimate, spread

if TYPE_CHECKING:
    from harness.results import Run

_NAMED = 3  # edges in one sentence
_INPUTS = {"q": "the query of ", "k": "the key of ", "v": "the value of "}


def edge_in_words(row: Any) -> str:
    """Name an edge: ``L16H0 into the key of L18H6``, ``L1H4 into L1.mlp``."""
    return f"{row['sender']} into {_INPUTS.get(row['into'], '')}{row['receiver']}"


def strongest_edges(run: "Run") -> Iterator[Finding]:
    """Name the strongest edges by each metric, the leading one first, and count those that are shown."""
    if "edge_effect" not in run.data or not len(run.edges):
        return
    for metric in sorted(dict.fromkeys(run.edges["metric"]), key=lambda name: name != run.lead_metric):
        table = run.edges.loc[run.edges["metric"] == metric].sort_values("rank", kind="stable")
        rows = [row for _, row in table.head(_NAMED).iterrows()]
        about = [_estimate(run, metric, row) for row in rows]
        named = [
            f"{edge_in_words(row)} {mean_with_spread(each)}{_p(row)}" for row, each in zip(rows, about, strict=True)
        ]
        verb = "edge is" if len(rows) == 1 else "edges are"
        kind = f" ({about[0].kind}s)" if "interval" in about[0].kind else ""
        text = f"By {metric}{kind}, the strongest {verb} {listed(named)}{_shown(run, table)}."
        yield Finding(text, about[0].mean, about[0].low, about[0].high, "edge_effect")


def edges_of(run: "Run", metric: str, head: Head) -> dict[str, list[str]]:
    """Return the measured edges from a head (``feeds``) and into it (``is fed by``) in words, the largest first."""
    table = run.edges.loc[run.edges["metric"] == metric].sort_values("rank", kind="stable")
    ends = {"feeds": table["sender"] == str(head), "is fed by": table["receiver"] == str(head)}
    return {
        way: [
            f"{edge_in_words(row)} {mean_with_spread(_estimate(run, metric, row))}{_p(row)}"
            for _, row in table.loc[which].head(_NAMED).iterrows()
        ]
        for way, which in ends.items()
        if which.any()
    }


def _estimate(run: "Run", metric: str, row: Any) -> Estimate:
    """Return an edge's mean with the interval of the table, or without one the standard error over the prompts that
    test."""
    if np.isfinite(row["ci_low"]):
        return Estimate(row["effect_mean"], row["ci_low"], row["ci_high"], run.interval_name)
    effect = run.data["edge_effect"].sel(metric=metric).isel(prompt=run.data["edge_half"].values != "choose")
    names = (effect[key].values == row[key] for key in ("sender", "receiver", "into"))
    return spread(effect.values[:, np.logical_and.reduce(list(names))][:, 0].astype(float))


def _p(row: Any) -> str:
    return f", max-T {chance(row['p_adjusted'])}" if np.isfinite(row["p_adjusted"]) else ""


def _shown(run: "Run", table: pd.DataFrame) -> str:
    """Count the edges that are shown, and describe the prompts that they were tested on."""
    n = int(table["n_prompts_tested"].iloc[0])
    half = set(run.data["edge_half"].values.astype(str))
    over = f"{count(n, 'prompt')} that did not choose them" if "choose" in half else f"all {count(n, 'prompt')}"
    over += ", by which they were chosen too" if "both" in half else ""
    known = table["p_adjusted"].to_numpy(float) < run.level
    if not np.isfinite(table["p_adjusted"]).any():
        return f", on {over}; {count(len(table), 'edge')} were measured, none was tested"
    n_shown = int(known.sum())
    are = "is" if n_shown == 1 else "are"
    return f"; {n_shown} of {count(len(table), 'measured edge')} {are} shown (max-T p < {run.level:g}), on {over}"
