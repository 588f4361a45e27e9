"""Figure of the parts of a prompt: shares of attention, rollout and gradient beside causes, with intervals."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.findings.segments import TAKEN, of_measure
from harness.views.charts.segments import SHARES, cause_label, measures_of, segment_order, share_label, taken
from harness.views.figures.base import Look, name_panel, panels, style, wrapped
from harness.views.text import short, visible

if TYPE_CHECKING:
    from harness.results import Run

_MARKS = ("|", "o", "s", "^")
_TONES = ("#7a7a72", "#1d5c96", "#4b3b8f", "#2e7d4f", "#c2570c", "#8f3b5e")


def traced(run: "Run", look: Look) -> Figure:
    """Plot one row for each part, the largest cause on top: shares on the left, causes on the right."""
    order = segment_order(run)
    wide = min(look.width, 12)
    rows, columns = (2, 1) if look.narrow else (1, 2)
    with style("".join(order), look):
        height = 0.42 * len(order) * look.letters / 10 + 0.17 * look.letters
        figure, axes = panels(rows, columns, wide, rows * height)
        _measures(run, axes[0], order, SHARES, 0)
        _measures(run, axes[1], order, taken(run), len(SHARES))
        axes[1].axvline(0, color="0.5", linewidth=0.8)
        for at, (each, label) in enumerate(zip(axes, (share_label(), cause_label(run)), strict=True)):
            shown = [visible(short(name, 24) if look.narrow else name) for name in order]
            names = shown if look.narrow or not at else [""] * len(order)
            each.set_yticks(range(len(order)), names, fontsize=look.small)
            each.tick_params(labelsize=look.small)
            each.set_ylim(-0.6, len(order) - 0.4)
            each.set_xlabel("\n".join(wrapped(label, 0.8 * wide / columns, look.small)), fontsize=look.small)
            if not look.titles:
                name_panel(each, at, ("shares", "causes")[at], look, wide / columns)
            each.legend(fontsize=look.small, frameon=False, loc="best")
    return figure


def _measures(run: "Run", axes: Axes, order: list[str], measures: list[str] | tuple[str, ...], tone: int) -> None:
    """Plot dots with intervals for some measures, side by side in each row."""
    there = measures_of(run, measures)
    for number, measure in enumerate(there):
        rows = {row["part"]: row for row in of_measure(run, measure)}
        height = np.arange(len(order)) - (number - (len(there) - 1) / 2) * 0.6 / len(there)
        known = [[rows.get(part, {}).get(name, np.nan) for part in order] for name in ("mean", "ci_low", "ci_high")]
        mean, low, high = np.array(known, dtype=float)
        spread = np.nan_to_num(np.abs(np.stack([mean - low, high - mean])))
        mark, tone_of = _MARKS[number % len(_MARKS)], _TONES[(tone + number) % len(_TONES)]
        label = TAKEN.get(measure, measure)
        axes.errorbar(mean, height, xerr=spread, fmt=mark, color=tone_of, markersize=5, elinewidth=0.9, label=label)
