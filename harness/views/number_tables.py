"""Make the tables of a page as HTML: the exact numbers, the prompts, the spec and the manifest."""

import json
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.compare.change_table import by_role
from harness.findings.roles import heads_by_role
from harness.hooks import Head
from harness.results.schema import by_head
from harness.roles import meaning_of
from harness.views.text import markup

if TYPE_CHECKING:
    from harness.results import Run

_ROWS = 3000
#: What is quoted, first; then what it rests on.
_FIRST = ("metric", "effect_mean", "ci_low", "ci_high", "important", "direct_mean", "p_adjusted", "significant")
_SAME = ("n_prompts", "n_clusters", "method")  # columns that become a note where all rows are equal
_DIGITS = 4
_HEADS_NAMED = 12  # of one role


_NONE: frozenset[int] = frozenset()


def html_table(
    head: Iterable[str],
    rows: Iterable[Iterable[object]],
    text: Set[int] = _NONE,
    long: Set[int] = _NONE,
    name: str = "table",
) -> str:
    """Make a table; columns in ``text`` are set as words, those in ``long`` may break anywhere, the others are numbers.

    The page offers to copy it, or to save it as ``name.csv``.
    """
    rows = [list(row) for row in rows]
    places = [_places([row[at] for row in rows]) for at in range(max(map(len, rows), default=0))]
    kind = {index: ' class="text long"' if index in long else ' class="text"' for index in text}
    titles = "".join(f'<th scope="col"{kind.get(i, "")}>{markup(title)}</th>' for i, title in enumerate(head))
    body = "".join(
        "<tr>" + "".join(_cell(cell, places[i], kind.get(i, "")) for i, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    inside = f"<thead><tr>{titles}</tr></thead><tbody>{body}</tbody>"
    return f'<table class="numbers" data-name="{markup(name)}">{inside}</table>'


def scrolled(table: str, label: str) -> str:
    """Put the table in a box that scrolls, also by keyboard."""
    return f'<div class="tall" tabindex="0" role="region" aria-label="{markup(label)}">{table}</div>'


def numbers(run: "Run") -> str:
    """Show heads.csv: every column that was computed, the largest effects first."""
    table = _in_order(run).head(_ROWS)
    known = table.replace("", np.nan).dropna(axis="columns", how="all")
    same = [name for name in _SAME if name in known.columns and len(set(known[name])) == 1]
    others = [name for name in known.columns if name not in ("stack", "layer", "head", *same)]
    columns = [name for name in _FIRST if name in others] + [name for name in others if name not in _FIRST]
    stacks = table["stack"] if "stack" in table else [""] * len(table)
    names = [str(Head(*place)) for place in zip(table["layer"], table["head"], stacks, strict=True)]
    rows = ([name, *cells] for name, cells in zip(names, table[columns].itertuples(index=False), strict=True))
    words = {i + 1 for i, name in enumerate(columns) if not np.issubdtype(_kind(table[name]), np.number)}
    shown = scrolled(html_table(["head", *columns], rows, text={0, *words}, name="heads"), "Effects of every head")
    if same:
        values = "; ".join(f"{name} {markup(known[name].iloc[0])}" for name in same)
        shown += f'<p class="note">The same in every row: {values}.</p>'
    if len(run.heads) > len(table):
        shown += f'<p class="note">The first {len(table)} of {len(run.heads)} rows; all are in heads.csv.</p>'
    return shown


def _in_order(run: "Run") -> pd.DataFrame:
    """Sort the table of heads, the leading metric first, and in each the largest effects first."""
    place = [run.metrics.index(metric) for metric in run.heads["metric"]]
    return run.heads.assign(_place=place).sort_values(["_place", "rank"], kind="stable").drop(columns="_place")


def prompts(run: "Run") -> str:
    """Show every prompt with its answer and cluster, and the clean value of each metric."""
    data = run.data
    extra = [name for name in ("answer", "distractor", "cluster") if name in data and any(map(str, data[name].values))]
    metrics = run.metrics if "clean" in data else []
    rows = (
        [index, run.text(index), *(data[name].values[index] for name in extra)]
        + [float(data["clean"].sel(metric=metric).values[index]) for metric in metrics]
        for index in range(data.sizes["prompt"])
    )
    head = ["number", "prompt", *extra, *(f"clean {metric}" for metric in metrics)]
    return scrolled(
        html_table(head, rows, text=set(range(1, 2 + len(extra))), long={1}, name="prompts"), "Table of the prompts"
    )


def tasks(run: "Run") -> str:
    """Show the scores of each task, clean and without each set."""
    columns = ["task", "metric", "set", "kind", "clean", "ablated", "difference", "ci_low", "ci_high", "n"]
    rows = run.tasks[columns].itertuples(index=False)
    return scrolled(html_table(columns, rows, text={0, 1, 2, 3}, name="tasks"), "Scores of each task")


def roles(run: "Run") -> str:
    """Show each scored role: its meaning, its heads, and the largest score beside the chance level."""
    having, rows = heads_by_role(run), []
    for role in map(str, run.data["role"].values):
        heads, score = by_head(run.data["role_score"].sel(role=role))
        if np.isnan(score).all():
            continue
        most = heads[int(np.nan_to_num(score, nan=-2).argmax())]
        statistics = [float(run.data[f"role_{name}"].sel(role=role, **most.place)) for name in ("score", "chance", "p")]
        mine = having.get(role, [])
        named = ", ".join(map(str, mine[:_HEADS_NAMED])) + (" …" if len(mine) > _HEADS_NAMED else "")
        rows.append([role, meaning_of(role), len(mine), named, str(most), *statistics, *_worth(run, role)])
    head = ["role", "a head with it", "heads", "which, highest score first", "highest", "score", "by chance", "max-T p"]
    if "role_effect" in run.data:
        head += [f"{run.lead_metric}, all ablated", "as many at random (median)"]
    return scrolled(html_table(head, rows, text={0, 1, 3, 4}, long={3}, name="roles"), "Roles of heads")


def _worth(run: "Run", role: str) -> list[float]:
    """Return the mean effect of ablating all heads of a role, and the median of as many random heads."""
    if "role_effect" not in run.data:
        return []
    if role not in run.data["having"].values:
        return [np.nan, np.nan]
    effect, random = (
        run.data[name].sel(metric=run.lead_metric, having=role).mean("prompt")
        for name in ("role_effect", "random_effect")
    )
    return [float(effect), float(random.median())]


def changes(run: "Run") -> str:
    """Show changes.csv by the leading metric, the largest changes of effect first."""
    mine = run.changes.assign(mine=run.changes["metric"] == run.lead_metric).query("mine").drop(columns="mine")
    table = mine.sort_values("rank", kind="stable").head(_ROWS)
    columns = [name for name in table.columns if name not in ("metric", "stack", "layer", "head")]
    stacks = table["stack"] if "stack" in table else [""] * len(table)
    names = [str(Head(*place)) for place in zip(table["layer"], table["head"], stacks, strict=True)]
    rows = ([name, *cells] for name, cells in zip(names, table[columns].itertuples(index=False), strict=True))
    words = {i + 1 for i, name in enumerate(columns) if name.startswith("roles") or name == "significant"}
    note = f'<p class="note">By {markup(run.lead_metric)}; other metrics are in changes.csv.</p>'
    return scrolled(html_table(["head", *columns], rows, text={0, *words}, name="changes"), "What changed") + note


def both_roles(run: "Run") -> str:
    """Show the roles of two models whose heads do not correspond."""
    table = by_role(run.data)
    rows = table.itertuples(index=False)
    return scrolled(html_table(list(table.columns), rows, text={0}, name="roles_of_both"), "Roles in both models")


def settings(values: Mapping, name: str) -> str:
    """Show a nested mapping as keys and values, keys dotted as on the command line."""
    return scrolled(html_table(["key", "value"], _flat(values), text={0, 1}, long={1}, name=name), name)


def _flat(values: Mapping, prefix: str = "") -> Iterable[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
            yield f"{prefix}{key}", text


def _places(column: Sequence[object]) -> int:
    """Return the decimals with which the largest number of a column has four digits: one precision for a column."""
    sizes = [abs(value) for value in column if isinstance(value, float | np.floating) and np.isfinite(value)]
    most = max(sizes, default=0.0)
    if all(size == int(size) for size in sizes):
        return 0
    return min(6, max(0, _DIGITS - 1 - int(np.floor(np.log10(most)))))


def _cell(value: object, places: int, kind: str) -> str:
    """Return a cell; one of a number holds it unrounded too, for sorting and for copies."""
    if value is None or value is pd.NA or value == "":
        return f"<td{kind}></td>"
    if isinstance(value, bool | np.bool_):
        return f"<td{kind}>{'yes' if value else 'no'}</td>"
    if isinstance(value, float | np.floating):
        if np.isnan(value):
            return f"<td{kind}></td>"
        return f'<td{kind} data-value="{value:.7g}">{_number(float(value), places)}</td>'
    return f"<td{kind}>{markup(value)}</td>"


def _number(value: float, places: int) -> str:
    """Write a number with these decimals; one that they would round away in three digits of its own."""
    text = f"{value:.{places}f}"
    small = value != 0 and float(text) == 0
    text = f"{value:.1e}" if small else text
    return ("0" if value == 0 else text).replace("-", "−")


def _kind(column) -> np.dtype:
    return column.dtype if isinstance(column.dtype, np.dtype) else np.dtype(object)
