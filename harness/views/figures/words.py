"""Figures of coloured text and of word pairs in every head, for print."""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from harness.views.figures.base import LOOKS, TONE, Look, Picture, as_picture, panels, ramp, style
from harness.views.figures.titles import headed
from harness.views.follow import Keys, Pair, PairWeights, pair_weights
from harness.views.selection import model_of
from harness.views.text import visible
from harness.views.token_colours import Colours, colour, heading

if TYPE_CHECKING:
    from harness.results import Run

_MARK = ("#f2a51f", "#7a4a00")
_LINE = 1.75  # lines apart, in heights of letters
_WIDTH = 7.5  # inches at most
_MARGIN = 0.15  # inches at either side
_GAP = 0.3  # inches between two sentences


@dataclass(frozen=True)
class Piece:
    """A word, its place in inches from the top left (its left end, its line's middle), and its share of the scale."""

    text: str
    across: float
    down: float
    share: float


@dataclass(frozen=True)
class Sheet:
    """The axes of a text in inches, y downwards; the width of a line, and the letter size in points."""

    axes: Axes
    width: float
    letters: float

    @property
    def line(self) -> float:
        """The distance of lines, in inches."""
        return self.letters * _LINE / 72

    def measured(self, text: str) -> float:
        """Return the width of a text, in inches."""
        renderer = self.axes.figure.canvas.get_renderer()  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
        wide, _, _ = renderer.get_text_width_height_descent(text, FontProperties(size=self.letters), False)
        return wide / renderer.dpi

    def cut(self, text: str, room: float) -> str:
        """Cut the text to what a line holds; the cut is marked by an ellipsis."""
        wide = self.measured(text)
        return text if wide <= room else text[: int(0.95 * room / wide * len(text)) - 1] + "…"


def saliency_figure(run: "Run", level: str = "word", look: Look = LOOKS["screen"], **options: Any) -> Picture:
    """Draw the saliency page as a figure, by word or by token; ``options`` and errors as in `harness.views.saliency`.

    Raises `RequestError` as it does. The picture is written by ``write(folder)`` as SVG and PNG.

    >>> import harness
    >>> run = harness.look("planted", " da ko li da ko").run
    >>> harness.views.saliency_figure(run, head="L1H4").label
    'Text coloured by its scores'
    """
    figure = draw_saliency(run, level, look, **options)
    return as_picture("saliency", "saliency", "Text coloured by its scores", figure, look)


def draw_saliency(run: "Run", level: str = "word", look: Look = LOOKS["screen"], **options: Any) -> Figure:
    """Draw the matplotlib figure of `saliency_figure`."""
    saliency = colour(run, **options)
    headings = [visible(heading(text)) if heading(text) else "" for text in saliency.texts]
    labels = "".join(visible(label) for text in saliency.texts for label in text.by[level].axis.labels)
    with style(labels + "".join(headings) + saliency.how, look):
        figure, (axes,) = panels(1, 1, _WIDTH, 1.0)
        figure.set_layout_engine("none")
        axes.set_position((0, 0, 1, 1))
        sheet = Sheet(axes, min(_WIDTH, look.width - 2 * _MARGIN), 1.2 * look.letters)
        down = 1.2 * sheet.line if any(headings) else 0.0
        for title, text in zip(headings, saliency.texts, strict=True):
            if title:
                axes.text(0, down, sheet.cut(title, 1.1 * sheet.width), color="0.25", va="center")
            down = _draw(sheet, saliency.signed, text.by[level], down + 1.15 * sheet.line) + 1.5 * sheet.line
        if look.titles:
            axes.text(0, down - 0.4 * sheet.line, saliency.how.replace(". ", ".\n"), fontsize=look.small, va="top")
            down += 0.6 * sheet.line * (1 + saliency.how.count(". "))
        figure.set_size_inches(sheet.width + 2 * _MARGIN, down)
        axes.set(xlim=(-_MARGIN, sheet.width + _MARGIN), ylim=(down, 0))
        axes.set_axis_off()
    if not look.titles:
        return figure
    return headed(figure, " · ".join(filter(None, ("Text coloured by " + saliency.what, model_of(run)))), look=look)


