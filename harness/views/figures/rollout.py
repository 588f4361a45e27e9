"""Figure of rollout, mean pattern and the top head on the same tokens."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from harness.attribution.saved_rollout import rollout_of
from harness.hooks import Head
from harness.views.charts.describe import in_full
from harness.views.figures.base import Look
from harness.views.figures.patterns import Matrix, matrices
from harness.views.selection import first_head
from harness.views.text import short, visible

if TYPE_CHECKING:
    from harness.results import Run


def compare(run: "Run", prompt: int, look: Look) -> Figure:
    """Show rollout, mean pattern and the top head on the same tokens; of an encoder-decoder each stack's mean."""
    return matrices(rollout_panels(run, prompt), look)


def rollout_panels(run: "Run", prompt: int) -> list[Matrix]:
    """Return the matrices of `compare`; a learnt sink is the last column."""
    made = []
    for title, stack, weights in _weights(run, prompt):
        queries, keys = ([short(visible(token)) for token in side] for side in run.tokens(prompt, stack))
        if "sink" in run.data:
            weights, keys = np.column_stack([weights, np.clip(1 - weights.sum(axis=1), 0, 1)]), [*keys, "(sink)"]
        made.append(Matrix(title, weights, queries, keys))
    return made


def _weights(run: "Run", prompt: int) -> Iterator[tuple[str, str, Float[np.ndarray, "query key"]]]:
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
    return f"{head}, largest effect on {in_full(run.lead_metric)}" if most else str(head)
