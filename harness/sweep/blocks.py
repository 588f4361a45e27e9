"""The plumbing of blocks: they are passed over, and rows join on the way, by hooks on the model's own forward."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from harness.models import Inputs, Model

#: What a block was given: positional and named arguments.
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Stop(Exception):
    """What was wanted from a forward is there; the rest of it need not run."""


def forward_until_stop(model: Model, given: Inputs, handles: Sequence[Any]) -> None:
    """The model's forward up to a `Stop`; the hooks are gone afterwards."""
    try:
        model.forward(given)
    except Stop:
        return
    finally:
        for handle in handles:
            handle.remove()
    raise RuntimeError("the model's forward ended without passing its last block")


@contextmanager
def passed_over(blocks: Sequence[Any], outputs: Sequence[Any]) -> Iterator[None]:
    """While this lasts, these blocks do nothing but give the outputs."""

    def giving(output: Any) -> Callable[..., Any]:
        return lambda *args, **kwargs: output

    try:
        for block, output in zip(blocks, outputs, strict=False):
            vars(block)["forward"] = giving(output)  # past the bridge, which would write it into the wrapped block
        yield
    finally:
        for block in blocks:
            vars(block).pop("forward", None)


def joined(given: Any, clean: Any, n_rows: int, copies: int) -> Any:
    """What a block is given, with copies of what the clean run gave it after it, until there are `copies` of the rows.

    `given` and `clean` hold the same things; the first rows of `given` are those of interventions that began before.
    Tensors without rows of their own (rotary angles, the biases of relative positions) stay as they are.
    """
    if isinstance(given, Tensor):
        if clean.ndim < 2 or len(clean) != n_rows:
            return given
        missing = copies - len(given) // n_rows
        return torch.cat([given, clean.repeat(missing, *[1] * (clean.ndim - 1))]) if missing else given
    if type(given) in (tuple, list):
        return type(given)(joined(*pair, n_rows, copies) for pair in zip(given, clean, strict=True))
    if type(given) is dict:
        return {key: joined(item, clean[key], n_rows, copies) for key, item in given.items()}
    return given


def masked_along(_: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Arguments:
    """What a decoder stack is given, the mask of the source with a row for each row that joined in the encoder."""
    states, mask = given["encoder_hidden_states"], given["encoder_attention_mask"]
    return args, {**given, "encoder_attention_mask": mask.repeat(len(states) // len(mask), 1)}


def first_of(output: Any) -> Tensor:
    """The hidden states in what a block gave."""
    return output[0] if isinstance(output, tuple) else output


def with_first(output: Any, first: Tensor) -> Any:
    """An output of the same form, with another tensor in it."""
    return (first, *output[1:]) if isinstance(output, tuple) else first