def _draw(sheet: Sheet, signed: bool, colours: Colours, down: float) -> float:
    """Draw one text, its sentences side by side; returns the middle of its last line."""
    parts = colours.axis.sentences
    column = (sheet.width - _GAP * (len(parts) - 1)) / max(len(parts), 1)
    last = down
    for number, part in enumerate(parts):
        for piece in _laid(sheet, colours, part.tolist(), number * (column + _GAP), column, down):
            tone = _MARK[0] if not signed else TONE["helps" if piece.share >= 0 else "hurts"]
            shade = ramp("#ffffff", tone)(abs(piece.share) * (0.6 if signed else 1))
            box = {"boxstyle": "round,pad=0.12", "facecolor": shade, "edgecolor": "none"}
            sheet.axes.text(piece.across, piece.down, piece.text, fontsize=sheet.letters, va="center", bbox=box)
            last = max(last, piece.down)
    return last


def _laid(
    sheet: Sheet, colours: Colours, places: Sequence[int], left: float, room: float, down: float
) -> Iterator[Piece]:
    """Set the words of a sentence in lines; right-to-left text is set from the right."""
    texts = [colours.axis.text[colours.axis.shown[at]] for at in places]
    backwards, at = _is_rtl(texts), 0.0
    for text, share in zip(texts, colours.share[list(places)], strict=True):
        shown = sheet.cut(visible(text.strip() or text), room)
        width = sheet.measured(shown)
        space = sheet.letters / 72 * (0.5 if text[:1].isspace() or colours.axis.level == "token" else 0.12)
        if at and at + space + width > room:
            at, down = 0.0, down + sheet.line
        at += space if at else 0
        yield Piece(shown, left + (room - at - width if backwards else at), down, float(share))
        at += width
        if "\n" in text and not text.strip():
            at, down = 0.0, down + sheet.line


def _is_rtl(texts: Sequence[str]) -> bool:
    """Whether the first letter with a direction is of a script written from right to left."""
    ways = (unicodedata.bidirectional(letter) for text in texts for letter in text)
    return next((way for way in ways if way in ("L", "R", "AL")), "L") != "L"


def follow_figure(
    run: "Run", prompt: int, query: str | int, keys: Keys, look: Look = LOOKS["screen"], **options: Any
) -> Picture:
    """Draw one map of layers and heads for each key, on one scale; ``options`` as in `harness.views.follow`.

    Weights are shares of the query's attention, 0 to 1. Raises `RequestError` as it does.

    >>> import harness
    >>> run = harness.look("planted", " da ko li da ko").run
    >>> harness.views.follow_figure(run, 0, 4, 2).name
    'follow'
    """
    figure = draw_follow(run, prompt, query, keys, look, **options)
    return as_picture("follow", "follow", f"From {query} in every head", figure, look)


def draw_follow(
    run: "Run", prompt: int, query: str | int, keys: Keys, look: Look = LOOKS["screen"], **options: Any
) -> Figure:
    """Draw the matplotlib figure of `follow_figure`."""
    weights = pair_weights(run, prompt, query, keys, **options)
    n_layers, n_heads = weights.pairs[0].weight.shape
    note = visible(weights.note).replace(". ", ".\n") if look.titles and weights.note else ""
    names = "".join(pair.query + pair.key for pair in weights.pairs)
    with style(visible(names) + note, look):
        across = (0.024 * (n_heads + 2) + 0.14) * look.letters
        width = min(look.width, across * len(weights.pairs) + 0.08 * look.letters)
        figure, every = panels(1, len(weights.pairs), width, (0.02 * n_layers + 0.16) * look.letters)
        images = [_heat(axes, pair, weights, look) for axes, pair in zip(every, weights.pairs, strict=True)]
        figure.colorbar(images[0], ax=every, label="attention weight", fraction=0.05)
        if note:
            figure.supxlabel(note, fontsize=look.small)
    return figure


def _heat(axes: Axes, pair: Pair, weights: PairWeights, look: Look) -> Any:
    scale = PowerNorm(0.5, 0, weights.most or 1)  # by the square root, or all but the strongest would be white
    n_heads = pair.weight.shape[1]
    gap = np.full((len(weights.layers), 1), np.nan)  # between the heads and their mean
    shown = np.concatenate([pair.weight, gap, pair.by_layer[:, None]], axis=1)
    image = axes.imshow(shown, cmap=ramp("#ffffff", *_MARK), norm=scale, aspect="auto")
    axes.set_title(visible(f"“{pair.query}” → “{pair.key}”"))
    step = -(-len(weights.layers) // 40)
    rows = range(0, len(weights.layers), step)
    axes.set_yticks(rows, [str(weights.layers[row]) for row in rows], fontsize=look.small)
    axes.set_xticks([*range(n_heads), n_heads + 1], [*map(str, range(n_heads)), "mean"], fontsize=look.small)
    axes.set(xlabel="head", ylabel="layer")
    return image
