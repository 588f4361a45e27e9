"""Skip blocks of a model's own forward, and let the rows of more interventions join on the way.

A chunk of interventions is one batch that grows: an intervention changes nothing before its first block, so its rows
join there, with the clean inputs of that block. No block runs on rows that are still clean.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from harness import hooks
from harness.hooks.block_stream import first_of as first_of
from harness.hooks.block_stream import with_first as with_first
from harness.hooks.forward import replaced
from harness.models import Model

#: The positional and keyword arguments of a block.
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def skip_blocks(blocks: Sequence[Any], outputs: Sequence[Any]) -> AbstractContextManager[None]:
    """Within this context, these blocks do nothing but return the outputs."""

    def constant(output: Any) -> Callable[..., Any]:
        return lambda *args, **kwargs: output

    return replaced({block: constant(output) for block, output in zip(blocks, outputs, strict=False)})


def join_rows(inputs: Arguments, clean: Arguments, n_rows: int, copies: int, per_row: Mapping[str, int]) -> Arguments:
    """Append copies of a block's `clean` inputs to its `inputs`, until there are `copies` of the rows.

    Both have the same structure; the first rows of `inputs` are those of interventions that began before. Masks differ
    between rows (padding) and must grow with them; tensors that all rows share (rotary angles, biases by distance) must
    not. `per_row` (`harness.models.Traits`) says by how many rows a tensor grows per row; one that it does not name
    grows if its first dimension is the number of rows.
    """

    def grow(value: Any, clean: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            each = per_row.get(path, int(clean.ndim > 1 and len(clean) == n_rows))
            if not each or len(clean) != each * n_rows:
                return value
            missing = copies - len(value) // len(clean)
            return torch.cat([value, clean.repeat(missing, *[1] * (clean.ndim - 1))]) if missing else value
        if type(value) in (tuple, list):
            pairs = enumerate(zip(value, clean, strict=True))
            return type(value)(grow(*pair, f"{path}.{number}") for number, pair in pairs)
        if type(value) is dict:
            return {key: grow(item, clean[key], f"{path}.{key}") for key, item in value.items()}
        return value

    return grow(inputs[0], clean[0], ""), grow(inputs[1], clean[1], "")


def repeat_source_mask(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """Repeat the source's mask, an input of the decoder stack, for the rows that joined in the encoder."""
    states, mask = kwargs["encoder_hidden_states"], kwargs["encoder_attention_mask"]
    return args, {**kwargs, "encoder_attention_mask": mask.repeat(len(states) // len(mask), 1)}


def stream_blocks(model: Model) -> range:
    """Return the blocks of the stream that logits are read from: not those of an encoder-decoder's encoder."""
    return range(model.shape.n_encoder_layers, len(hooks.blocks(model.bridge)))
