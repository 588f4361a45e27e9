"""Run a model once and capture the activations at its hook points."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness import hooks
from harness.attention.scores import masked_to_infinity
from harness.hooks import Head, Site
from harness.hooks.block_stream import watch_stream
from harness.hooks.softmax import Edit, at_softmax
from harness.models import Inputs, Model
from harness.prompts import Prompts

#: Kinds of activations: those at a head's hook points, the keys that the mask allows, and the residual stream.
Kind = Literal["pattern", "z", "q", "k", "v", "scores", "allowed", "resid"]

_OF_ALL_HEADS = ("resid", "allowed")  # have no axis for heads

#: A hook point's name, and a function of its tensor and the point.
Watch = tuple[str, Callable[..., None]]


class Variable(NamedTuple):
    """One kind of activation in one stack: its name and dimensions in the arrays.

    `pattern` is 0 in padding, all others are NaN there. `scores` are −∞ at masked keys; `allowed` [prompt, layer,
    query, key] is 1 at keys that the mask allows in any head, 0 elsewhere and in padding. `resid` [prompt, depth,
    position, d_model] is the input of the block of this number, at the last depth the output of the last block.
    """

    kind: Kind
    stack: str

    @property
    def name(self) -> str:
        return hooks.variable_name(self.kind, self.stack)

    @property
    def dims(self) -> tuple[str, ...]:
        if self.kind == "resid":
            return ("prompt", "depth", "source_position" if self.stack == "encoder" else "position", "d_model")
        axes = hooks.axes(self.kind, self.stack)
        return ("prompt", "layer", *sorted(axes, key=lambda axis: "head" not in axis or axis == "d_head"))

    @property
    def padding(self) -> float:
        return 0.0 if self.kind in ("pattern", "allowed") else np.nan


def variables(model: Model, kinds: Iterable[Kind]) -> list[Variable]:
    """Return the variables of these kinds in every stack; cross attention has no residual stream of its own."""
    return [
        Variable(kind, stack) for kind in kinds for stack in model.shape.stacks if (kind, stack) != ("resid", "cross")
    ]


def sizes(model: Model, prompts: Prompts) -> dict[str, int]:
    """Return the size of each dimension when these prompts are run."""
    shape = model.shape
    size = {
        "prompt": len(prompts),
        "layer": shape.depth,
        "depth": shape.depth + 1,
        "head": shape.n_heads,
        "kv_head": shape.n_kv_heads,
        "d_head": shape.d_head,
        "d_model": shape.d_model,
        "position": prompts.token_id.shape[1],
    }
    if prompts.source is not None:
        size["source_position"] = prompts.source.token_id.shape[1]
    return size | {axis: size[position] for axis, position in hooks.POSITIONS.items() if position in size}


@torch.no_grad()
def activations(
    model: Model,
    prompts: Prompts,
    kinds: Sequence[Kind] = ("pattern",),
    dtype: str = "float32",
    heads: Sequence[Head] | None = None,
) -> dict[str, np.ndarray]:
    """Return the activations of one forward of a batch of prompts, by name of the `Variable`.

    With `heads`, everything but the patterns is captured for these only (of key/value heads, those that they read; of
    the residual stream, the inputs of their layers) and NaN elsewhere; so are layers that a stack does not have. Raises
    `RuntimeError` if a hook point did not fire.
    """
    prompts.check_model(model)
    size, wanted = sizes(model, prompts), variables(model, kinds)
    inputs, precision = prompts.inputs(model.device), getattr(torch, model.spec.dtype)
    arrays = {
        each.name: torch.full([size[dim] for dim in each.dims], torch.nan, dtype=getattr(torch, dtype))
        for each in wanted
    }
    chosen = {(each, at): _wanted(model, each, at, heads) for each in wanted for at in range(_n_places(model, each))}
    awaited = {place for place, some in chosen.items() if some}

    def keep(each: Variable, index: int, tensor: Tensor) -> None:
        tidy = _tidy(each, tensor, inputs)
        which = slice(None) if each.kind in _OF_ALL_HEADS else chosen[each, index]
        arrays[each.name][:, index, which] = tidy[:, which].to(arrays[each.name])
        awaited.discard((each, index))

    with ExitStack() as stack:
        watches: list[Watch] = []
        scores: dict[Site, Edit] = {}
        for each, index in list(awaited):
            kept, site = partial(keep, each, index), Site(index, each.stack)
            if each.kind == "resid":
                stack.callback(_between_blocks(model, each.stack, index, kept).remove)
            elif each.kind in ("scores", "allowed"):
                look = _look_at_scores if each.kind == "scores" else _look_at_mask
                scores[site] = partial(look, kept, size[each.dims[-1]], precision)
            else:
                watches.append((hooks.hook_name(each.kind, site), partial(_look, kept)))
        stack.enter_context(model.bridge.hooks(fwd_hooks=watches))  # all at once: each call goes through every module
        if scores:
            stack.enter_context(at_softmax(model.bridge, scores))
        model.forward(inputs)
    if awaited:
        each, index = min(awaited)
        raise RuntimeError(f"{each.name} {index} of {model.name} did not fire ({len(awaited)} are silent)")
    return {name: array.numpy() for name, array in arrays.items()}


def _n_places(model: Model, each: Variable) -> int:
    """Return how many layers (or depths) of a stack have a variable."""
    return model.shape.stacks[each.stack] + (each.kind == "resid")


def _look(keep: Callable[[Tensor], None], tensor: Tensor, hook: Any) -> None:
    keep(tensor)


def _look_at_scores(keep: Callable[[Tensor], None], n_keys: int, precision: torch.dtype, scores: Tensor) -> Tensor:
    """Keep the scores of an attention, and return them unchanged."""
    keep(masked_to_infinity(scores, n_keys, precision))
    return scores


def _look_at_mask(keep: Callable[[Tensor], None], n_keys: int, precision: torch.dtype, scores: Tensor) -> Tensor:
    """Keep which keys the mask allows in any head, and return the scores unchanged."""
    keep(torch.isfinite(masked_to_infinity(scores, n_keys, precision)).any(dim=1).to(scores.dtype))
    return scores


def _between_blocks(model: Model, stack: str, depth: int, keep: Callable[[Tensor], None]) -> Any:
    """Hook the input of a block, or the output of the last one of its stack."""
    site = Site(depth, stack, "resid")
    return watch_stream(hooks.blocks(model.bridge)[model.shape.block(site)], model.shape.leaves(site), keep)


def _tidy(each: Variable, tensor: Tensor, inputs: Inputs) -> Tensor:
    """Return one layer's activation with its heads first and its padding filled."""
    axes = list(each.dims[2:])
    if "d_head" in axes:
        tensor = tensor.transpose(1, 2)  # hook points have positions before heads
    masks = {"position": inputs.mask, "source_position": inputs.source_mask}
    for at, axis in enumerate(axes, start=1):
        real = masks.get(hooks.POSITIONS.get(axis, axis))
        if real is not None:
            there = real.bool().view(len(real), *[1] * (at - 1), -1, *[1] * (len(axes) - at))
            tensor = tensor.masked_fill(~there, each.padding)
    return tensor


def _wanted(model: Model, each: Variable, index: int, heads: Sequence[Head] | None) -> list[int]:
    """Return which heads (or key/value heads) of a layer are kept; of a residual stream all or none."""
    shared = model.shape.n_heads // model.shape.n_kv_heads if "kv_head" in each.dims else 1
    all_heads = list(range(model.shape.n_heads // shared))
    if heads is None or each.kind == "pattern":
        return all_heads
    mine = {head.head // shared for head in heads if (head.layer, head.stack) == (index, each.stack)}
    return all_heads if mine and each.kind in _OF_ALL_HEADS else sorted(mine)
