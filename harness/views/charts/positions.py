"""Effects of heads ablated at one position at a time: the strongest heads down, one prompt's tokens across."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from harness.hooks import Head
from harness.results.schema import by_head
from harness.views.charts.describe import Described, chart, in_full, measured, numbers, place, plain_name
from harness.views.selection import shown_prompts
from harness.views.text import visible

if TYPE_CHECKING:
    from harness.results import Run


def positions(run: "Run") -> Iterator[Described]:
    """Describe the effects by position on the prompt that is shown first, one chart for each metric."""
    if "position_effect" not in run.data:
        return
    prompt = shown_prompts(run)[0]
    tokens = [visible(token) for token in run.tokens(prompt)[0]]
    for metric in map(str, run.data["metric"].values):
        strongest = strongest_anywhere(run, metric)
        values = np.array([effect[prompt, : len(tokens)] for effect in strongest.values()])
        panel = {
            "name": "",
            "rows": list(strongest),
            "columns": tokens,
            "values": numbers(values),
            "rowHeads": [place(Head.parse(name)) for name in strongest],
        }
        yield chart(
            run,
            "heat",
            f"positions_{plain_name(metric)}",
            "positions",
            f"Effect of ablating heads at one position, {in_full(metric)}",
            f"Effect on {measured(run, metric)} on prompt {prompt}; rows: the heads with the largest effect at some "
            "position, columns: the token at which the head is ablated.",
            panels=[panel],
            scale="effect",
            sense=run.sense(metric),
            unit=run.unit(metric).strip(),
            value=f"effect on {measured(run, metric)}",
            axes=["head", "token"],
            prompt=prompt,
        )


def strongest_anywhere(run: "Run", metric: str, n: int = 12) -> dict[str, Float[np.ndarray, "prompt position"]]:
    """Return the n heads with the largest mean effect at some position, with their effects by position ablated; NaN in
    padding. Means are over the prompts that have the position."""
    heads, values = by_head(run.data["position_effect"].sel(metric=metric))
    names = list(map(str, heads))
    by_name = np.moveaxis(values, -1, 0)
    there = np.isfinite(by_name)
    mean = np.where(there, by_name, 0).sum(1) / np.maximum(there.sum(1), 1)
    size = np.abs(mean).max(axis=-1)
    order = [at for at in np.argsort(-size, kind="stable") if there[at].any()]
    return {names[at]: by_name[at] for at in order[:n] if size[at] > 0 or not size.any()}
