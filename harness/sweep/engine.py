"""One forward carries many interventions, and no block before the first of them runs again.

A head in layer l changes nothing before layer l. So the clean run is made once and keeps what enters each block;
then, for a chunk of interventions, the model's own forward runs with the blocks before the first intervention passed
over, and at each layer one more copy of the prompts joins for each intervention that begins there. All rows go on
together, each with its own edit of z. After the last block only the scored positions are kept, and the model's own
head (final norm, unembedding, soft caps) reads them in pieces.

Everything is done by hooks on whole blocks of the model's own forward, so nothing here knows a family.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from harness import ablation, hooks
from harness.ablation import Check, Edit, Intervention, asked
from harness.config import RequestError
from harness.metrics import Function, Targets, metric, name_of
from harness.models import Model
from harness.prompts import Prompts

#: Rows of logits that are held at once.
READ_AT_ONCE = 512
#: Rows are read in multiples of this, so that a row's logits do not depend on how many others are read with it
#: (matrix products of one or a few rows take another path, with other rounding).
READ_MULTIPLE = 16

Resid = Float[Tensor, "target d_model"]


class _Stop(Exception):
    """What was wanted from a forward is there; the rest of it need not run."""


@dataclass
class Clean:
    """One clean forward of a batch: what enters each block, what each block gave, and the scored positions' end.

    `resid` holds [prompt, position, d_model] for each layer, `end` the residual stream after the last block at the
    targets, `logits` what the model's head makes of it (only when a metric compares with it).
    """

    token_id: Int[Tensor, "prompt position"]
    mask: Int[Tensor, "prompt position"]
    segment: Int[Tensor, "prompt position"]
    targets: Targets
    resid: list[Tensor]
    outputs: list[Any]
    end: Resid
    logits: Tensor | None = None


@torch.no_grad()
def run_clean(model: Model, prompts: Prompts, metrics: Sequence[str | Function]) -> Clean:
    """The clean forward of a batch of prompts."""
    rows, owner = asked(model, prompts)
    token_id = torch.as_tensor(rows.token_id, device=model.device)
    mask, segment = (token_id >= 0).long(), torch.as_tensor(rows.segment, device=model.device)
    targets = Targets.of(rows, owner, model.device)
    clean = Clean(token_id.clamp(min=0), mask, segment, targets, [], [], torch.empty(0, 0))

    def enter(_: Any, args: tuple, kwargs: dict) -> None:
        clean.resid.append(_hidden(args, kwargs))

    def leave(_: Any, args: tuple, output: Any) -> None:
        clean.outputs.append(output)
        if len(clean.outputs) == model.shape.n_layers:
            clean.end = _end(model, clean, _first(output)[None])
            raise _Stop

    blocks = hooks.blocks(model.bridge)
    handles = [block.register_forward_pre_hook(enter, with_kwargs=True) for block in blocks]
    handles += [block.register_forward_hook(leave) for block in blocks]
    _forward_until_stop(model, clean, handles)
    if any(callable(one) or metric(one).distance for one in metrics):
        clean.logits = torch.cat([logits for _, logits in _logits(model, clean, clean.end)])
    return clean


@torch.no_grad()
def run_ablated(model: Model, clean: Clean, chunk: Sequence[Intervention], check: Check) -> Resid:
    """The end of the residual stream at the targets, intervention after intervention: [chunk × target, d_model].

    `chunk` is in order of first layer.
    """
    n_prompts, first = len(clean.token_id), chunk[0].first_layer
    joins = [sum(one.first_layer <= layer for one in chunk) for layer in range(model.shape.n_layers)]
    end: list[Tensor] = []

    def grow(layer: int, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Let the rows of this layer's interventions join, and give every row its prompt's mask."""
        before = joins[layer - 1] if layer else 0
        new = clean.resid[layer].repeat(joins[layer] - before, 1, 1)
        hidden = torch.cat([_hidden(args, kwargs), new]) if before else new
        args, kwargs = _expanded((args, kwargs), n_prompts, joins[layer])
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    def leave(_: Any, args: tuple, output: Any) -> None:
        end.append(_end(model, clean, _first(output).unflatten(0, (len(chunk), n_prompts))))
        raise _Stop

    blocks = hooks.blocks(model.bridge)
    with ExitStack() as stack:
        stack.enter_context(ablation.editing(model, _edits(chunk, n_prompts), check))
        stack.enter_context(_passed_over(blocks[:first], clean.outputs))
        handles = [
            block.register_forward_pre_hook(
                lambda _, args, kwargs, at=first + at: grow(at, args, kwargs), with_kwargs=True
            )
            for at, block in enumerate(blocks[first:])
        ]
        _forward_until_stop(model, clean, [*handles, blocks[-1].register_forward_hook(leave)])
    return end[0]


