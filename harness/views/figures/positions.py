"""Figure of the strongest heads ablated at one position at a time."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from harness.views.charts.positions import strongest_anywhere
from harness.views.figures.base import Look, color_bar, every_nth, map_of, measured, panels, style
from harness.views.selection import shown_prompts
from harness.views.text import short, visible

if TYPE_CHECKING:
    from harness.results import Run


def by_position(run: "Run", metric: str, look: Look) -> Figure:
    """Map the strongest heads down, the prompt's tokens across."""
    strongest, prompt = strongest_anywhere(run, metric), shown_prompts(run)[0]
    tokens = [visible(token) for token in run.tokens(prompt)[0]]
    values = np.array([effect[prompt, : len(tokens)] for effect in strongest.values()])
    most = float(np.nanmax(np.abs(values), initial=1e-12))
    with style(metric + "".join(map(short, tokens)), look):
        width = min(look.width, max(0.5 * look.letters, 0.3 * len(tokens) + 2))
        figure, (axes,) = panels(1, 1, width, (0.03 * len(strongest) + 0.2) * look.letters)
        shown = values if run.sense(metric) else np.abs(values)
        low = -most if run.sense(metric) else 0
        image = axes.imshow(shown, cmap=map_of(run, metric), vmin=low, vmax=most, aspect="auto")
        across = every_nth(len(tokens), width - 1.5, look)
        axes.set_xticks(across, [short(tokens[at]) for at in across], rotation=90, fontsize=look.small)
        axes.set_yticks(range(len(strongest)), list(strongest), fontsize=look.small)
        axes.set(xlabel="ablated at", ylabel="head")
        color_bar(image, axes, f"effect on {measured(run, metric)}", look, 0.03 * len(strongest) * look.letters)
        if look.titles:
            axes.set_title(f"Effect of ablating a head at one position, prompt {prompt}")
    return figure
