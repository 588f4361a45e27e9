"""Shared parts of all figures: size, style, names of panels, colour bars, the scale of effects, and their bytes."""

import base64
import io
import math
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, Locator, MaxNLocator
from matplotlib.transforms import ScaledTranslation, blended_transform_factory

from harness.results.objects import Folder
from harness.views.charts.describe import measured as measured
from harness.views.glyphs import families

if TYPE_CHECKING:
    from harness.results import Run

TONE = {"helps": "#1d5c96", "hurts": "#c2570c", "matters": "#1c6e5a", "no effect": "#7a7a72"}
#: The hue of attention, and of what is a share of it: never that of an effect.
ATTENTION = "#4b3b8f"
#: Marks and what is written.
INK = "#1c1f23"
#: Cells without a value.
EMPTY = "#d9d9d4"
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "attention-harness",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
}
#: Letters stay letters, in PDF of embedded TrueType fonts; lines as thin as those of a printed page.
_PAPER: dict[Any, Any] = {
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "axes.linewidth": 0.6,
    "hatch.linewidth": 0.5,
    "lines.linewidth": 1.0,
    **{f"{axis}tick.major.{name}": value for axis in "xy" for name, value in (("width", 0.6), ("size", 2.5))},
}


@dataclass(frozen=True)
class Look:
    """The format of a figure: its greatest width in inches, letter size in points, whether it has titles (a paper has
    captions instead, letters in SVG and a PDF), and its dots per inch as PNG."""

    width: float
    letters: float
    titles: bool
    dpi: int

    @property
    def small(self) -> float:
        """The size of labels of ticks, in points."""
        return 0.8 * self.letters

    @property
    def narrow(self) -> bool:
        """Whether panels stand one below the other."""
        return self.width < 5

    @property
    def style(self) -> dict[Any, Any]:
        """The settings of matplotlib."""
        sizes = {"font.size": self.letters, "axes.titlesize": self.letters * 1.1, "axes.labelsize": self.letters}
        return _STYLE | sizes | ({} if self.titles else _PAPER)


#: For a screen, for a column of a paper, and for the whole width of its page.
LOOKS = {
    "screen": Look(14.0, 10.0, True, 130),
    "column": Look(3.3, 7.5, False, 400),
    "page": Look(6.8, 7.5, False, 400),
}


@dataclass(frozen=True)
class Picture:
    """A drawn figure: the name of its file, its section of the report, its label, its bytes; a PDF for a paper only."""

    name: str
    part: str
    label: str
    svg: bytes
    png: bytes
    pdf: bytes = b""

    def write(self, folder: Folder) -> list[Folder]:
        """Write its files into the folder, which is made; returns their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        kinds = {"svg": self.svg, "png": self.png} | ({"pdf": self.pdf} if self.pdf else {})
        files = {folder / f"{self.name}.{suffix}": content for suffix, content in kinds.items()}
        for path, content in files.items():
            path.write_bytes(content)
        return list(files)

    @property
    def uri(self) -> str:
        """The PNG as a data: address."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


def as_picture(name: str, part: str, label: str, figure: Figure, look: Look) -> Picture:
    """Render the figure as SVG and PNG, and as PDF for a paper, with one layout for all."""
    with style("", look):
        if layout := figure.get_layout_engine():
            for _ in range(2):  # long labels move what the first round has measured
                layout.execute(figure)
        figure.set_layout_engine("none")
        vector, pixels, sheet = io.BytesIO(), io.BytesIO(), io.BytesIO()
        FigureCanvasSVG(figure).print_svg(vector, metadata={"Date": None})
        if not look.titles:
            FigureCanvasPdf(figure).print_pdf(sheet, metadata={"CreationDate": None})
        figure.dpi = look.dpi
        FigureCanvasAgg(figure).print_png(pixels)
    return Picture(name, part, label, vector.getvalue(), pixels.getvalue(), sheet.getvalue())