@torch.no_grad()
def run_plainly(model: Model, clean: Clean, one: Intervention) -> Resid:
    """The same for one intervention by a whole forward with nothing passed over: the reference."""
    end: list[Tensor] = []

    def leave(_: Any, args: tuple, output: Any) -> None:
        end.append(_end(model, clean, _first(output)[None]))
        raise _Stop

    with ablation.applied(model, one):
        _forward_until_stop(model, clean, [hooks.blocks(model.bridge)[-1].register_forward_hook(leave)])
    return end[0]


def tolerance(model: Model) -> float:
    """How far two ways to run the same intervention may be apart in a metric, by the model's precision."""
    return max(1e-3, 16 * torch.finfo(getattr(torch, model.spec.dtype)).eps)


@torch.no_grad()
def measure(
    model: Model, clean: Clean, end: Resid, metrics: Sequence[str | Function]
) -> Float[Tensor, "metric row prompt"]:
    """The metrics, one number per prompt, from the end of the residual stream [row × target, d_model]."""
    n_targets = len(clean.targets)
    values = end.new_empty((len(metrics), len(end)), dtype=torch.float32)
    for at, logits in _logits(model, clean, end):
        which = torch.arange(at.start, at.stop, device=end.device) % n_targets
        against = None if clean.logits is None else clean.logits[which]
        read = clean.targets.read(which, logits, against)
        for number, one in enumerate(metrics):
            values[number, at] = _checked(name_of(one), metric(one).compute(read), len(logits))
    return clean.targets.mean_by_prompt(values.unflatten(1, (-1, n_targets)))


def _checked(name: str, value: Any, n_targets: int) -> Tensor:
    """What a metric gave, if it is one finite number for each target."""
    if not isinstance(value, Tensor) or value.shape != (n_targets,):
        gave = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise RequestError("metrics", name, f"a metric gives a tensor [target], here of {n_targets}; this gave {gave}")
    if not torch.isfinite(value).all():
        raise FloatingPointError(f"{name}: NaN or infinite, from the model's logits")
    return value


def _logits(model: Model, clean: Clean, end: Resid) -> Iterator[tuple[slice, Float[Tensor, "row vocab"]]]:
    """What the model's own head makes of ends of the residual stream, some rows at a time.

    The model's forward runs on one token with every block passed over and the rows put in place of the last block's
    output; all that follows the blocks works on each position alone.
    """
    if model.kind == "embedding":
        yield slice(0, len(end)), end
        return
    blocks = hooks.blocks(model.bridge)
    token = clean.token_id[:1, :1]
    for start in range(0, len(end), READ_AT_ONCE):
        rows = slice(start, min(start + READ_AT_ONCE, len(end)))
        n = rows.stop - start
        filled = torch.nn.functional.pad(end[rows], (0, 0, 0, -n % READ_MULTIPLE))
        given = [*clean.outputs[:-1], _with_first(clean.outputs[-1], filled[None])]
        with _passed_over(blocks, given):
            yield rows, model.forward(token, torch.ones_like(token)).flatten(0, 1)[:n]


def _edits(chunk: Sequence[Intervention], n_prompts: int) -> dict[int, list[Edit]]:
    """For each layer, which rows get which head's z replaced."""
    edits: dict[int, list[Edit]] = {}
    for number, one in enumerate(chunk):
        rows = slice(number * n_prompts, (number + 1) * n_prompts)
        for edit in one.edits(rows):
            edits.setdefault(edit.head.layer, []).append(edit)
    return edits


def _end(model: Model, clean: Clean, hidden: Float[Tensor, "copy row position d_model"]) -> Resid:
    """What is read of the last block's output: the scored positions, or the mean over the tokens of each text."""
    if model.kind == "embedding":
        real = clean.mask[:, :, None].to(hidden.dtype)
        return ((hidden * real).sum(2) / real.sum(1)).flatten(0, 1)
    return hidden[:, clean.targets.row, clean.targets.position].flatten(0, 1)


# --- the plumbing of blocks -------------------------------------------------------------------------------------


def _forward_until_stop(model: Model, clean: Clean, handles: list[Any]) -> None:
    try:
        model.forward(clean.token_id, clean.mask, clean.segment)
    except _Stop:
        return
    finally:
        for handle in handles:
            handle.remove()
    raise RuntimeError("the model's forward ended without passing its last block")


@contextmanager
def _passed_over(blocks: Sequence[Any], outputs: Sequence[Any]) -> Iterator[None]:
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


def _hidden(args: tuple, kwargs: dict) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _with_first(output: Any, first: Tensor) -> Any:
    """An output of the same form, with another tensor in it."""
    return (first, *output[1:]) if isinstance(output, tuple) else first


def _expanded(value: Any, n_prompts: int, times: int) -> Any:
    """Every batch-sized tensor inside, `times` over; what has batch 1 is left to broadcast."""
    if isinstance(value, Tensor):
        batched = value.ndim > 1 and len(value) == n_prompts > 1
        return value.repeat(times, *[1] * (value.ndim - 1)) if batched else value
    if type(value) in (tuple, list):
        return type(value)(_expanded(item, n_prompts, times) for item in value)
    if type(value) is dict:
        return {key: _expanded(item, n_prompts, times) for key, item in value.items()}
    return value
