"""Sets of tokens that are removed together: one token at a time, or those of a named part of a prompt."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from harness.attribution.example import Example

#: The nodes of each part.
Parts = Sequence[Sequence[int]]


def each_token(example: Example) -> Parts:
    """Return every token as a part of its own."""
    return [[node] for node in range(len(example.nodes))]


def members(example: Example, parts: Parts) -> Bool[np.ndarray, "part node"]:
    """Return which nodes are in which part, as a mask."""
    inside = np.zeros((len(parts), len(example.nodes)), dtype=bool)
    for row, part in zip(inside, parts, strict=True):
        row[list(part)] = True
    return inside


def chunks(example: Example, n: int) -> Iterator[slice]:
    """Cut n parts into those that go through the model together."""
    size = example.at_once()
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def of_rows(example: Example, inside: Bool[np.ndarray, "part node"]) -> tuple[Tensor, Tensor]:
    """Repeat the mask for each row of each copy: [part × row, source_position] and [part × row, position]."""
    rows = torch.as_tensor(inside, device=example.model.device).repeat_interleave(len(example.rows), 0)
    return rows[:, : example.nodes.source], rows[:, example.nodes.source :]