def written(figure: Figure, suffix: str, look: Look = LOOKS["screen"]) -> bytes:
    """The figure as the bytes of an ``svg``, ``png`` or ``pdf`` file, the same each time."""
    content, undated = io.BytesIO(), {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with style("", look):
        figure.savefig(content, format=suffix, dpi=look.dpi, metadata=undated.get(suffix, {}))
    return content.getvalue()


def panels(
    rows: int, columns: int, width: float, height: float, down: Sequence[float] | None = None
) -> tuple[Figure, list[Axes]]:
    """Make a figure without a window or global state, and its panels row by row; `down` are the rows' shares."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    if not rows * columns:
        return figure, []
    grid = figure.add_gridspec(rows, columns, height_ratios=down)
    return figure, [figure.add_subplot(grid[row, column]) for row in range(rows) for column in range(columns)]


@contextmanager
def style(text: str, look: Look) -> Iterator[None]:
    """Within this context, figures are drawn in our style, in fonts that have the letters of ``text``."""
    fonts: dict[Any, Any] = {"font.family": [*families(text), "sans-serif"]} if text else {}
    with mpl.rc_context(look.style | fonts), warnings.catch_warnings():
        # `families` has named the letters that no font draws, all of them in one line.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from")
        yield


def name_panel(axes: Axes, at: int, name: str, look: Look, wide: float) -> None:
    """Write the name above one of several panels, broken to `wide` inches; in a paper a letter for the text to cite."""
    shown = name if look.titles else f"({letter(at)}) {name}"
    lines = [line for part in shown.split("\n") for line in wrapped(part, wide, look.letters)]
    axes.set_title("\n".join(lines), fontsize=look.letters)


def name_across(axes: Axes, text: str, look: Look, wide: float) -> None:
    """Name the axis below a panel that is about `wide` inches wide, in as many lines as it takes."""
    axes.set_xlabel("\n".join(wrapped(text, wide, look.letters)))


def letter(at: int) -> str:
    """Return the letter of a panel: a, b, … z, aa, ab …"""
    return (letter(at // 26 - 1) if at > 25 else "") + chr(ord("a") + at % 26)


def wrapped(text: str, wide: float, points: float) -> list[str]:
    """Break a text into lines that are about `wide` inches long in letters of this size."""
    return textwrap.wrap(text, max(10, int(wide * 72 / (0.56 * points)))) or [""]


def every_nth(n: int, room: float, look: Look) -> range:
    """Return those of n labels, one below the other, that can be read in `room` inches: all, or every second …"""
    return range(0, n, max(1, math.ceil(n * 1.17 * look.small / 72 / max(room, 0.01))))


def color_bar(image: Any, axes: Axes, label: str, look: Look, high: float) -> Axes:
    """Draw the colour bar of an image beside its axes, just as high as they are, which is about `high` inches."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    inches = figure.dpi_scale_trans + ScaledTranslation(1, 0, axes.transAxes)  # pyright: ignore[reportArgumentType]
    place = blended_transform_factory(inches, axes.transAxes)
    bar = axes.inset_axes((0.06, 0, 0.09, 1), transform=place)
    figure.colorbar(image, cax=bar, ticks=_ticks(image.norm, high, look))
    bar.tick_params(labelsize=look.small)
    bar.set_ylabel("\n".join(wrapped(label, max(high, 0.9), look.small)), fontsize=look.small)
    return bar


def _ticks(norm: colors.Normalize, high: float, look: Look) -> Locator:
    """Return as many ticks as fit in `high` inches."""
    room = high * 72 / look.small
    if isinstance(norm, colors.PowerNorm):
        return FixedLocator([0, 0.25, 1] if room < 20 else [0, 0.1, 0.25, 0.5, 1])
    return MaxNLocator(int(min(max(room / 3, 2), 6)))


def map_of(run: "Run", metric: str) -> colors.Colormap:
    """Return the colour map: white is no effect; blue helps and orange hurts, or the darker the more it matters."""
    if run.sense(metric) == 0:
        return ramp("#ffffff", TONE["matters"])
    below, above = ("hurts", "helps") if run.sense(metric) > 0 else ("helps", "hurts")
    return ramp(TONE[below], "#ffffff", TONE[above])


def ramp(*tones: str) -> colors.Colormap:
    """Return a colour map through these tones."""
    return colors.LinearSegmentedColormap.from_list("harness", tones)
