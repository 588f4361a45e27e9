"""Attribution methods against measured causes: the rank correlation of each method with each cause."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.views.charts.describe import Described, chart, number
from harness.views.text import visible

if TYPE_CHECKING:
    from harness.results import Run

#: Token policies, in words.
POLICY = {"keep": "all tokens", "drop": "without special, first and predicting token"}
#: A row of methods.csv.
Row = dict[Any, Any]


def methods(run: "Run") -> Iterator[Described]:
    """Describe the agreement of methods with causes, a panel for each token policy; best on top."""
    if not len(run.methods):
        return
    policies, causes = policies_and_causes(run)
    order, rows = agreement_rows(run)
    label = f"rank correlation with the cause ({run.interval_name})"
    yield chart(
        run,
        "dots",
        "methods",
        "methods",
        "Attribution methods against measured causes",
        f"Spearman correlation of each method’s scores with the causes, mean over prompts and its {run.interval_name}.",
        panels=[
            {
                "name": visible(POLICY.get(policy, policy)),
                "rows": [
                    {"label": visible(method), "points": _points(rows, policy, causes, method)}
                    for method in reversed(order)
                ],
            }
            for policy in policies
        ],
        series=[visible(cause) for cause in causes],
        x={"label": label, "unit": ""},
        rows="method",
        sharedX=True,
    )


def policies_and_causes(run: "Run") -> tuple[list[str], list[str]]:
    """Return the names of the token policies and of the causes, in order."""
    policies, causes = ([str(name) for name in run.data[axis].values] for axis in ("policy", "cause_kind"))
    return policies, causes


def agreement_rows(run: "Run") -> tuple[list[str], dict[tuple[str, str, str], Row]]:
    """Return the methods, that with the largest mean over causes last (by the last policy), and the Spearman rows of
    methods.csv by policy, cause and method."""
    rows = [row for row in run.methods.to_dict("records") if row["statistic"] == "spearman"]
    last = str(run.data["policy"].values[-1])
    by_method: dict[str, list[float]] = {}
    for row in rows:
        if row["policy"] == last:
            by_method.setdefault(str(row["method"]), []).append(row["mean"])
    order = sorted(by_method, key=lambda method: np.nan_to_num(by_method[method], nan=-1).mean())
    return order, {(str(row["policy"]), str(row["cause"]), str(row["method"])): row for row in rows}


def _points(rows: dict[tuple[str, str, str], Row], policy: str, causes: list[str], method: str) -> list[Described]:
    points = []
    for at, cause in enumerate(causes):
        row = rows[policy, cause, method]
        mean, low, high = (number(row[name]) for name in ("mean", "ci_low", "ci_high"))
        points.append({"series": at, "mean": mean, "low": low, "high": high})
    return points
