"""Shared parts of all figures: size, style, the colour scale of effects, and their bytes."""

import base64
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from harness.results.objects import Folder
from harness.views.charts.describe import measured as measured
from harness.views.glyphs import families

if TYPE_CHECKING:
    from harness.results import Run

TONE = {"helps": "#1d5c96", "hurts": "#c2570c", "matters": "#1c6e5a", "no effect": "#7a7a72"}
#: The hue of attention, and of what is a share of it: never that of an effect.
ATTENTION = "#4b3b8f"
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "attention-harness",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
}


@dataclass(frozen=True)
class Look:
    """The format of a figure: its greatest width in inches, letter size in points, whether it has titles (a paper has
    captions instead), and its dots per inch as PNG."""

    width: float
    letters: float
    titles: bool
    dpi: int

    @property
    def small(self) -> float:
        return 0.8 * self.letters


LOOKS = {"screen": Look(14.0, 10.0, True, 130), "paper": Look(3.4, 7.0, False, 400)}


@dataclass(frozen=True)
class Picture:
    """A drawn figure: the name of its file, its section of the report, its label, its bytes."""

    name: str
    part: str
    label: str
    svg: bytes
    png: bytes

    def write(self, folder: Folder) -> list[Folder]:
        """Write both files into the folder, which is made; returns their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        files = {folder / f"{self.name}.svg": self.svg, folder / f"{self.name}.png": self.png}
        for path, content in files.items():
            path.write_bytes(content)
        return list(files)

    @property
    def uri(self) -> str:
        """The PNG as a data: address."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


def as_picture(name: str, part: str, label: str, figure: Figure, look: Look) -> Picture:
    """Render the figure as SVG and PNG, with one layout for both."""
    with style("", look):
        if layout := figure.get_layout_engine():
            layout.execute(figure)
        figure.set_layout_engine("none")
        vector, pixels = io.BytesIO(), io.BytesIO()
        FigureCanvasSVG(figure).print_svg(vector, metadata={"Date": None})
        figure.dpi = look.dpi
        FigureCanvasAgg(figure).print_png(pixels)
    return Picture(name, part, label, vector.getvalue(), pixels.getvalue())


def written(figure: Figure, suffix: str, look: Look = LOOKS["screen"]) -> bytes:
    """The figure as the bytes of an ``svg``, ``png`` or ``pdf`` file, the same each time."""
    content, undated = io.BytesIO(), {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with style("", look):
        figure.savefig(content, format=suffix, dpi=look.dpi, metadata=undated.get(suffix, {}))
    return content.getvalue()


def panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Make a figure without a window or global state, and its panels row by row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(rows, columns, at + 1) for at in range(rows * columns)]


@contextmanager
def style(text: str, look: Look) -> Iterator[None]:
    """Within this context, figures are drawn in our style, in fonts that have the letters of ``text``."""
    sizes: dict[Any, Any] = {
        "font.size": look.letters,
        "axes.titlesize": look.letters * 1.1,
        "axes.labelsize": look.letters,
    }
    fonts: dict[Any, Any] = {"font.family": families(text)} if text else {}
    with mpl.rc_context(_STYLE | sizes | fonts), warnings.catch_warnings():
        # `families` has named the letters that no font draws, all of them in one line.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from")
        yield


def map_of(run: "Run", metric: str) -> colors.Colormap:
    """Return the colour map: white is no effect; blue helps and orange hurts, or the darker the more it matters."""
    if run.sense(metric) == 0:
        return ramp("#ffffff", TONE["matters"])
    below, above = ("hurts", "helps") if run.sense(metric) > 0 else ("helps", "hurts")
    return ramp(TONE[below], "#ffffff", TONE[above])


def ramp(*tones: str) -> colors.Colormap:
    """Return a colour map through these tones."""
    return colors.LinearSegmentedColormap.from_list("harness", tones)
