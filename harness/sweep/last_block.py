"""Run the last block's linear layers (except K and V) at scored positions only, and leave zeros elsewhere.

Every later position reads the last block's keys and values; what its other linear layers make of a position is read
only where a metric is scored.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.hooks.forward import replaced
from harness.models import Model
from harness.prompts.targets import Targets

#: Rows are multiplied in multiples of this, so that a row's product does not depend on how many others are multiplied
#: with it (products of one or a few rows take another path, with other rounding).
_MULTIPLE = 16
#: Above this share of positions nothing is saved.
_WORTH = 0.75


@contextmanager
def read_at_targets(model: Model, targets: Targets, shape: torch.Size) -> Iterator[None]:
    """Within this context, the last block's output is valid at the targets only, in any number of copies of the rows.

    `shape` is [row, position]. A model that pools all positions of a text is left as it is.
    """
    n_rows, length = shape
    where = targets.row * length + targets.position
    if model.kind == "embedding" or not 0 < len(where) <= _WORTH * n_rows * length:
        yield
        return
    layers = hooks.beside_keys_and_values(model.bridge)
    with replaced({layer: _at(where, shape, layer.forward) for layer in layers}):
        yield


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
    """Pad the rows with zeros to a multiple of `_MULTIPLE`."""
    return torch.nn.functional.pad(rows, (0, 0, 0, -len(rows) % _MULTIPLE))
