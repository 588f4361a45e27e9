"""Which tokens are taken away together: one at a time, or the tokens of a named part of a prompt."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from harness.attribution.example import Example

#: The nodes of each part.
Parts = Sequence[Sequence[int]]


def each_token(example: Example) -> Parts:
    """Every token by itself."""
    return [[node] for node in range(len(example.nodes))]


def members(example: Example, parts: Parts) -> Bool[np.ndarray, "part node"]:
    """Which nodes are in which part."""
    inside = np.zeros((len(parts), len(example.nodes)), dtype=bool)
    for row, part in zip(inside, parts, strict=True):
        row[list(part)] = True
    return inside


def chunks(example: Example, n: int) -> Iterator[slice]:
    """The parts that go through the model together."""
    size = example.at_once()
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def of_rows(example: Example, inside: Bool[np.ndarray, "part node"]) -> tuple[Tensor, Tensor]:
    """The same for each row of each copy, source and own tokens apart: [part × row, source_position] and [part × row,
    position]."""
    rows = torch.as_tensor(inside, device=example.model.device).repeat_interleave(len(example.rows), 0)
    return rows[:, : example.nodes.source], rows[:, example.nodes.source :]
