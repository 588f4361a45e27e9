"""Figure of the effects of whole layers or their MLPs, where no single heads were ablated: a line per kind."""

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.views.charts.layers import SWEPT, layer_means
from harness.views.figures.base import TONE, Look, measured, panels, style

if TYPE_CHECKING:
    from harness.results import Run

#: Mark and colour of each variable.
_MARKS = {
    "layer_effect": ("o", TONE["matters"]),
    "attn_effect": ("o", TONE["matters"]),
    "mlp_effect": ("s", "#7a7a72"),
    "resid_effect": ("^", TONE["helps"]),
}


def by_layer(run: "Run", metric: str, look: Look) -> Figure:
    """Plot the mean effect of each layer with its standard error, a panel for each stack."""
    stacks = run.layers
    with style(metric, look):
        figure, every = panels(1, len(stacks), min(look.width, 7.5), 0.38 * look.letters)
        for axes, stack in zip(every, stacks, strict=True):
            axes.axhline(0, color="0.5", linewidth=0.8)
            for name, (mean, error) in layer_means(run, metric, stack).items():
                mark, tone = _MARKS[name]
                axes.errorbar(range(len(mean)), mean, error, marker=mark, color=tone, label=SWEPT[name])
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set(xlabel=f"{stack} layer".strip(), ylabel=f"effect on {measured(run, metric)}")
            axes.sharey(every[0])
        every[0].legend(frameon=False, fontsize=look.small, loc="best")
    return figure
