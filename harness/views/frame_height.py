"""Estimate the height of a page in pixels from what is in it, for frames whose page no script can measure.

All at the width of a notebook's output, about 900 pixels. Where scripts run, the page reports its own height instead.
"""

from collections.abc import Iterable, Sequence
from math import ceil
from typing import TYPE_CHECKING

from harness.views.token_colours import heading

if TYPE_CHECKING:
    from harness.results import Run
    from harness.views.selection import Selection
    from harness.views.token_colours import Saliency

WIDTH = 900
#: Of the page's text column, without its margins.
_INNER = WIDTH - 56
_FOOT = 10


def figure_height(title: str, width: int, height: int, note: str = "") -> int:
    """Return the height of a page with a figure of `width` × `height` pixels and a note beneath it."""
    share = min(1.0, (_INNER - 26) / width)
    return _header(title) + ceil(share * height) + 46 + _paragraph(note) + _FOOT


def maps_height(title: str, shapes: Sequence[tuple[int, int]], notes: Iterable[str]) -> int:
    """Return the height of a page of maps [layer, head], as many side by side as fit."""
    wide = max(max(330, 30 + 29 * n_heads) for _, n_heads in shapes) + 40
    beside = max(1, (_INNER + 40) // wide)
    rows = [shapes[at : at + beside] for at in range(0, len(shapes), beside)]
    maps = sum(100 + 24 * (max(n_layers for n_layers, _ in row) + 1) for row in rows)
    return _header(title) + sum(map(_paragraph, notes)) + maps + _FOOT


def saliency_height(coloured: "Saliency") -> int:
    """Return the height of a page of coloured texts, by word, with their numbers closed."""
    texts = 0
    for text in coloured.texts:
        axis = text.by["word"].axis
        parts = [sum(_letters(axis.text[axis.shown[at]]) for at in part) for part in axis.sentences]
        lines = max((ceil(9 * letters * len(parts) / _INNER) for letters in parts), default=1)
        texts += 36 * max(1, lines) + (78 if heading(text) else 50)
    return _header(coloured.what) + _paragraph(coloured.how) + 70 + texts + _FOOT


def estimate(run: "Run", parts: Sequence[str], kept: "Selection", level: str) -> int:
    """Return the height of a page of these parts, drawn from a run by token or by word."""
    prompt = kept.prompts[0] if kept.prompts else 0
    heights = {
        "controls": lambda: 66,
        "head": lambda: 620,
        "headview": lambda: 180 + min(_lines(run, prompt, level), 620),
        "modelview": lambda: 96 + _pictures(run, kept, prompt, level),
        "compare": lambda: 560,
        "map": lambda: 140 + 29 * sum(run.layers.values()),
        "ranking": lambda: 60 + 30 * min(12, len(run.all_heads)),
    }
    return _header("") + sum(heights[part]() for part in parts) + _FOOT


def _lines(run: "Run", prompt: int, level: str) -> int:
    """Return the height of the longer column of the prompt's tokens or words."""
    longest = max(_length(run, prompt, level, of) for of in ("", "source_") if f"{of}length" in run.data)
    return 14 + (15 if longest > 160 else 23) * longest


def _length(run: "Run", prompt: int, level: str, of: str = "") -> int:
    """Return the number of a prompt's tokens or words; with `of` ``source_`` of the text that an encoder reads."""
    if level == "word":
        return int(run.data[f"{of}word"].values[prompt].max()) + 1
    return int(run.data[f"{of}length"].values[prompt])


def _pictures(run: "Run", kept: "Selection", prompt: int, level: str) -> int:
    """Return the height of the small pictures of all heads, as modelview.js lays them out."""
    layers = [len({head.layer for head in kept.heads if head.stack == stack}) for stack in run.layers]
    n_heads = run.data.sizes["head"]
    across = [max(n_layers, n_heads) for n_layers in layers]
    wide = max(min(1.0, 0.08 * most) * _INNER for most in across)
    beside = max(1, int((_INNER + 30) // (wide + 30)))
    shapes = [1.0] * len(layers)
    if "cross" in run.layers:  # queries of what is written, keys of what is read
        share = _length(run, prompt, level) / _length(run, prompt, level, "source_")
        shapes = [max(0.3, min(1.0, share)) if stack == "cross" else 1.0 for stack in run.layers]
    pictures = [
        _picture(n_layers, n_heads, shape) + 12 + 24 * (len(layers) > 1)
        for n_layers, shape in zip(layers, shapes, strict=True)
    ]
    return sum(max(pictures[at : at + beside]) for at in range(0, len(pictures), beside))


def _picture(n_layers: int, n_heads: int, shape: float) -> int:
    """Return the height of one stack's pictures, each `shape` times as high as wide."""
    across, down = max(n_layers, n_heads), min(n_layers, n_heads)
    return 18 + ceil(shape * down * min(80, (_INNER - 30) / across))


def _header(title: str) -> int:
    return 22 + 24 * max(1, ceil(11 * _letters(title) / _INNER))


def _paragraph(text: str) -> int:
    return 10 + 22 * ceil(7 * _letters(text) / _INNER) if text else 0


def _letters(text: str) -> int:
    """Return the width of a text in Latin letters; a Japanese one is as wide as two."""
    return sum(2 if letter > "\u2e7f" else 1 for letter in text)
