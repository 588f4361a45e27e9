"""The page of many runs: what differs, which heads matter in all, how far rankings agree, and the maps."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.compare.many_runs import check_by
from harness.findings.effects import caution, nothing_can_be_shown
from harness.findings.format import count
from harness.results.objects import Folder, folder_at
from harness.results.store import write_bytes, write_text
from harness.views.figures.base import LOOKS, Picture, as_picture, measured
from harness.views.figures.many_runs import MAPS, PAIRS, against, depths, maps
from harness.views.number_tables import html_table, scrolled
from harness.views.page import page
from harness.views.text import markup

if TYPE_CHECKING:
    from harness.compare.many_runs import Runs

_LISTED = 40  # rows of a table on the page; the files have all
_LEGIBLE = 75  # least pixels of an inch of a figure


def write_collected(
    runs: "Runs", folder: str | Folder, metric: str | None = None, by: str = "head", top_k: int = 10
) -> Folder:
    """Write ``collected.csv``, ``collected.parquet``, ``figures/`` and ``report.html`` of these runs into a folder.

    `by` compares heads by place (``head``), or unlike models by ``role`` or relative ``depth``. Raises `RequestError`
    for runs that cannot be compared so, before anything is written.
    """
    place, metric = folder_at(folder), runs.metric(metric)
    sections, drawn = _sections(runs, metric, check_by(by), top_k)
    table = runs.table()
    place.mkdir(parents=True, exist_ok=True)
    write_text(place / "collected.csv", table.to_csv(index=False))
    write_bytes(place / "collected.parquet", _as_text(table).to_parquet(index=False) or b"")
    for picture in drawn:
        picture.write(place / "figures")
    title = f"{count(len(runs), 'run')}: effects on {metric}"
    body = f"<header><h1>{markup(title)}</h1>{_lead(runs)}</header><main id='main'>{sections}</main>"
    write_text(place / "report.html", page(title, body, {}, circuitsvis=False, kind="view", scripts=()))
    return place


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Settings of mixed types as text, which Parquet needs."""
    mixed = [str(name) for name in table if len({*map(type, table[name].to_numpy())}) > 1]
    return table.assign(**{name: table[name].astype(str) for name in mixed})


def _lead(runs: "Runs") -> str:
    """Return what the runs have in common and in what they differ, and whether they can show anything at all."""
    common = " ".join(f"{key}={value}" for key, value in runs.common.items())
    all_have = f"All have {common}. " if common else ""
    differing = ", ".join(runs.settings) or "nothing"
    lead = f"{all_have}They differ in {differing}. {_shared(runs)} All numbers are in collected.csv."
    notes = "".join(f'<p class="note">{markup(each)}</p>' for each in cautions(runs))
    return f'<p class="lead">{markup(lead)}</p>{notes}'


def _shared(runs: "Runs") -> str:
    """Count the prompts that the runs share."""
    n, in_all, in_several = runs.shared_texts
    if in_all == n:
        return f"All read the same {count(n, 'prompt')}."
    some = f", {in_several} in more than one" if in_several > in_all else ""
    return f"Of {count(n, 'different prompt')} {in_all or 'none'} {'is' if in_all < 2 else 'are'} in every run{some}."


def cautions(runs: "Runs") -> list[str]:
    """Return for the runs in which nothing can be significant why not, the same reason once."""
    where: dict[str, list[str]] = {}
    for name, run in zip(runs.names, runs.runs, strict=True):
        if nothing_can_be_shown(run):
            where.setdefault(next(caution(run)).text, []).append(name)
    names = {
        text: ("both runs" if len(runs) == 2 else f"all {len(runs)} runs")
        if len(those) == len(runs) > 1
        else ", ".join(those)
        for text, those in where.items()
    }
    return [f"In {names[text]}: {text[0].lower()}{text[1:]}" for text in where]


