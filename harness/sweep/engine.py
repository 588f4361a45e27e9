"""One forward carries many interventions, and no block before the first of them runs again.

A head in layer l changes nothing before layer l. So the clean run is made once and keeps what enters each block;
then, for a chunk of interventions, the model's own forward runs with the blocks before the first intervention passed
over, and at each layer one more copy of the prompts joins for each intervention that begins there. All rows go on
together, each with its own edit of z. After the last block only the scored positions are kept, and the model's own
head (final norm, unembedding, soft caps) reads them in pieces.

Everything is done by hooks on whole blocks of the model's own forward (and, in the last one, on its linear layers), so
nothing here knows a family.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from harness import ablation, hooks
from harness.ablation import Check, Intervention, model_rows
from harness.config import RequestError
from harness.hooks.forward import StopForward
from harness.metrics import Metric
from harness.models import Inputs, Model
from harness.models.pooling import pooled
from harness.prompts import Prompts
from harness.prompts.targets import Readout, Targets
from harness.sweep.blocks import (
    Arguments,
    first_of,
    forward_until_stop,
    joined,
    masked_along,
    passed_over,
    with_first,
)
from harness.sweep.last_block import in_multiples, read_at_targets

#: Rows of logits that are held at once.
READ_AT_ONCE = 512

Resid = Float[Tensor, "target d_model"]


@dataclass
class Clean:
    """One clean forward of a batch of rows: what each block was given, what it gave, and the scored positions' end.

    `end` is the residual stream after the last block at the targets, `logits` what the model's head makes of it (only
    when a metric compares with it). Of a part of the rows, from some position on, `read` says which of the whole's
    targets are in it. Where it is `narrow`, the last block is right at the targets alone.
    """

    given: Inputs
    targets: Targets
    entered: list[Arguments]
    outputs: list[Any]
    end: Resid
    logits: Tensor | None = None
    read: Tensor | None = None
    narrow: bool = False

    @property
    def n_rows(self) -> int:
        return len(self.given.token_id)


@torch.no_grad()
def run_clean(
    model: Model,
    prompts: Prompts,
    metrics: Sequence[Metric],
    some: range | None = None,
    narrow: bool = False,
) -> Clean:
    """The clean forward of a batch of prompts, or of some of their rows. It may be `narrow` if what z becomes at a
    position depends on nothing but the position and z there."""
    targets = Targets.of(*model_rows(model, prompts), model.device)
    if some is not None:
        targets = targets.of_rows(some)
    clean = clean_run(model, model_rows(model, prompts, some)[0].inputs(model.device), targets, narrow)
    if any(metric.reads_clean for metric in metrics):
        clean.logits = torch.cat([logits for _, logits in logits_of(model, clean, clean.end)])
    return clean


@torch.no_grad()
def clean_run(model: Model, given: Inputs, targets: Targets, narrow: bool) -> Clean:
    """The clean forward of some rows, up to their last block."""
    clean = Clean(given, targets, [], [], torch.empty(0, 0), narrow=narrow)
    blocks = hooks.blocks(model.bridge)

    def enter(_: Any, args: tuple, kwargs: dict) -> None:
        clean.entered.append((args, kwargs))

    def leave(_: Any, args: tuple, output: Any) -> None:
        clean.outputs.append(output)
        if len(clean.outputs) == len(blocks):
            clean.end = _end(model, clean, first_of(output)[None])
            raise StopForward

    handles = [block.register_forward_pre_hook(enter, with_kwargs=True) for block in blocks]
    handles += [block.register_forward_hook(leave) for block in blocks]
    with _last_block(model, clean):
        forward_until_stop(model, clean.given, handles)
    return clean


@torch.no_grad()
def run_ablated(model: Model, clean: Clean, chunk: Sequence[Intervention], check: Check) -> Resid:
    """The end of the residual stream at the targets, intervention after intervention: [chunk × target, d_model].

    `chunk` is in order of first block.
    """
    starts = [one.first_block(model.shape) for one in chunk]
    blocks, first = hooks.blocks(model.bridge), starts[0]
    end: list[Tensor] = []

    def grow(at: int) -> Callable[..., Arguments]:
        """Let the rows of the interventions that begin in this block join, each with its prompt's mask."""
        copies = sum(start <= at for start in starts)
        return lambda _, args, kwargs: joined(
            (args, kwargs), clean.entered[at], clean.n_rows, copies, model.traits.per_row
        )

    def leave(_: Any, args: tuple, output: Any) -> None:
        end.append(_end(model, clean, first_of(output).unflatten(0, (len(chunk), clean.n_rows))))
        raise StopForward

    rows = [slice(at * clean.n_rows, (at + 1) * clean.n_rows) for at in range(len(chunk))]
    edits = [edit for one, where in zip(chunk, rows, strict=True) for edit in one.edits(where)]
    with ExitStack() as stack:
        stack.enter_context(ablation.editing(model, ablation.by_site(edits), check))
        stack.enter_context(passed_over(blocks[:first], clean.outputs))
        stack.enter_context(_last_block(model, clean))
        handles = [blocks[at].register_forward_pre_hook(grow(at), with_kwargs=True) for at in range(first, len(blocks))]
        if (decoder := hooks.decoder_stack(model.bridge)) is not None:
            handles.append(decoder.register_forward_pre_hook(masked_along, with_kwargs=True))
        forward_until_stop(model, clean.given, [*handles, blocks[-1].register_forward_hook(leave)])
    return end[0]


