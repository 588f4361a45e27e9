"""Figure of the effects of whole layers or their MLPs, where no single heads were ablated: a line per kind."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.views.figures.base import TONE, Look, measured, panels, style

if TYPE_CHECKING:
    from harness.results import Run

#: Variable: name, mark and colour.
SWEPT = {"layer_effect": ("all heads", "o", TONE["matters"]), "mlp_effect": ("MLP", "s", "#7a7a72")}


def by_layer(run: "Run", metric: str, look: Look) -> Figure:
    """Plot the mean effect of each layer with its standard error, a panel for each stack."""
    stacks = run.layers
    with style(metric, look):
        figure, every = panels(1, len(stacks), min(look.width, 7.5), 0.38 * look.letters)
        for axes, (stack, n_layers) in zip(every, stacks.items(), strict=True):
            axes.axhline(0, color="0.5", linewidth=0.8)
            for name in (name for name in SWEPT if name in run.data):
                label, mark, tone = SWEPT[name]
                effect = run.data[name].sel(metric=metric)
                mine = effect.sel(stack=stack) if stack else effect
                values = mine.transpose("prompt", "layer").values[:, :n_layers].astype(float)
                error = values.std(axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.zeros(n_layers)
                if np.isfinite(values).any():
                    axes.errorbar(range(n_layers), values.mean(0), error, marker=mark, color=tone, label=label)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set(xlabel=f"{stack} layer".strip(), ylabel=f"effect on {measured(run, metric)}")
        every[0].legend(frameon=False, fontsize=look.small, loc="best")
    return figure
