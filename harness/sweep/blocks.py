"""Skip blocks of a model's own forward, and let the rows of more interventions join on the way.

A chunk of interventions is one batch that grows: the rows of an intervention join at the block where it begins, so that
no block runs on rows that are still clean.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from harness.hooks import first_of as first_of
from harness.hooks.forward import replaced, run_until_stop
from harness.models import Inputs, Model

#: What a block was given: positional and named arguments.
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def forward_until_stop(model: Model, given: Inputs, handles: Sequence[Any]) -> None:
    """The model's forward up to a `StopForward` in one of its hooks, which are gone afterwards."""
    if not run_until_stop(lambda: model.forward(given), handles):
        raise RuntimeError("the model's forward ended without passing its last block")


def passed_over(blocks: Sequence[Any], outputs: Sequence[Any]) -> AbstractContextManager[None]:
    """While this lasts, these blocks do nothing but return the outputs."""

    def giving(output: Any) -> Callable[..., Any]:
        return lambda *args, **kwargs: output

    return replaced({block: giving(output) for block, output in zip(blocks, outputs, strict=False)})


def joined(given: Arguments, clean: Arguments, n_rows: int, copies: int, per_row: Mapping[str, int]) -> Arguments:
    """What a block is given, with copies of what the clean run gave it after it, until there are `copies` of the rows.

    `given` and `clean` hold the same things; the first rows of `given` are those of interventions that began before.
    Tensors that rows share (rotary angles, biases by distance) stay as they are: `per_row` says which grow with rows
    (see `harness.models.Traits`). One that it does not name grows if it has a row for each row.
    """

    def grow(given: Any, clean: Any, path: str) -> Any:
        if isinstance(given, Tensor):
            each = per_row.get(path, int(clean.ndim > 1 and len(clean) == n_rows))
            if not each or len(clean) != each * n_rows:
                return given
            missing = copies - len(given) // len(clean)
            return torch.cat([given, clean.repeat(missing, *[1] * (clean.ndim - 1))]) if missing else given
        if type(given) in (tuple, list):
            pairs = enumerate(zip(given, clean, strict=True))
            return type(given)(grow(*pair, f"{path}.{number}") for number, pair in pairs)
        if type(given) is dict:
            return {key: grow(item, clean[key], f"{path}.{key}") for key, item in given.items()}
        return given

    return grow(given[0], clean[0], ""), grow(given[1], clean[1], "")


def masked_along(_: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Arguments:
    """What a decoder stack is given, the mask of the source with a row for each row that joined in the encoder."""
    states, mask = given["encoder_hidden_states"], given["encoder_attention_mask"]
    return args, {**given, "encoder_attention_mask": mask.repeat(len(states) // len(mask), 1)}


def with_first(output: Any, first: Tensor) -> Any:
    """An output of the same form, with another tensor in it."""
    return (first, *output[1:]) if isinstance(output, tuple) else first
