"""Segments of a prompt: shares of attention, rollout and gradient beside causes, with intervals."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from harness.findings.segments import TAKEN, lead_cause, of_measure
from harness.views.charts.describe import Described, chart, number
from harness.views.text import visible

if TYPE_CHECKING:
    from harness.results import Run

#: Measures that are shares of a whole.
SHARES = ("tokens", "attention", "rollout", "gradient")


def segments(run: "Run") -> Iterator[Described]:
    """Describe a row for each segment, the largest cause on top: a panel of shares, and one of causes."""
    if not len(run.parts):
        return
    order = list(reversed(segment_order(run)))
    shares, causes = (measures_of(run, names) for names in (SHARES, taken(run)))
    labels = share_label(), cause_label(run)
    measures = [*shares, *causes]
    yield chart(
        run,
        "dots",
        "parts",
        "parts",
        "What each part of the prompt gets, and what it costs to lose it",
        f"Shares: {labels[0]}. Causes: {labels[1]}.",
        panels=[
            {"name": name, "x": {"label": label}, "rows": _rows(run, order, mine, measures)}
            for name, label, mine in (("shares", labels[0], shares), ("causes", labels[1], causes))
            if mine
        ],
        series=[visible(TAKEN.get(name, name)) for name in measures],
        x={"label": "", "unit": ""},
        rows="part",
        sharedX=False,
    )


def taken(run: "Run") -> list[str]:
    """Return the ways in which a segment was taken away."""
    return [str(name) for name in run.data["taken"].values]


def segment_order(run: "Run") -> list[str]:
    """Return the segments, that with the largest cause last; those without one first."""
    names = [str(name) for name in run.data["part"].values]
    ranked = [str(row["part"]) for row in of_measure(run, lead_cause(run))]
    return [*(name for name in names if name not in ranked), *reversed(ranked)]


def measures_of(run: "Run", names: Sequence[str]) -> list[str]:
    """Return the measures that the run has rows of."""
    return [name for name in names if of_measure(run, name)]


def share_label() -> str:
    """Return the label of the axis of shares."""
    return "share of the prompt, or of what a method gives"


def cause_label(run: "Run") -> str:
    """Return the label of the axis of causes."""
    unit = run.data["traced_value"].attrs["units"].split(",")[0]
    return f"{unit} when the part is taken away ({run.interval_name})"


def _rows(run: "Run", order: Sequence[str], mine: Sequence[str], measures: Sequence[str]) -> list[Described]:
    tables = {name: {str(row["part"]): row for row in of_measure(run, name)} for name in mine}
    return [
        {
            "label": visible(part),
            "points": [
                {
                    "series": measures.index(name),
                    **{end: number(rows[part][column]) for end, column in _COLUMNS.items()},
                }
                for name, rows in tables.items()
                if part in rows
            ],
        }
        for part in order
    ]


_COLUMNS = {"mean": "mean", "low": "ci_low", "high": "ci_high"}
