"""The report's section on parts of a prompt: their table, and the heads that carry them."""

from typing import TYPE_CHECKING

from harness.findings.format import number, signed
from harness.findings.segments import TAKEN, Row, lead_cause, of_measure
from harness.hooks import Head
from harness.views.number_tables import html_table, scrolled

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
