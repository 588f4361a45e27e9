"""The report's section on parts of a prompt: their table, and the heads that carry them."""

from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from harness.findings.format import number, signed
from harness.findings.segments import TAKEN, Row, lead_cause, of_measure
from harness.hooks import Head
from harness.views.number_tables import html_table, scrolled
from harness.views.selection import shown_prompts
from harness.views.text import markup

if TYPE_CHECKING:
    from harness.results import Run

ABOUT = (
    "A prompt’s <b>parts</b> are its documents, or words that carry a tag. <b>Attention</b> is the share that the "
    "token at which a prediction is made gives to the part, averaged over layers and heads; <b>rollout</b> and "
    "<b>gradient</b> are shares too. The <b>cause</b> is measured: by how much the loss of what is scored changes when "
    "the part is removed, or when attention to it from outside is knocked out. Positive: the part helped. A part with "
    "attention and without a cause was looked at and not used."
)
_HEADS = 20


#: Prompts whose text is shown; the underline of a segment that gets all attention, in pixels.
_TEXTS, _THICK = 3, 14


def texts(run: "Run") -> str:
    """Return the first prompts as text, as markup: each segment shaded by its cause, underlined by the attention that
    it gets, the answer in quotes."""
    if "token_part" not in run.data or "part_attention" not in run.data:
        return ""
    cause = run.data["part_cause"].sel(taken=lead_cause(run)).mean("traced")
    attention = run.data["part_attention"]
    attention = attention.mean([dim for dim in attention.dims if dim not in ("prompt", "part")])
    most = float(np.nanmax(np.abs(cause.values), initial=1e-12))
    shown = "".join(_text(run, prompt, cause, attention, most) for prompt in shown_prompts(run)[:_TEXTS])
    unit = run.data["traced_value"].attrs["units"].rpartition(", ")[2]
    legend = (
        f'<p class="note">Shaded by the cause, {markup(TAKEN.get(lead_cause(run), lead_cause(run)))}: blue where the '
        f"answer needs it, orange and hatched where it is better without, darkest ±{number(most)} {markup(unit)}. "
        "Underlined as thick as the attention that it gets.</p>"
    )
    return f'<div class="segments">{legend}{shown}</div>'


def _text(run: "Run", prompt: int, cause: xr.DataArray, attention: xr.DataArray, most: float) -> str:
    row = run.data.isel(prompt=prompt)
    n = int(row["length"])
    names, pieces = row["token_part"].values[:n].astype(str), row["word_text"].values[:n]
    spans = []
    for name, group in groupby(range(n), key=lambda at: names[at]):
        text = "".join(str(pieces[at]) for at in group)
        known = name in cause["part"].values
        lost, looked = (
            float(each.isel(prompt=prompt).sel(part=name)) if known else np.nan for each in (cause, attention)
        )
        span = _segment(name, text.strip() if name == "answer" else text, lost, looked, most)
        spans.append(f" <b>“{span}”</b>" if name == "answer" else span)
    return f'<p class="segment-text">{"".join(spans)}</p>'


def _segment(name: str, text: str, lost: float, looked: float, most: float) -> str:
    """Mark one segment; one that nothing was measured for is plain text."""
    if not np.isfinite([lost, looked]).all():
        return f"<bdi>{_lines(text)}</bdi>"
    title = f"{name}: cause {signed(lost)}, attention {looked:.2f}"
    look = f"--share: {abs(lost) / most:.3f}; --looked: {_THICK * looked:.1f}px"
    side = "helps" if lost > 0 else "hurts"
    return f'<bdi class="{side}" style="{look}" title="{markup(title)}">{_lines(text)}</bdi>'


def _lines(text: str) -> str:
    """Write a text as markup, its line breaks as such."""
    return "<br>".join(markup(line) if line else "" for line in text.split("\n"))


def traced(run: "Run") -> str:
    """Return the tables, as markup."""
    measures = list(dict.fromkeys(map(str, run.parts["measure"])))
    tables = {measure: {str(row["part"]): row for row in of_measure(run, measure)} for measure in measures}
    order = dict.fromkeys([*tables[lead_cause(run)], *tables[measures[0]]])
    taken = {str(name) for name in run.data["taken"].values}
    rows = [[part, *(_cell(tables[name].get(part), name in taken) for name in measures)] for part in order]
    head = ["part", *(f"cause: {TAKEN.get(name, name)}" if name in taken else name for name in measures)]
    over = ", ".join(sorted(set(map(str, run.parts["over"]))))
    note = f'<p class="note">Means with {run.interval_name}s over {over}; every number is in parts.csv.</p>'
    shown = scrolled(html_table(head, rows, text=set(range(len(head))), name="parts"), "Parts of the prompt")
    return shown + note + (_heads(run) if len(run.part_heads) else "")


def _cell(row: Row | None, signs: bool) -> str:
    """Write a mean with its interval; empty without a row."""
    if row is None:
        return ""
    write = signed if signs else number
    return write(row["mean"]) + (
        f" ({write(row['ci_low'])} to {write(row['ci_high'])})" if row["ci_low"] < row["ci_high"] else ""
    )


def _heads(run: "Run") -> str:
    """Show the heads that carry the parts, the strongest first."""
    table = run.part_heads.sort_values("rank", kind="stable").head(_HEADS)
    columns = ["mean", "ci_low", "ci_high", "p_adjusted", "attention"]
    rows = [
        [part, str(Head(int(layer), int(head))), *cells]
        for part, layer, head, *cells in table[["part", "layer", "head", *columns]].itertuples(index=False)
    ]
    shown = html_table(["part", "head", *columns], rows, text={0, 1}, name="part_heads")
    note = (
        f'<p class="note">The {len(table)} of {len(run.part_heads)} heads through which most of a part comes, by '
        "attention knockout of the part in that head alone. All are in part_heads.csv.</p>"
    )
    return f"<h3>Heads that carry it</h3>{scrolled(shown, 'Heads that carry a part')}{note}"
