"""The table beneath patching maps: what the model says next with their strongest cells replaced."""

from typing import TYPE_CHECKING

from harness.findings.next_tokens import next_tokens
from harness.findings.position_maps import position_maps
from harness.views.number_tables import html_table, scrolled
from harness.views.text import markup, visible

if TYPE_CHECKING:
    from harness.results import Run


def next_token_table(run: "Run") -> str:
    """Return the table of the strongest cells of each map, by the leading metric; nothing without next tokens."""
    maps = position_maps(run, run.lead_metric)
    rows = [
        (
            *(of.name, of.rows[cell.row], visible(of.columns[cell.column]), float(of.mean[cell.row, cell.column])),
            f"{cell.n_changed} of {cell.n_prompts}",
            *((visible(cell.before), visible(cell.after), cell.n_alike) if cell.n_changed else ("–", "–", None)),
        )
        for of in maps
        for cell in next_tokens(run, of)
    ]
    if not rows:
        return ""
    head = ("map", "layer", "token", "effect_mean", "changed", "most often from", "to", "on prompts")
    table = html_table(head, rows, text={0, 1, 2, 4, 5, 6}, name="next_tokens")
    title = f"The most likely next token in the strongest cells by {run.lead_metric}"
    return f"<h3>{markup(title)}</h3>{scrolled(table, title)}"
