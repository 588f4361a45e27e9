"""Run one block of a model on streams other than the clean one, inside the model's own forward.

The blocks before it are skipped and the forward stops where nothing more is read, so a run costs one block.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.hooks import Site
from harness.hooks.forward import StopForward, run_until_stop
from harness.models import Model
from harness.sweep.blocks import Arguments, join_rows, skip_blocks
from harness.sweep.engine import Clean

#: The residual stream of copies of the rows.
Stream = Float[Tensor, "copy row position d_model"]
#: z, queries, keys or values of copies of the rows.
ByHead = Float[Tensor, "copy row position head d_head"]
#: A hook point's name, and a function of its tensor and the point.
Watch = tuple[str, Callable[..., Any]]

QKV: tuple[hooks.Kind, ...] = ("q", "k", "v")


def stream_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Float[Tensor, "row position d_model"]:
    """Return the stream among the arguments of a block."""
    return args[0] if args else kwargs["hidden_states"]


def with_stream(arguments: Arguments, stream: Float[Tensor, "row position d_model"]) -> Arguments:
    """Return a block's arguments with another stream."""
    args, kwargs = arguments
    return ((stream, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": stream})


class BlockRun:
    """Runs of block `layer` of a decoder on copies of the rows of a clean run."""

    def __init__(self, model: Model, clean: Clean, layer: int):
        self.model, self.clean, self.layer = model, clean, layer
        self.site = Site(layer)

    @property
    def entered(self) -> Float[Tensor, "row position d_model"]:
        """The clean stream that enters the block."""
        return stream_of(*self.clean.entered[self.layer])

    @torch.no_grad()
    def attention(self, stream: Stream) -> dict[str, ByHead]:
        """Return q, k and v (as at their hook points) and z (at W_O's input) on these streams."""
        kept: dict[str, Tensor] = {}
        watches = [self._watch(kind, lambda value, kind=kind: kept.__setitem__(kind, value.clone())) for kind in QKV]
        kept["z"] = self._z(stream, watches)
        return {kind: value.unflatten(0, (len(stream), -1)) for kind, value in kept.items()}

    @torch.no_grad()
    def z_with(self, replaced: dict[hooks.Kind, ByHead], stream: Stream | None = None) -> ByHead:
        """Return z on the clean stream (or `stream`) with queries, keys or values replaced."""
        copies = len(next(iter(replaced.values())))
        stream = self.entered.expand(copies, -1, -1, -1) if stream is None else stream
        watches = [self._watch(kind, lambda _, value=value: value.flatten(0, 1)) for kind, value in replaced.items()]
        return self._z(stream, watches).unflatten(0, (copies, -1))

    @torch.no_grad()
    def mlp_output(self, stream: Stream, z: ByHead) -> Stream:
        """Return the MLP's output on these streams, the attention's z held at `z`."""
        kept: list[Tensor] = []

        def leave(_: Any, args: Any, out: Tensor) -> None:
            kept.append(out.clone())
            raise StopForward

        written = hooks.mlp_output(self.model.bridge, Site(self.layer, part="mlp"))
        handles = [self._hook_output(lambda _: z.flatten(3).flatten(0, 1)), written.register_forward_hook(leave)]
        self._run(stream, handles)
        return kept[0].unflatten(0, (len(stream), -1))

    def _z(self, stream: Stream, watches: Sequence[Watch]) -> Float[Tensor, "rows position head d_head"]:
        kept: list[Tensor] = []

        def keep(z: Tensor) -> None:
            kept.append(z.clone())
            raise StopForward

        self._run(stream, [self._hook_output(keep)], watches)
        return kept[0].unflatten(2, (self.model.shape.n_heads, -1))

    def _watch(self, kind: hooks.Kind, look: Callable[[Tensor], Any]) -> Watch:
        return hooks.hook_name(kind, self.site), lambda value, hook: look(value)

    def _hook_output(self, change: Callable[[Tensor], Any]) -> Any:
        """Hook W_O's input, to read it, or to replace it by what `change` returns."""

        def before(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            made = change(args[0])
            return None if made is None else (made, *args[1:])

        return hooks.output_projection(self.model.bridge, self.site).register_forward_pre_hook(before)

    def _run(self, stream: Stream, handles: list[Any], watches: Sequence[Watch] = ()) -> None:
        """Run the block on these streams until a hook stops the forward."""
        clean, blocks, per_row = self.clean, hooks.blocks(self.model.bridge), self.model.traits.per_row

        def enter(_: Any, args: tuple, kwargs: dict) -> Arguments:
            grown = join_rows((args, kwargs), clean.entered[self.layer], clean.n_rows, len(stream), per_row)
            return with_stream(grown, stream.flatten(0, 1))

        handles = [blocks[self.layer].register_forward_pre_hook(enter, with_kwargs=True), *handles]
        watching = self.model.bridge.hooks(fwd_hooks=list(watches)) if watches else nullcontext()
        with skip_blocks(blocks[: self.layer], clean.outputs), watching:
            run_until_stop(self.model.forward, clean.inputs, handles)
