"""The empty panels of maps of heads: layers across, heads down, square cells, one size of cell in all."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.views.figures.base import EMPTY, Look, panels

#: Inches of the labels of heads, of a colour bar with its label, and of the largest cell.
_LEFT, _BAR, _CELL = 0.4, 0.66, 0.3


def head_maps(
    shapes: Sequence[tuple[int, ...]], columns: int, look: Look, alike: bool = False, least: float = 2.5
) -> tuple[Figure, list[Axes], list[float]]:
    """Return a figure of panels for maps of these (rows, layers), `columns` in a row, and the inches each is high.

    It is at least `least` inches wide, for its title. Panels that no map needs are hidden. Maps `alike` in their axes
    have labels on the left and at the bottom alone.
    """
    n, across = len(shapes), max(shape[1] for shape in shapes)
    rows = -(-n // columns)
    cell = min(((look.width - _LEFT - _BAR) / columns - 0.1) / across, _CELL)
    high = [cell * shape[0] for shape in shapes]
    down = [max(high[row * columns : (row + 1) * columns]) for row in range(rows)]
    title = 1.9 * look.letters / 72 if look.titles or n > 1 else 0.05
    below = 2.9 * look.letters / 72 * (1 if alike else rows)
    width = min(look.width, max(columns * (cell * across + 0.1) + _LEFT + _BAR, least))
    figure, every = panels(rows, columns, width, sum(down) + (title + 0.1) * rows + below, down)
    for at, axes in enumerate(every):
        axes.set_visible(at < n)
        _prepare(axes, cell * across, high[min(at, n - 1)], look)
        if alike and at % columns:
            axes.tick_params(labelleft=False)
        elif at < n:
            axes.set_ylabel("head")
        if alike and at + columns < n:
            axes.tick_params(labelbottom=False)
        elif at < n:
            axes.set_xlabel("layer")
    return figure, every[:n], high


def _prepare(axes: Axes, wide: float, high: float, look: Look) -> None:
    """Shade cells without a value, and number as many layers and heads as can be read in these inches."""
    axes.set_facecolor(EMPTY)
    axes.set_anchor("W")  # a map of few layers is narrower than its title, which begins where the map does
    axes.tick_params(labelsize=look.small)
    for axis, inches, letters in ((axes.xaxis, wide, 4), (axes.yaxis, high, 1.2)):
        room = int(inches * 72 / (letters * look.small))
        axis.set_major_locator(MaxNLocator(max(2, room), integer=True, steps=[1, 2, 5, 10]))
