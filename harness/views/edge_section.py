"""The report's section on edges: a graph of the strongest, drawn without scripts, and the table of all measured."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from harness.findings.edges import edge_in_words
from harness.findings.format import chance, count, decimals, signed
from harness.stats import rank_correlation
from harness.views.number_tables import html_table, scrolled
from harness.views.text import markup

if TYPE_CHECKING:
    from harness.results import Run

ABOUT = (
    "An <b>edge</b> goes from a head to one input of a later head (query, key, value) or to an MLP. Its effect: the "
    "head’s z is replaced, and only that input reads the changed stream; every other component reads the clean one, "
    "until the receiver’s own change runs on. Layers go upwards; a line is as wide as its effect is large, blue where "
    "the edge helps, orange where it hurts, dashed where it is not shown (max-T) on the prompts that did not choose "
    "it. Only the edges with the largest <b>estimates</b> (gradients) were measured: one that no gradient sees, such "
    "as into a saturated softmax, may be missing. Every value is in data.zarr, edge_effect and edge_estimate."
)
#: Fewer edges have no rank correlation worth a sentence.
_FEWEST = 5
#: Edges in the graph; its sizes in pixels.
_DRAWN = 40
_WIDTH, _ROW, _MARGIN, _LEFT = 860, 76, 34, 46
_THINNEST, _WIDEST = 1.0, 9.0
_COLUMNS = ("sender", "receiver", "into", "effect_mean", "ci_low", "ci_high", "p_adjusted", "significant", "important")


class _Point(NamedTuple):
    x: float
    y: float


def graph_and_table(run: "Run") -> str:
    """Return the graph by the leading metric, and the table by every metric, as markup."""
    metrics = sorted(dict.fromkeys(run.edges["metric"]), key=lambda name: name != run.lead_metric)
    ordered = [run.edges.loc[run.edges["metric"] == name].sort_values("rank", kind="stable") for name in metrics]
    drawn = ordered[0].head(_DRAWN)
    columns = ["metric", *_COLUMNS, "estimate"]
    table = pd.concat(ordered)[columns]
    shown = html_table(columns, table.itertuples(index=False), text={0, 1, 2, 3, 8, 9}, name="edges")
    return f"{_graph(run, metrics[0], drawn)}{_note(run, len(drawn), len(ordered[0]))}{scrolled(shown, 'Edges')}"


def _note(run: "Run", n_drawn: int, n_measured: int) -> str:
    effect = run.data["edge_effect"].attrs
    n_candidates = count(int(effect.get("n_candidates", n_measured)), "edge")
    text = f"The {n_drawn} largest of {count(n_measured, 'measured edge')}, of {n_candidates} with an estimate; MLPs "
    text += f"between are {effect.get('mlps', 'frozen')}.{_agreement(run)} {effect.get('note', '')}"
    return f'<p class="note">{markup(text.strip())}</p>'


def _agreement(run: "Run") -> str:
    """State how alike estimates and effects rank the measured edges, by the leading metric."""
    table = run.edges.loc[run.edges["metric"] == run.lead_metric]
    sizes = [np.abs(table[name].to_numpy(float)) for name in ("estimate", "effect_mean")]
    if len(table) < _FEWEST or any(np.ptp(size) == 0 for size in sizes):
        return ""
    return f" Estimates and effects rank these edges with a correlation of {decimals(rank_correlation(*sizes))}."


def _graph(run: "Run", metric: str, edges: pd.DataFrame) -> str:
    """Draw edges as SVG that a keyboard can walk through: nodes by layer, heads in order and the MLP last."""
    nodes = sorted({*edges["sender"], *edges["receiver"]}, key=_order)
    rows = [list(names) for _, names in groupby(nodes, key=lambda name: _order(name)[0])]
    height = _ROW * (len(rows) - 1) + 2 * _MARGIN
    places = _places(rows, height)
    largest = float(np.abs(edges["effect_mean"].to_numpy()).max()) or 1.0
    lines = "".join(_edge(run, metric, row, places, largest) for _, row in edges[::-1].iterrows())
    labels = "".join(
        f'<text x="4" y="{height - _MARGIN - at * _ROW + 4:.0f}" style="fill: var(--soft)">L{_order(row[0])[0]}</text>'
        for at, row in enumerate(rows)
    )
    points = "".join(_node(name, place) for name, place in places.items())
    return (
        f'<div style="overflow-x: auto"><svg role="group" aria-label="Edges by {markup(metric)}" '
        f'viewBox="0 0 {_WIDTH} {height}" style="width: 100%; min-width: 600px; max-width: {_WIDTH}px; height: auto; '
        'font: 11px var(--mono)">'
        f"{labels}{lines}{points}</svg></div>"
    )


def _order(name: str) -> tuple[int, int]:
    """Sort by layer, then heads in order, then the MLP."""
    layer, _, head = name.removeprefix("L").removesuffix(".mlp").partition("H")
    return int(layer), int(head) if head else 1 << 30


def _places(rows: Sequence[Sequence[str]], height: float) -> dict[str, _Point]:
    places = {}
    for at, row in enumerate(rows):
        step = (_WIDTH - _LEFT) / len(row)
        shift = 0.25 * step * (-1) ** at if len(row) < 8 else 0.0  # so that edges over a layer miss its nodes
        for number, name in enumerate(row):
            places[name] = _Point(_LEFT + step * (number + 0.5) + shift, height - _MARGIN - at * _ROW)
    return places


def _edge(run: "Run", metric: str, row: Any, places: dict[str, _Point], largest: float) -> str:
    start, end = places[row["sender"]], places[row["receiver"]]
    size, shown = abs(row["effect_mean"]) / largest, row["p_adjusted"] < run.level
    bend = (start.y - end.y) / 2 if start.y != end.y else 0.0
    lift = 0.0 if start.y != end.y else 26.0  # an edge within a layer is an arc below it
    path = f"M{start.x:.1f} {start.y:.1f}C{start.x:.1f} {start.y - bend + lift:.1f} "
    path += f"{end.x:.1f} {end.y + bend + lift:.1f} {end.x:.1f} {end.y:.1f}"
    p = f", max-T {chance(row['p_adjusted'])}" if np.isfinite(row["p_adjusted"]) else ""
    title = f"{edge_in_words(row)}: {signed(row['effect_mean'])}{run.unit(metric)}{p}"
    side = run.side(metric, row["effect_mean"]).replace(" ", "-")
    dash = "" if shown else "; stroke-dasharray: 5 4"
    width = _THINNEST + (_WIDEST - _THINNEST) * size
    style = f"fill: none; stroke: var(--tone); stroke-width: {width:.1f}; stroke-opacity: .75{dash}"
    label = markup(title)
    return (
        f'<g class="{side}" tabindex="0" role="img" aria-label="{label}"><title>{label}</title>'
        f'<path d="{path}" style="{style}"/></g>'
    )


def _node(name: str, place: _Point) -> str:
    shape = f'<rect x="{place.x - 27:.1f}" y="{place.y - 10:.1f}" width="54" height="20" '
    shape += f'rx="{3 if name.endswith("mlp") else 10}" style="fill: var(--card); stroke: var(--soft)"/>'
    text = f'<text x="{place.x:.1f}" y="{place.y + 4:.1f}" text-anchor="middle" style="fill: var(--ink)">'
    return f"{shape}{text}{markup(name)}</text>"
