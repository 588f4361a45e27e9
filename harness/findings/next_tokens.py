"""What a model says next with a cell of a map replaced: its most likely token at the last scored position."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.findings.finding import Finding
from harness.findings.format import count

if TYPE_CHECKING:
    from harness.findings.position_maps import PositionMap
    from harness.results import Run

#: Cells of a map that are described.
CELLS = 5


@dataclass(frozen=True)
class NextToken:
    """A cell of a map, the number of prompts on which its most likely token is another, and the commonest such pair:
    without and with the replacement, on `n_alike` prompts."""

    row: int
    column: int
    n_changed: int
    n_prompts: int
    before: str = ""
    after: str = ""
    n_alike: int = 0

    @property
    def in_words(self) -> str:
        """``another most likely token on 3 of 8 prompts, most often “ Mary” to “ John” (2)``."""
        pair = f", most often “{self.before}” to “{self.after}” ({self.n_alike})" if self.n_changed else ""
        return f"another most likely token on {self.n_changed} of {count(self.n_prompts, 'prompt')}{pair}"


def next_tokens(run: "Run", of: "PositionMap") -> list[NextToken]:
    """Return the cells of a map with the largest mean effects, of those that every prompt has; none in runs without
    next tokens."""
    name = of.variable.replace("_effect", "_next_token")
    if name not in run.data:
        return []
    cells = np.flatnonzero(np.isfinite(of.values).all(axis=0))
    order = cells[np.argsort(-np.abs(of.mean.ravel()[cells]), kind="stable")][:CELLS]
    replaced = run.data[name].sel(stack=of.stack) if of.stack else run.data[name]
    prompts = slice(None) if of.prompt is None else slice(of.prompt, of.prompt + 1)
    replaced, own = replaced.values[prompts], run.data["next_token"].values[prompts]
    return [_cell(of, replaced, own, *map(int, np.unravel_index(at, of.mean.shape))) for at in order]


def _cell(of: "PositionMap", replaced: np.ndarray, own: np.ndarray, row: int, column: int) -> NextToken:
    """Describe a cell; of several positions of a prompt the first that changes its token counts."""
    pairs = []
    for before, after, where in zip(own, replaced[:, row], of.where[column], strict=True):
        pairs += [(str(before), str(new)) for new in after[where] if new != before][:1]
    if not pairs:
        return NextToken(row, column, 0, len(own))
    ((before, after), n_alike), *_ = sorted(Counter(pairs).items(), key=lambda each: (-each[1], each[0]))
    return NextToken(row, column, len(pairs), len(own), before, after, n_alike)


def says(run: "Run", of: "PositionMap") -> Finding | None:
    """State the next token with the strongest cell of a map replaced; None in runs without next tokens."""
    cells = next_tokens(run, of)
    if not cells:
        return None
    first, done = cells[0], "patched" if "corrupted" in run.data else "ablated"
    text = f"With the {of.name} {done} {of.place(first.row)} {of.at[first.column]}, the model has {first.in_words}."
    return Finding(text, first.n_changed / first.n_prompts, np.nan, np.nan, of.variable)
