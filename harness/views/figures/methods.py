"""Figure of attribution methods against measured causes: one dot for each method and cause, with its interval."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.views.charts.methods import POLICY, Row, agreement_rows, policies_and_causes
from harness.views.figures.base import Look, name_panel, panels, style
from harness.views.text import visible

if TYPE_CHECKING:
    from harness.results import Run

_MARKS = ("o", "s", "^", "D", "v", "P")
_TONES = ("#1d5c96", "#c2570c", "#4b3b8f", "#2e7d4f", "#7a7a72", "#8f3b5e")


def agreement(run: "Run", look: Look) -> Figure:
    """Plot Spearman's correlation of each method with each cause, one panel for each token policy; best on top."""
    policies, causes = policies_and_causes(run)
    order, rows = agreement_rows(run)
    ends = [row[name] for row in rows.values() for name in ("mean", "ci_low", "ci_high")]
    low, high = min(0.0, np.nanmin(ends)), max(0.0, np.nanmax(ends))
    with style("", look):
        width = min(look.width, 5.5 * len(policies) + 2)
        figure, axes = panels(1, len(policies), width, 0.32 * len(order) * look.letters / 10 + 0.12 * look.letters)
        for at, policy in enumerate(policies):
            axes[at].axvline(0, color="0.5", linewidth=0.8)
            for number, cause in enumerate(causes):
                _dots(axes[at], [rows[policy, cause, method] for method in order], number, causes)
            names = [visible(method.replace("_", " ")) if at == 0 else "" for method in order]
            axes[at].set_yticks(range(len(order)), names, fontsize=look.small)
            axes[at].tick_params(labelsize=look.small)
            axes[at].set(xlim=(low - 0.05 * (high - low), high + 0.05 * (high - low)), ylim=(-0.6, len(order) - 0.4))
            if look.titles or len(policies) > 1:
                name_panel(axes[at], at, POLICY.get(policy, policy), look, (width - 1) / len(policies))
        figure.supxlabel(f"rank correlation with the cause ({run.interval_name})", fontsize=look.letters)
        key = {"handles": axes[0].containers, "fontsize": look.small, "frameon": False}
        figure.legend(**key, loc="outside upper right", ncols=3)
    return figure


def _dots(axes: Axes, rows: list[Row], number: int, causes: list[str]) -> None:
    """Plot one cause's means and intervals, a little beside those of the other causes."""
    height = np.arange(len(rows)) + (number - (len(causes) - 1) / 2) * 0.6 / max(1, len(causes))
    mean, low, high = (np.array([row[name] for row in rows], dtype=float) for name in ("mean", "ci_low", "ci_high"))
    spread = np.nan_to_num(np.abs(np.stack([mean - low, high - mean])))
    mark, colour = _MARKS[number % len(_MARKS)], _TONES[number % len(_TONES)]
    axes.errorbar(
        mean, height, xerr=spread, fmt=mark, color=colour, markersize=4, elinewidth=0.9, label=visible(causes[number])
    )
