"""Write a title above a finished figure, whatever it shows."""

import textwrap

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine

from harness.views.figures.base import LOOKS, Look, style
from harness.views.text import visible

#: Inches left free at the left and right edge, and above the title.
_EDGE, _ABOVE = 0.1, 0.08
#: Distance of lines, in heights of letters.
_LINE = 1.3


def headed(figure: Figure, title: str, note: str = "", look: Look = LOOKS["screen"]) -> Figure:
    """Write a title above all of a figure, in as many lines as its width needs, and a note of one line beneath it.

    The figure grows by the height of both; what it shows keeps its size.
    """
    title, note = visible(title), visible(note) if note else ""
    with style(title + note, look):
        width, height = figure.get_size_inches()
        room, large = width - 2 * _EDGE, 1.1 * look.letters
        lines = textwrap.wrap(title, _letters_in(figure, title, large, room)) or [""]
        titled = _LINE * len(lines) * large / 72 + _ABOVE
        top = titled + (_LINE * look.small / 72 if note else 0) + _ABOVE / 2
        _make_room(figure, top)
        at = _EDGE / width
        figure.text(at, 1 - _ABOVE / (height + top), "\n".join(lines), fontsize=large, va="top", linespacing=_LINE)
        if note:
            fits = _letters_in(figure, note, look.small, room)
            shown = note if len(note) <= fits else note[: fits - 1] + "…"
            figure.text(at, 1 - titled / (height + top), shown, fontsize=look.small, va="top", color="0.3")
    return figure


def _letters_in(figure: Figure, text: str, size: float, room: float) -> int:
    """Return how many letters of this text, on average, fit in a line of `room` inches."""
    renderer = figure.canvas.get_renderer()  # pyright: ignore[reportAttributeAccessIssue]
    wide = renderer.get_text_width_height_descent(text or " ", FontProperties(size=size), False)[0] / renderer.dpi
    return max(10, len(text) if wide <= room else int(0.95 * len(text) * room / wide))


def _make_room(figure: Figure, top: float) -> None:
    """Make the figure higher by `top` inches, which stay free above its axes."""
    width, height = figure.get_size_inches()
    share = height / (height + top)
    layout = figure.get_layout_engine()
    if isinstance(layout, ConstrainedLayoutEngine):
        layout.set(rect=(0, 0, 1, share))
    else:
        for axes in figure.axes:
            place = axes.get_position()
            axes.set_position((place.x0, place.y0 * share, place.width, place.height * share))
    figure.set_size_inches(width, height + top)
