"""Show a matplotlib figure as a page."""

from collections.abc import Callable

from matplotlib.figure import Figure

from harness.views.figures.base import LOOKS, as_picture
from harness.views.frame_height import figure_height
from harness.views.notebook import View, static_view
from harness.views.text import markup


def figure_view(title: str, draw: Callable[[], Figure], note: str = "") -> View:
    """Return a page with the figure that `draw` draws, as high as it is, and a note beneath it.

    >>> from harness.views.figures.base import panels
    >>> figure_view("An empty panel", lambda: panels(1, 1, 3.0, 2.0)[0])
    View(An empty panel)
    """
    figure = draw()
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    uri = as_picture("figure", "figure", title, figure, LOOKS["screen"]).uri
    image = f'<div class="figure"><img alt="{markup(title)}" width="{width}" height="{height}" src="{uri}"></div>'
    below = f'<p class="note">{markup(note)}</p>' if note else ""
    body = f"<header><h1>{markup(title)}</h1></header><main>{image}{below}</main>"
    return static_view(title, body, figure_height(title, width, height, note)).with_figure(draw)