def _last_block(model: Model, clean: Clean) -> AbstractContextManager[None]:
    """The last block as this run wants it."""
    return read_at_targets(model, clean.targets, clean.given.token_id.shape) if clean.narrow else nullcontext()


@torch.no_grad()
def run_plainly(model: Model, clean: Clean, one: Intervention) -> Resid:
    """The same for one intervention by a whole forward with nothing passed over: the reference."""
    with ablation.applied(model, one):
        return end_of(model, clean)


def end_of(model: Model, clean: Clean) -> Resid:
    """The end of the residual stream at the targets after a whole forward of the same rows, whatever hooks do to it."""
    end: list[Tensor] = []

    def leave(_: Any, args: tuple, output: Any) -> None:
        end.append(_end(model, clean, first_of(output)[None]))
        raise StopForward

    forward_until_stop(model, clean.given, [hooks.blocks(model.bridge)[-1].register_forward_hook(leave)])
    return end[0]


def tolerance(model: Model) -> float:
    """How far two ways to run the same intervention may be apart in a metric, by the model's precision."""
    return max(1e-3, 16 * torch.finfo(getattr(torch, model.spec.dtype)).eps)


def measure(model: Model, clean: Clean, end: Resid, metrics: Sequence[Metric]) -> Float[Tensor, "metric row prompt"]:
    """The metrics, one number per prompt, from the end of the residual stream [row × target, d_model]."""
    return clean.targets.mean_by_prompt(by_target(model, clean, end, metrics))


def by_target(model: Model, clean: Clean, end: Resid, metrics: Sequence[Metric]) -> Float[Tensor, "metric copy scored"]:
    """The metrics at each target, from the end of the residual stream [row × target, d_model]."""
    n_targets = len(clean.targets)
    values = end.new_empty((len(metrics), len(end)), dtype=torch.float32)
    for at, read in readouts(model, clean, end):
        for number, metric in enumerate(metrics):
            values[number, at] = _checked(metric.name, metric.compute(read), at.stop - at.start)
    return values.unflatten(1, (-1, n_targets))


def readouts(model: Model, clean: Clean, end: Resid) -> Iterator[tuple[slice, Readout]]:
    """What metrics read of ends of the residual stream [row × target, d_model], some rows at a time."""
    for at, logits in logits_of(model, clean, end):
        which = torch.arange(at.start, at.stop, device=end.device) % len(clean.targets)
        yield at, clean.targets.read(which, logits, None if clean.logits is None else clean.logits[which])


def _checked(name: str, value: Any, n_targets: int) -> Tensor:
    """What a metric gave, if it is one number for each target."""
    if not isinstance(value, Tensor) or value.shape != (n_targets,):
        gave = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise RequestError("metrics", name, f"a metric gives a tensor [target], here of {n_targets}; this gave {gave}")
    return value


def logits_of(model: Model, clean: Clean, end: Resid) -> Iterator[tuple[slice, Float[Tensor, "row vocab"]]]:
    """What the model's own head makes of ends of the residual stream, some rows at a time."""
    for start in range(0, len(end), READ_AT_ONCE):
        rows = slice(start, min(start + READ_AT_ONCE, len(end)))
        n = rows.stop - start
        yield rows, _through_head(model, clean, in_multiples(end[rows]))[:n]


def _through_head(model: Model, clean: Clean, end: Resid) -> Float[Tensor, "row vocab"]:
    """The model's forward runs on one token a row with every block passed over and the rows put in place of the last
    block's output: all that follows the blocks works on each position alone. (One token for each row, since some
    models, GPT-BigCode among them, give the last block's output the shape of their input.) A head that the bridge does
    not know is called."""
    if model.head is not None:
        return model.head(end)
    given = [*clean.outputs[:-1], with_first(clean.outputs[-1], end[:, None])]
    with passed_over(hooks.blocks(model.bridge), given):
        return model.forward(clean.given.first().repeated(len(end))).flatten(0, 1)


def _end(model: Model, clean: Clean, hidden: Float[Tensor, "copy row position d_model"]) -> Resid:
    """What is read of the last block's output: the scored positions, or the vector of each text."""
    if model.kind == "embedding":
        return pooled(hidden, clean.given.mask.bool(), model.pooling).flatten(0, 1)
    return hidden[:, clean.targets.row, clean.targets.position].flatten(0, 1)
