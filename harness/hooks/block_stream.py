"""The residual stream between blocks, and what an MLP writes to it: read them, or replace them."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jaxtyping import Float

if TYPE_CHECKING:
    from torch import Tensor
else:  # torch takes seconds to import, and the names of hook points do not need it
    Tensor = Any

#: Receives the stream; what it returns, if anything, takes the stream's place.
Watch = Callable[[Float[Tensor, "row position d_model"]], Float[Tensor, "row position d_model"] | None]


def first_of(output: Any) -> Any:
    """Return the hidden states in a block's output."""
    return output[0] if isinstance(output, tuple) else output


def with_first(output: Any, first: Any) -> Any:
    """Return a block's output with other hidden states."""
    return (first, *output[1:]) if isinstance(output, tuple) else first


def hidden_of(args: tuple[Any, ...], named: Mapping[str, Any]) -> Float[Tensor, "row position d_model"]:
    """Return the hidden states among a block's arguments, by position or by keyword."""
    return args[0] if args else named["hidden_states"]


def watch_input(block: Any, watch: Watch) -> Any:
    """Hook the stream that a block receives, by position or by keyword; return the torch handle."""

    def enter(_: Any, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        replaced = watch(hidden_of(args, named))
        if replaced is None:
            return None
        return ((replaced, *args[1:]), named) if args else (args, {**named, "hidden_states": replaced})

    return block.register_forward_pre_hook(enter, with_kwargs=True)


def watch_output(block: Any, watch: Watch) -> Any:
    """Hook the stream that a block returns, alone or first of a tuple; return the torch handle."""

    def leave(_: Any, args: tuple[Any, ...], output: Any) -> Any:
        replaced = watch(first_of(output))
        return None if replaced is None else with_first(output, replaced)

    return block.register_forward_hook(leave)


def watch_mlp_output(block: Any, last: Any, watch: Watch) -> list[Any]:
    """Hook what the last module of a block's MLP returns, in the shape of the stream; return the torch handles.

    OPT joins rows and positions to one axis there.
    """
    shape: list[Any] = []

    def note(stream: Tensor) -> None:
        shape[:] = [stream.shape]

    def leave(_: Any, args: tuple[Any, ...], out: Tensor) -> Tensor | None:
        replaced = watch(out.view(shape[0]))
        return None if replaced is None else replaced.view(out.shape)

    return [watch_input(block, note), last.register_forward_hook(leave)]


def watch_stream(block: Any, leaves: bool, watch: Watch) -> Any:
    """Hook the stream that leaves a block, or else that enters it; return the torch handle."""
    return (watch_output if leaves else watch_input)(block, watch)
