"""Tables of a page as HTML text: the exact numbers, the prompts, the spec and the manifest."""

import json
from collections.abc import Iterable, Mapping, Set
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.findings.reading import by_lead, text_of
from harness.hooks import Head
from harness.views.text import markup

if TYPE_CHECKING:
    from harness.results import Run

_ROWS = 3000
_SAME = ("n_prompts", "n_clusters", "method")  # told once where they are the same in every row
_DIGITS = 4


_NONE: frozenset[int] = frozenset()


def html_table(
    head: Iterable[str],
    rows: Iterable[Iterable[object]],
    text: Set[int] = _NONE,
    long: Set[int] = _NONE,
    name: str = "table",
) -> str:
    """A table; columns in ``text`` are set as words, those in ``long`` may break anywhere, the others are numbers.
    The page offers to copy it, or to save it as ``name.csv``.
    """
    kind = {index: ' class="text long"' if index in long else ' class="text"' for index in text}
    titles = "".join(f'<th scope="col"{kind.get(i, "")}>{markup(title)}</th>' for i, title in enumerate(head))
    body = "".join(
        "<tr>" + "".join(f"<td{kind.get(i, '')}>{_cell(cell)}</td>" for i, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    inside = f"<thead><tr>{titles}</tr></thead><tbody>{body}</tbody>"
    return f'<table class="numbers" data-name="{markup(name)}">{inside}</table>'


def scrolled(table: str, label: str) -> str:
    """The table in a box that scrolls, also by keyboard."""
    return f'<div class="tall" tabindex="0" role="region" aria-label="{markup(label)}">{table}</div>'


def numbers(run: "Run") -> str:
    """heads.csv: every column that was computed, the largest effects first."""
    table = _in_order(run).head(_ROWS)
    known = table.replace("", np.nan).dropna(axis="columns", how="all")
    same = [name for name in _SAME if name in known.columns and len(set(known[name])) == 1]
    columns = [name for name in known.columns if name not in ("stack", "layer", "head", *same)]
    stacks = table["stack"] if "stack" in table else [""] * len(table)
    names = [str(Head(*place)) for place in zip(table["layer"], table["head"], stacks, strict=True)]
    rows = ([name, *cells] for name, cells in zip(names, table[columns].itertuples(index=False), strict=True))
    words = {i + 1 for i, name in enumerate(columns) if not np.issubdtype(_kind(table[name]), np.number)}
    shown = scrolled(html_table(["head", *columns], rows, text={0, *words}, name="heads"), "Effects of every head")
    if same:
        told = "; ".join(f"{name} {markup(known[name].iloc[0])}" for name in same)
        shown += f'<p class="note">The same in every row: {told}.</p>'
    if len(run.heads) > len(table):
        shown += f'<p class="note">The first {len(table)} of {len(run.heads)} rows; all are in heads.csv.</p>'
    return shown


def _in_order(run: "Run") -> pd.DataFrame:
    """The table of heads, the leading metric first, and in each the largest effects first."""
    place = [by_lead(run).index(metric) for metric in run.heads["metric"]]
    return run.heads.assign(_place=place).sort_values(["_place", "rank"], kind="stable").drop(columns="_place")


def prompts(run: "Run") -> str:
    """Every prompt with its answer and cluster, and the clean value of each metric."""
    data = run.data
    extra = [name for name in ("answer", "distractor", "cluster") if name in data and any(map(str, data[name].values))]
    metrics = by_lead(run) if "clean" in data else []
    rows = (
        [index, text_of(run, index), *(data[name].values[index] for name in extra)]
        + [float(data["clean"].sel(metric=metric).values[index]) for metric in metrics]
        for index in range(data.sizes["prompt"])
    )
    head = ["number", "prompt", *extra, *(f"clean {metric}" for metric in metrics)]
    return scrolled(
        html_table(head, rows, text=set(range(1, 2 + len(extra))), long={1}, name="prompts"), "Table of the prompts"
    )


def settings(values: Mapping, name: str) -> str:
    """A nested mapping as keys and values, keys dotted as on the command line."""
    return scrolled(html_table(["key", "value"], _flat(values), text={0, 1}, long={1}, name=name), name)


def _flat(values: Mapping, prefix: str = "") -> Iterable[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
            yield f"{prefix}{key}", text


def _cell(value: object) -> str:
    if value is None or value is pd.NA or value == "":
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else f"{value:.{_DIGITS}g}".replace("-", "−")
    return markup(value)


def _kind(column) -> np.dtype:
    return column.dtype if isinstance(column.dtype, np.dtype) else np.dtype(object)