def _sections(runs: "Runs", metric: str, by: str, top_k: int) -> tuple[str, list[Picture]]:
    """Return the page's sections and its figures."""
    made = [_section("What differs", _table(runs.settings.assign(run=runs.names), "settings"))]
    drawn: list[Picture] = []
    for title, figure, text, table in _compared(runs, metric, by, top_k):
        image = ""
        if figure is not None:
            name = f"{title.lower().replace(' ', '_')}"
            inches = figure.get_figwidth()
            drawn.append(as_picture(name, name, title, figure, LOOKS["screen"]))
            image = _image(drawn[-1], inches)
        shown = "" if table is None or table.empty else _table(table.head(_LISTED), title.lower().replace(" ", "_"))
        more = (
            ""
            if table is None or len(table) <= _LISTED
            else f'<p class="note">The first {_LISTED} of {len(table)}.</p>'
        )
        made.append(_section(title, f'<p class="define">{markup(text)}</p>{image}{shown}{more}'))
    return "".join(made), drawn


def _image(picture: Picture, inches: float) -> str:
    """Return the picture in a box that scrolls where the window is so narrow that letters could not be read."""
    label = markup(picture.label)
    size = f"width:max(100%,{_LEGIBLE * inches:.0f}px);max-width:{LOOKS['screen'].dpi * inches:.0f}px"
    image = f'<img alt="{label}" src="{picture.uri}" style="{size}">'
    return f'<div class="pictures" tabindex="0" role="region" aria-label="{label}">{image}</div>'


def _compared(runs: "Runs", metric: str, by: str, top_k: int) -> Iterator[tuple]:
    """Yield title, figure, explanation and table of each section."""
    unit = measured(runs.runs[0], metric)
    if by == "role":
        yield "Effects by role", None, f"Mean effect of the heads with each role, {unit}.", runs.by_role(metric)
        return
    if by == "depth":
        table = runs.by_depth(metric)
        yield "Effects by relative depth", depths(table, runs.names, unit), "Sums of single-head effects.", table
        return
    n, important = len(runs), runs.important(metric)
    yield "Important heads", None, count_important(important["n_runs"].to_numpy(), n), important
    left = f" Only the first {MAPS} runs are drawn." if n > MAPS else ""
    text = f"Each run’s mean effects, {unit}, all on one scale; beneath them the difference to the first run.{left}"
    yield "Maps", maps(runs, metric), text, None
    if n > 1:
        agreement = runs.agreement(metric, top_k)
        text = f"Rankings by size of effect: Kendall’s τ and the share of the {top_k} strongest heads that both runs "
        text += "have. A ceiling is what runs reach with themselves, one half of the prompts against the other; halves "
        text += "are noisier than the whole, so it is a low one."
        yield "Agreement", None, text, agreement
        left = f" Only the first {PAIRS} pairs are drawn." if n * (n - 1) // 2 > PAIRS else ""
        text = f"A point for each head; on the diagonal the effect is the same in both runs.{left}"
        yield "Effect against effect", against(runs, metric), text, None
    pooled = runs.pooled(metric)
    yield "Over all runs", None, pooled.attrs["note"], pooled


def count_important(in_runs: np.ndarray, n: int) -> str:
    """Count the heads that are important in all of n runs, in some and in one; `in_runs` [head] says in how many."""
    if not len(in_runs):
        return f"No head is important in any of {count(n, 'run')}."
    if n == 1:
        return f"{count(len(in_runs), 'important head')}."
    in_all, in_one = int((in_runs == n).sum()), int((in_runs == 1).sum())
    each = f"{in_all} in all, {len(in_runs) - in_all - in_one} in some, {in_one} in one"
    return f"{count(len(in_runs), 'head')} important in any of {n} runs: {each}."


def _section(title: str, inside: str) -> str:
    return f"<section><h2>{markup(title)}</h2>{inside}</section>"


def _table(table: pd.DataFrame, name: str) -> str:
    numbers = {at for at, column in enumerate(table) if np.issubdtype(np.asarray(table[column]).dtype, np.number)}
    words = {at for at in range(len(table.columns)) if at not in numbers}
    rows = table.itertuples(index=False)
    return scrolled(html_table(list(map(str, table.columns)), rows, text=words, long=words, name=name), name)
