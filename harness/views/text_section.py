"""The report's section on texts: what the clean model and the ablated ones write, side by side."""

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.findings.texts import by_set, called
from harness.views.number_tables import html_table, scrolled
from harness.views.selection import shown_prompts
from harness.views.text import markup
from harness.words import common_start

if TYPE_CHECKING:
    from harness.results import Run

#: A row of texts.csv.
Row = Mapping[Hashable, Any]
ABOUT = (
    "Each prompt is continued by the clean model and with the heads of a set ablated. Where the two texts <b>part</b>, "
    "what follows is marked; below it stands the token that each writes there, with its probability by the clean "
    "model → by the ablated one. Random sets have as many heads as the one that they stand "
    "beside. Every text is in texts.csv."
)
#: Prompts whose texts are shown.
_TEXTS = 50
_PROBABILITIES = [f"{of}_token_{by}" for of in ("clean", "ablated") for by in ("clean", "ablated")]


def texts(run: "Run") -> str:
    """Show each prompt with its texts side by side, then the numbers."""
    tables = [
        (called(name, table), {row["prompt"]: row for row in table.to_dict("records")}) for name, table in by_set(run)
    ]
    numbers = shown_prompts(run)
    blocks = "".join(
        _prompt(number, [(name, by_prompt[number]) for name, by_prompt in tables]) for number in numbers[:_TEXTS]
    )
    left = len(numbers) - _TEXTS
    note = f'<p class="note">The first {_TEXTS} prompts; {left} more are in texts.csv.</p>' if left > 0 else ""
    return f"{blocks}{note}<h3>Where texts part</h3>{_numbers(run)}"


def _prompt(number: int, rows: list[tuple[str, Row]]) -> str:
    """Show the clean text of a prompt, and those without each set."""
    first = rows[0][1]
    clean = _written(first, "clean")
    cells = "".join(_ablated(name, row, clean) for name, row in rows)
    return (
        f'<article class="written"><p class="read"><b>{number}</b> {_lines(first["text"])}</p>'
        f'<div class="versions"><div class="version"><p class="whose">Clean</p><p class="new">{_lines(clean)}</p></div>'
        f"{cells}</div></article>"
    )


def _written(row: Row, which: str) -> str:
    """Return the new part of a text."""
    return str(row[which]).removeprefix(str(row["text"]))


def _ablated(name: str, row: Row, clean: str) -> str:
    changed = _written(row, "ablated")
    same = common_start(clean, changed)
    where = "The same text"
    new = _lines(changed)
    if np.isfinite(row["parts_at"]):
        new = f"{_lines(changed[:same])}<mark>{_lines(changed[same:])}</mark>" if changed[same:] else _lines(changed)
        tokens = [
            f"“{markup(row[f'{of}_token'])}” {_share(row[f'{of}_token_clean'])} → {_share(row[f'{of}_token_ablated'])}"
            for of in ("clean", "ablated")
        ]
        at = int(row["parts_at"])
        where = f"Parts {f'after {at} token' + 's' * (at > 1) if at else 'at once'}: {tokens[0]}; {tokens[1]}"
        where += f". {markup(row['first_head'])} alone changes it soonest" if row["first_head"] else ""
    heading = f'<p class="whose">Without {markup(name)}</p>'
    return f'<div class="version">{heading}<p class="new">{new}</p><p class="note">{where}.</p></div>'


def _share(probability: float) -> str:
    return f"{probability:.2f}" if probability >= 0.005 else "<0.01".replace("<", "&lt;")


def _lines(text: object) -> str:
    """Escape a text, its line breaks kept as such."""
    return "<br>".join(markup(line) if line.strip() else "" for line in str(text).split("\n"))


def _numbers(run: "Run") -> str:
    """Show where each text parts, and the probabilities there; random sets too."""
    known = run.texts.replace("", np.nan).dropna(axis="columns", how="all")
    columns = ["prompt", "set", "draw", "parts_at", "clean_token", "ablated_token", *_PROBABILITIES, "first_head"]
    columns = [name for name in columns if name in known]
    rows = run.texts[columns].itertuples(index=False)
    words = {columns.index(name) for name in ("set", "clean_token", "ablated_token", "first_head") if name in columns}
    return scrolled(html_table(columns, rows, text=words, name="texts"), "Where texts part")
