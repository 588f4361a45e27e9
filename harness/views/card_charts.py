"""The charts of a head card, as SVG: the waterfall of an effect, and the logit lens by layer."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from harness.findings.account import Account
from harness.findings.format import signed
from harness.views.text import markup

#: Components that have a bar of their own; the others are drawn in groups.
_BARS = 8
_MLP = (".mlp", ".rest")
_ROW, _LABEL, _VALUE, _WIDTH = 19, 96, 62, 520


def waterfall(account: Account, name: str, unit: str) -> str:
    """Draw an account, in mean: each bar begins where the one before it ends, the last is the sum.

    The largest components have bars of their own, in the order of layers; the others are together by kind.
    """
    rows = _rows({part: float(values.mean()) for part, values in account.items()})
    ends = np.cumsum([value for _, value in rows])
    starts = [0.0, *ends[:-1]]
    low, high = min(0.0, *ends), max(0.0, *ends)
    place = lambda value: _LABEL + (value - low) / ((high - low) or 1.0) * (_WIDTH - _LABEL - _VALUE)  # noqa: E731
    bars = [
        _bar(at, label, value, place(a), place(b))
        for at, ((label, value), a, b) in enumerate(zip(rows, starts, ends, strict=True))
    ]
    bars.append(_bar(len(rows), "effect", float(ends[-1]), place(0.0), place(float(ends[-1])), whole=True))
    height = _ROW * len(bars) + 4
    zero = f'<line class="zero" x1="{place(0.0):.1f}" x2="{place(0.0):.1f}" y1="0" y2="{height}"/>'
    title = f"Where the effect of {name} went, in {unit}: " + ", ".join(
        f"{label} {signed(value)}" for label, value in rows
    )
    return _svg(height, title, zero + "".join(bars))


def _rows(mean: dict[str, float]) -> list[tuple[str, float]]:
    """Return the label and value of each bar: direct, the largest components in their order, and the others by kind."""
    direct, later = mean["direct"], {name: value for name, value in mean.items() if name != "direct"}
    largest = sorted(later, key=lambda name: -abs(later[name]))[:_BARS]
    groups = {"other heads": 0.0, "other MLPs": 0.0, "norms": 0.0}
    for name in later.keys() - {*largest}:
        kind = "norms" if ":" in name or name == "softcap" else "other MLPs" if name.endswith(_MLP) else "other heads"
        groups[kind] += later[name]
    shown = [(name, value) for name, value in later.items() if name in largest] + [*groups.items()]
    return [("direct", direct), *((name, value) for name, value in shown if value)]


def _bar(at: int, label: str, value: float, start: float, end: float, whole: bool = False) -> str:
    y, left, width = 2 + at * _ROW, min(start, end), max(abs(end - start), 1.0)
    kind = "whole" if whole else "down" if value < 0 else "up"
    return (
        f'<g class="{kind}"><text class="label" x="{_LABEL - 8}" y="{y + 13}">{markup(label)}</text>'
        f'<rect x="{left:.1f}" y="{y + 2}" width="{width:.1f}" height="{_ROW - 5}"/>'
        f'<text class="value" x="{_WIDTH}" y="{y + 13}">{signed(value)}</text></g>'
    )


_HEIGHT, _LEFT, _RIGHT, _BOTTOM = 150, 58, 16, 24


def lens(by_depth: Mapping[str, Float[np.ndarray, " depth"]], name: str, metric: str) -> str:
    """Draw the metric read from the stream before each block and after the last, clean and ablated."""
    lines = {what: np.asarray(values, dtype=float) for what, values in by_depth.items()}
    every = np.concatenate([values[np.isfinite(values)] for values in lines.values()])
    low, high, n = float(every.min(initial=0)), float(every.max(initial=0)), len(next(iter(lines.values())))
    x = lambda at: _LEFT + at / max(n - 1, 1) * (_WIDTH - _LEFT - _RIGHT)  # noqa: E731
    y = lambda value: 6 + (high - value) / ((high - low) or 1.0) * (_HEIGHT - _BOTTOM - 6)  # noqa: E731
    drawn = [f'<line class="zero" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(0):.1f}" y2="{y(0):.1f}"/>']
    for what, values in lines.items():
        points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in enumerate(values) if np.isfinite(value))
        drawn.append(f'<polyline class="{what}" points="{points}"/>')
    drawn += [f'<text class="value" x="{_LEFT - 6}" y="{y(at) + 4:.1f}">{signed(at)}</text>' for at in _ends(low, high)]
    for at in sorted({0, n // 2, n - 1}):
        label = "end" if at == n - 1 else f"L{at}"
        drawn.append(f'<text class="tick" x="{x(at):.1f}" y="{_HEIGHT - 6}">{label}</text>')
    title = f"Logit lens of {metric} before each layer, clean and without {name}: at the end "
    title += " and ".join(f"{values[-1]:.3g} {what}" for what, values in lines.items())
    return _svg(_HEIGHT, title, "".join(drawn))


def _ends(low: float, high: float) -> Sequence[float]:
    return [each for each in (low, high) if each]


def _svg(height: int, title: str, body: str) -> str:
    return (
        f'<svg class="card-chart" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{markup(title)}">'
        f"<title>{markup(title)}</title>{body}</svg>"
    )
