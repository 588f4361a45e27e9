"""Coloured text and followed words as figures, for print."""

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
from harness.views.follow import Asked, Pair, PairWeights, followed
from harness.views.text import visible
from harness.views.token_colours import Colours, coloured, plainly

if TYPE_CHECKING:
    from harness.results import Run

_MARK = ("#f2a51f", "#7a4a00")
_LINE = 1.75  # lines apart, in heights of letters
_WIDTH = 7.5  # inches at most
_GAP = 0.3  # inches between two sentences


@dataclass(frozen=True)
class Piece:
    """A word where it is drawn, in inches from the top left: its left end, its line's middle; and its share."""

    text: str
    across: float
    down: float
    share: float


@dataclass(frozen=True)
class Sheet:
    """Where text is set: axes in inches, y downwards; the width of a line, and the size of a letter in points."""

    axes: Axes
    width: float
    letters: float

    @property
    def line(self) -> float:
        """From one line to the next, in inches."""
        return self.letters * _LINE / 72

    def measured(self, text: str) -> float:
        """The width of a text, in inches."""
        renderer = self.axes.figure.canvas.get_renderer()  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
        wide, _, _ = renderer.get_text_width_height_descent(text, FontProperties(size=self.letters), False)
        return wide / renderer.dpi

    def cut(self, text: str, room: float) -> str:
        """The text, or as much of it as a line holds; the cut is shown."""
        wide = self.measured(text)
        return text if wide <= room else text[: int(0.95 * room / wide * len(text)) - 1] + "…"


def saliency_figure(run: "Run", level: str = "word", look: Look = LOOKS["screen"], **asked: Any) -> Picture:
    """The saliency page as a figure, by word or by token; see `harness.views.saliency` for what can be ``asked``."""
    return as_picture(
        "saliency", "saliency", "Text coloured by its scores", draw_saliency(run, level, look, **asked), look
    )


def draw_saliency(run: "Run", level: str = "word", look: Look = LOOKS["screen"], **asked: Any) -> Figure:
    """The matplotlib figure of `saliency_figure`."""
    found = coloured(run, **asked)
    headings = [visible(plainly(text)) for text in found.texts]
    labels = "".join(visible(label) for text in found.texts for label in text.by[level].axis.labels)
    with style(labels + "".join(headings) + found.how, look):
        figure, (axes,) = panels(1, 1, _WIDTH, 1.0)
        figure.set_layout_engine("none")
        axes.set_position((0, 0, 1, 1))
        sheet = Sheet(axes, min(_WIDTH, look.width), 1.2 * look.letters)
        down = 1.2 * sheet.line
        for heading, text in zip(headings, found.texts, strict=True):
            axes.text(0, down, sheet.cut(heading, 1.1 * sheet.width), weight="bold", va="center")
            down = _draw(sheet, found.signed, text.by[level], down + 1.15 * sheet.line) + 1.5 * sheet.line
        if look.titles:
            axes.text(0, down - 0.4 * sheet.line, found.how.replace(". ", ".\n"), fontsize=look.small, va="top")
            down += 0.6 * sheet.line * (1 + found.how.count(". "))
        figure.set_size_inches(sheet.width + 0.3, down)
        axes.set(xlim=(-0.15, sheet.width + 0.15), ylim=(down, 0))
        axes.set_axis_off()
    return figure


def _draw(sheet: Sheet, signed: bool, colours: Colours, down: float) -> float:
    """One text, its sentences side by side; gives where its last line is."""
    sentence = colours.axis.sentence[colours.axis.shown]
    parts = [np.flatnonzero(sentence == number) for number in dict.fromkeys(sentence.tolist())]
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
    """The words of a sentence set in lines. Text that is written from right to left is set so."""
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
    run: "Run", prompt: int, query: str | int, keys: Asked, look: Look = LOOKS["screen"], **asked: Any
) -> Picture:
    """One map of layers and heads for each key, on one scale; see `harness.views.follow` for what can be ``asked``."""
    figure = draw_follow(run, prompt, query, keys, look, **asked)
    return as_picture("follow", "follow", f"From {query} in every head", figure, look)


def draw_follow(
    run: "Run", prompt: int, query: str | int, keys: Asked, look: Look = LOOKS["screen"], **asked: Any
) -> Figure:
    """The matplotlib figure of `follow_figure`."""
    found = followed(run, prompt, query, keys, **asked)
    n_layers, n_heads = found.pairs[0].weight.shape
    said = visible(found.note).replace(". ", ".\n") if look.titles and found.note else ""
    names = "".join(pair.query + pair.key for pair in found.pairs)
    with style(visible(names) + said, look):
        across = (0.024 * n_heads + 0.14) * look.letters
        width = min(look.width, across * len(found.pairs) + 0.08 * look.letters)
        figure, every = panels(1, len(found.pairs), width, (0.02 * n_layers + 0.16) * look.letters)
        images = [_heat(axes, pair, found, look) for axes, pair in zip(every, found.pairs, strict=True)]
        figure.colorbar(images[0], ax=every, label="attention weight", fraction=0.05)
        if said:
            figure.supxlabel(said, fontsize=look.small)
    return figure


def _heat(axes: Axes, pair: Pair, found: PairWeights, look: Look) -> Any:
    scale = PowerNorm(0.5, 0, found.most or 1)  # by the square root, or all but the strongest would be white
    image = axes.imshow(pair.weight, cmap=ramp("#ffffff", *_MARK), norm=scale, aspect="auto")
    axes.set_title(visible(f"“{pair.query}” → “{pair.key}”"))
    step = -(-len(found.layers) // 40)
    rows, columns = range(0, len(found.layers), step), range(pair.weight.shape[1])
    axes.set_yticks(rows, [str(found.layers[row]) for row in rows], fontsize=look.small)
    axes.set_xticks(columns, [str(head) for head in columns], fontsize=look.small)
    axes.set(xlabel="head", ylabel="layer")
    return image
