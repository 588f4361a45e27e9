"""The last block where it is read: what its linear layers make of other positions, nobody looks at.

Keys and values of the last block are read by every later position, all else only where a metric is read. So its other
linear layers run on the scored positions alone, and leave zeros elsewhere.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.metrics import Targets
from harness.models import Model

#: Rows are multiplied in multiples of this, so that a row's product does not depend on how many others are multiplied
#: with it (products of one or a few rows take another path, with other rounding).
_MULTIPLE = 16
#: Of more positions than this share nothing is saved.
_WORTH = 0.75


@contextmanager
def read_at_targets(model: Model, targets: Targets, shape: torch.Size) -> Iterator[None]:
    """While this lasts, the last block is right at the targets, in as many copies of the rows [row, position] as come
    along. The mean of a text reads all positions, and is left alone."""
    n_rows, length = shape
    where = targets.row * length + targets.position
    if model.kind == "embedding" or not 0 < len(where) <= _WORTH * n_rows * length:
        yield
        return
    layers = hooks.beside_keys_and_values(model.bridge)
    before = [vars(layer).get("forward") for layer in layers]
    try:
        for layer in layers:
            vars(layer)["forward"] = _at(where, shape, layer.forward)
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            vars(layer).pop("forward", None)
            if forward is not None:
                vars(layer)["forward"] = forward


def _at(where: Tensor, shape: torch.Size, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def narrow(x: Tensor) -> Tensor:
        if x.ndim != 3 or x.shape[1] != shape[1] or len(x) % shape[0]:
            return forward(x)
        copies = torch.arange(len(x) // shape[0], device=x.device) * shape.numel()
        read = (copies[:, None] + where).flatten()
        made = forward(in_multiples(x.flatten(0, 1)[read]))[: len(read)]
        return made.new_zeros(len(x) * shape[1], made.shape[-1]).index_copy_(0, read, made).unflatten(0, x.shape[:2])

    return narrow


def in_multiples(rows: Float[Tensor, "row d"]) -> Float[Tensor, "more d"]:
    """The rows with zeros after them, as many as a product wants."""
    return torch.nn.functional.pad(rows, (0, 0, 0, -len(rows) % _MULTIPLE))
