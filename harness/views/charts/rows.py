"""The numbers of a chart as rows of a table, to lie beside the figure that draws them."""

from itertools import chain
from typing import Any

from harness.views.charts.describe import Described

#: Rows of cells, titles first; None for a number that there is not.
Rows = list[list[Any]]


def rows_of(chart: Described) -> Rows:
    """Return the numbers of a chart in rows, titles first."""
    return _ROWS[chart["kind"]](chart)


def _heat(chart: Described) -> Rows:
    row, column = (axis or usual for axis, usual in zip(chart["axes"], ("row", "column"), strict=True))
    cells = (
        [panel["name"], panel["rows"][r], panel["columns"][c], value]
        for panel in chart["panels"]
        for r, line in enumerate(panel["values"])
        for c, value in enumerate(line)
    )
    return [["panel", row, column, chart["value"]], *cells]


def _bars(chart: Described) -> Rows:
    return [[chart["rows"], chart["value"]], *([bar["label"], bar["value"]] for bar in chart["bars"])]


def _pairs(chart: Described) -> Rows:
    return [[chart["x"]["label"], *chart["series"]], *([at, *pair] for at, pair in enumerate(chart["pairs"]))]


def _curves(chart: Described) -> Rows:
    titles = ["panel", "series", "at", "head", "value", "low", "high"]
    rows = (
        [panel["x"]["label"], line["name"], x, *(_at(line, key, at) for key in ("notes", "values", "low", "high"))]
        for panel in chart["panels"]
        for line in (*panel["series"], *([panel["band"]] if panel.get("band") else []))
        for at, x in enumerate(panel["x"]["values"])
    )
    return [titles, *rows]


def _at(line: Described, key: str, at: int) -> Any:
    values = line.get(key) or []
    return values[at] if at < len(values) else None


def _dots(chart: Described) -> Rows:
    points = [
        (panel["name"], row["label"], point)
        for panel in chart["panels"]
        for row in panel["rows"]
        for point in row["points"]
    ]
    n = max((len(point.get("prompts", ())) for _, _, point in points), default=0)
    titles = ["panel", chart["rows"], "series", "mean", "low", "high", *(f"prompt {at}" for at in range(n))]
    return [
        titles,
        *(
            list(chain((panel, label, chart["series"][point["series"]]), _spread(point)))
            for panel, label, point in points
        ),
    ]


def _spread(point: Described) -> list[Any]:
    return [point["mean"], point["low"], point["high"], *point.get("prompts", ())]


_ROWS = {"heat": _heat, "bars": _bars, "pairs-of-dots": _pairs, "curves": _curves, "dots": _dots}
