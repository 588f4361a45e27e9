"""Figure of rollout, mean pattern and the top head on the same tokens."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.attribution.saved_rollout import rollout_of
from harness.hooks import Head
from harness.views.figures.base import ATTENTION, Look, panels, ramp, style
from harness.views.selection import first_head
from harness.views.text import short, visible

if TYPE_CHECKING:
    from harness.results import Run

_LABELS = 64  # more tokens than this are labelled every second, third … one


def compare(run: "Run", prompt: int, look: Look) -> Figure:
    """Show rollout, mean pattern and the top head on the same tokens; of an encoder-decoder each stack's mean."""
    drawn = list(_panels(run, prompt))
    longest = max(map(len, (weights for _, _, weights in drawn)))
    side = min(12.0, max(3.2, 0.24 * longest + 1.2), look.width / (len(drawn) if look.titles else 1))
    rows, columns = (1, len(drawn)) if look.titles else (len(drawn), 1)
    text = "".join(short(visible(token)) for stack in run.layers for token in run.tokens(prompt, stack)[1])
    with style(text, look):
        figure, all_axes = panels(rows, columns, side * columns, (side + 0.6) * rows)
        for axes, (title, stack, weights) in zip(all_axes, drawn, strict=True):
            queries, keys = ([visible(token) for token in side] for side in run.tokens(prompt, stack))
            if "sink" in run.data:
                weights, keys = np.column_stack([weights, np.clip(1 - weights.sum(axis=1), 0, 1)]), [*keys, "(sink)"]
            _matrix(axes, title, weights, queries, keys, look)
    return figure


def _panels(run: "Run", prompt: int) -> Iterator[tuple[str, str, Float[np.ndarray, "query key"]]]:
    """Yield title, stack and weights of each panel."""
    head = first_head(run)
    for stack in run.layers:
        if not stack:
            yield "Attention rollout", "", rollout_of(run, prompt)
        yield f"Mean {stack} pattern".replace("  ", " "), stack, run.mean_pattern(prompt, stack)
    if head is not None:
        pattern = run.pattern(prompt, head.stack).sel(layer=head.layer, head=head.head)
        yield _title(run, head), head.stack, pattern.values.astype(float)


def _title(run: "Run", head: Head) -> str:
    most = "effect" in run.data and head in run.top_heads(run.lead_metric, 1)
    return f"{head}, largest effect on {visible(run.lead_metric)}" if most else str(head)


def _matrix(
    axes: Axes, title: str, weights: Float[np.ndarray, "query key"], queries: list[str], keys: list[str], look: Look
) -> None:
    axes.imshow(weights, cmap=ramp("#ffffff", ATTENTION), norm=colors.PowerNorm(0.5, 0, 1))
    for tokens, ticks, turn in ((keys, axes.set_xticks, 90), (queries, axes.set_yticks, 0)):
        step = -(-len(tokens) // _LABELS)
        ticks(range(0, len(tokens), step), [short(t) for t in tokens[::step]], rotation=turn, fontsize=look.small)
    axes.set(xlabel="key (looked at)", ylabel="query (looks)")
    axes.set_title(f"{title}\n(shade by square root, 0 to 1)", fontsize=look.letters)
