"""Findings about tasks that were run with heads ablated: how much of each score is lost, beside random sets."""

from collections.abc import Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.findings.finding import Finding
from harness.findings.format import count, signed

if TYPE_CHECKING:
    from harness.results import Run


def scored(run: "Run") -> Iterator[Finding]:
    """Yield, for each task, metric and named set, the change of the score with its interval over items."""
    if not len(run.tasks):
        return
    rows = run.tasks.to_dict("records")
    for row in (row for row in rows if row["kind"] == "named"):
        text = f"Without {_called(row)}, {row['metric']} on {row['task']} goes from {row['clean']:.3f} to "
        text += f"{row['ablated']:.3f} ({signed(row['difference'])}"
        low, high = float(row["ci_low"]), float(row["ci_high"])
        text += f", {run.interval_name} {signed(low)} to {signed(high)}" if np.isfinite(low) else ""
        text += f"; {count(int(row['n']), 'item')})"
        beside = (each for each in rows if each["kind"] == "random")
        same = [each for each in beside if all(each[key] == row[key] for key in ("task", "metric", "set"))]
        drawn = np.array([each["difference"] for each in same])
        if len(drawn):
            text += f"; {count(len(drawn), 'random set')} of as many heads change{'s' * (len(drawn) == 1)} it by "
            text += signed(float(np.median(drawn)))
            text += f" (median; {signed(drawn.min())} to {signed(drawn.max())})" if len(drawn) > 1 else ""
        yield Finding(f"{text}.", float(row["difference"]), low, high, "tasks.csv")


def _called(row: Mapping[Hashable, Any]) -> str:
    """Return a set's name, with the number of its heads where they are not its name."""
    heads = str(row["heads"]).split(";")
    name = str(row["set"])
    return name if name.startswith(heads[0]) else f"{name} ({count(len(heads), 'head')})"
