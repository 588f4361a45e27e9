"""The report's figures, for print: an effect map per metric, the strongest heads, and rollout beside patterns."""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness.attribution import mean_pattern
from harness.findings.reading import (
    Claim,
    by_lead,
    claims,
    effect_of,
    estimate,
    lead_metric,
    level_of,
    pattern_of,
    rollout_of,
    sense,
    top_heads,
    units,
    verdict,
)
from harness.hooks import Head
from harness.views.choose import asked_prompts, first_head
from harness.views.glyphs import families
from harness.views.text import short, visible

if TYPE_CHECKING:
    from harness.results import Run

_TONE = {"helps": "#1d5c96", "hurts": "#c2570c", "matters": "#4b3b8f"}
_LABELS = 64  # more tokens than this are labelled every second, third … one
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "attention-harness",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
}


def write_figures(run: "Run", folder: str | Path) -> list[Path]:
    """Write every figure the run has data for as SVG and PNG into ``folder``; returns the paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in _all(run):
        for ending in ("svg", "png"):
            paths.append(folder / f"{name}.{ending}")
            with _style(""):
                metadata = {"Date": None} if ending == "svg" else None
                figure.savefig(paths[-1], dpi=160, metadata=metadata)
    return paths


def as_uri(figure: Figure, dpi: int = 100) -> str:
    """The figure as a PNG inside a data: address."""
    held = io.BytesIO()
    with _style(""):
        figure.savefig(held, format="png", dpi=dpi)
    return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode("ascii")


def effect_map(run: "Run", metric: str) -> Figure:
    """Layers across, heads down; blue helps, orange hurts, white is no effect, hatched was not ablated."""
    mean = run.data["effect"].sel(metric=metric).mean("prompt").transpose("head", "layer")
    signed = sense(run, metric) != 0
    mean = mean if signed else abs(mean)
    most = float(np.nanmax(np.abs(mean), initial=1e-12))
    with _style(metric):
        figure, (axes,) = _figure(1, width=max(7.5, 0.3 * mean.shape[1] + 2), height=0.3 * mean.shape[0] + 1.4)
        axes.set_facecolor("#d9d9d4")
        image = axes.imshow(mean, cmap=_map_of(run, metric), vmin=-most if signed else 0, vmax=most, aspect="equal")
        axes.set_xticks(range(mean.shape[1]), map(str, mean["layer"].values), fontsize=8)
        axes.set_yticks(range(mean.shape[0]), map(str, mean["head"].values), fontsize=8)
        axes.set(xlabel="layer", ylabel="head")
        legend = "blue helps, orange hurts" if signed else "darker matters more"
        if len(sure := _sure(run, metric)):
            axes.scatter(sure[:, 0], sure[:, 1], s=12, color="black", edgecolors="white", linewidths=0.8)
            legend += f"; dot: max-T p < {level_of(run):g}"
        legend += "; grey: not ablated" if mean.isnull().any() else ""
        axes.set_title(f"Mean effect on {visible(metric)} of ablating each head ({legend})")
        bar = figure.colorbar(image, cax=axes.inset_axes((1.015, 0, 0.015, 1)))
        bar.set_label(f"effect on {_measured(run, metric)}")
    return figure


def _sure(run: "Run", metric: str) -> Int[np.ndarray, "head 2"]:
    """Where on the map (across, down) the heads are that are beyond chance."""
    layers, heads = list(run.data["layer"].values), list(run.data["head"].values)
    sure = [head for head, claim in claims(run, metric).items() if claim.p_adjusted < level_of(run)]
    return np.array([(layers.index(layer), heads.index(head)) for layer, head, _ in sure], dtype=int).reshape(-1, 2)


def strongest(run: "Run", metric: str, n: int = 12) -> Figure:
    """The n heads with the largest mean effects: a dot for each prompt, the mean and its interval."""
    heads = top_heads(run, metric, n)
    with _style(metric):
        figure, (axes,) = _figure(1, width=7.5, height=0.32 * len(heads) + 1.3)
        axes.axvline(0, color="0.5", linewidth=0.8)
        for row, head in enumerate(heads):
            _strip(axes, run, metric, head, row)
        axes.set_yticks(range(len(heads)), map(str, heads))
        axes.invert_yaxis()
        spread = estimate(run, metric, heads[0]).kind if heads else ""
        axes.set(xlabel=f"effect on {_measured(run, metric)} (one dot per prompt; lines: mean, {spread})")
        doubtful = any(claims(run, metric).get(head, Claim()).p_adjusted >= level_of(run) for head in heads)
        doubt = f" (hollow: may be chance, max-T p ≥ {level_of(run):g})" if doubtful else ""
        axes.set_title(f"Largest mean effects on {visible(metric)}{doubt}")
    return figure


def compare(run: "Run", prompt: int) -> Figure:
    """Rollout, mean pattern and the top head on the same tokens."""
    tokens = [visible(token) for token in run.data["token"].values[prompt][: int(run.data["length"].values[prompt])]]
    panels = dict(_panels(run, prompt))
    side = min(12.0, max(3.2, 0.24 * len(tokens) + 1.2))
    with _style("".join(map(short, tokens))):
        figure, all_axes = _figure(len(panels), width=side * len(panels), height=side + 0.6)
        for axes, (title, weights) in zip(all_axes, panels.items(), strict=True):
            _matrix(axes, title, weights, tokens)
    return figure


def _all(run: "Run") -> Iterator[tuple[str, Figure]]:
    for metric in by_lead(run):
        plain = "".join(letter if letter.isalnum() else "_" for letter in metric)
        yield f"effect_{plain}", effect_map(run, metric)
        yield f"strongest_{plain}", strongest(run, metric)
    if "pattern" in run.data:
        yield "rollout", compare(run, asked_prompts(run)[0])


def _panels(run: "Run", prompt: int) -> Iterator[tuple[str, Float[np.ndarray, "query key"]]]:
    pattern, head = pattern_of(run, prompt), first_head(run)
    yield "Attention rollout", rollout_of(run, prompt)
    yield "Mean pattern", mean_pattern(pattern)
    if head is not None:
        most = "effect" in run.data and head == top_heads(run, lead_metric(run), 1)[0]
        title = f"{head}, largest effect on {visible(lead_metric(run))}" if most else str(head)
        yield title, pattern.sel(layer=head.layer, head=head.head).values.astype(float)


def _matrix(axes: Axes, title: str, weights: Float[np.ndarray, "query key"], tokens: list[str]) -> None:
    axes.imshow(weights, cmap=_ramp("#ffffff", _TONE["helps"]), norm=colors.PowerNorm(0.5, 0, weights.max()))
    step = -(-len(tokens) // _LABELS)
    shown, labels = range(0, len(tokens), step), [short(token) for token in tokens[::step]]
    axes.set_xticks(shown, labels, rotation=90, fontsize=8)
    axes.set_yticks(shown, labels, fontsize=8)
    axes.set(xlabel="key (looked at)", ylabel="query (looks)")
    axes.set_title(f"{title}\n(darkest = {weights.max():.2f}, shade by square root)", fontsize=10)


def _strip(axes: Axes, run: "Run", metric: str, head: Head, row: int) -> None:
    effect, about = effect_of(run, metric, head), estimate(run, metric, head)
    offset = (np.arange(len(effect)) * 7 % 5 - 2) * 0.06
    tone, claim = _TONE[verdict(run, metric, about.mean)], claims(run, metric).get(head, Claim())
    if claim.p_adjusted >= level_of(run):  # hollow: may be chance
        axes.scatter(effect, row + offset, s=14, alpha=0.8, facecolors="none", edgecolors=tone, linewidths=0.8)
    else:
        axes.scatter(effect, row + offset, s=16, alpha=0.5, linewidths=0, color=tone)
    axes.plot([about.mean] * 2, [row - 0.3, row + 0.3], color="black", linewidth=1.6)
    if np.isfinite(about.low):
        axes.plot([about.low, about.high], [row, row], color="black", linewidth=0.9)


def _measured(run: "Run", metric: str) -> str:
    return f"{visible(metric)}, {units(run, metric)}" if units(run, metric) else visible(metric)


def _map_of(run: "Run", metric: str) -> colors.Colormap:
    if sense(run, metric) == 0:
        return _ramp("#ffffff", _TONE["matters"])
    below, above = ("hurts", "helps") if sense(run, metric) > 0 else ("helps", "hurts")
    return _ramp(_TONE[below], "#ffffff", _TONE[above])


def _ramp(*tones: str) -> colors.Colormap:
    return colors.LinearSegmentedColormap.from_list("harness", tones)


def _figure(columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure that belongs to no window and no global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(1, columns, column + 1) for column in range(columns)]


@contextmanager
def _style(text: str) -> Iterator[None]:
    with mpl.rc_context({**_STYLE, "font.family": families(text)} if text else _STYLE):
        yield
