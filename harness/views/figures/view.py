"""Show a matplotlib figure as a page."""

from collections.abc import Callable

from matplotlib.figure import Figure

from harness.views.figures.base import LOOKS, as_picture
from harness.views.notebook import View
from harness.views.page import page
from harness.views.text import markup


def figure_view(title: str, draw: Callable[[], Figure], note: str = "") -> View:
    """Return a page with the figure that `draw` draws, as high as it is, and a note beneath it."""
    figure = draw()
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    uri = as_picture("figure", "figure", title, figure, LOOKS["screen"]).uri
    image = f'<img alt="{markup(title)}" width="{width}" height="{height}" src="{uri}">'
    below = f'<p class="note">{markup(note)}</p>' if note else ""
    body = f"<header><h1>{markup(title)}</h1></header><main>{image}{below}</main>"
    return View(page(title, body, {}, circuitsvis=False, kind="view", scripts=()), height=height + 140, draw=draw)
