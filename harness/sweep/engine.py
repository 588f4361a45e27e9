"""Run many interventions in one forward, without running again the blocks before the first of them.

A head in layer l changes nothing before layer l. So one clean run keeps what enters each block; then, for a chunk of
interventions, the model's own forward skips the blocks before the first intervention, and at each layer one more copy
of the prompts joins the batch for each intervention that begins there. All rows go on together, each with its own edit
of z. After the last block only the scored positions are kept; the model's own head (final norm, unembedding, soft
caps) runs once per chunk of these instead of on every position.

Everything is done by hooks on whole blocks of the model's own forward (and, in the last one, on its linear layers), so
nothing here depends on a model family.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from harness import ablation, hooks
from harness.ablation import Check, Intervention, model_rows, targets_of
from harness.config import RequestError
from harness.hooks.forward import StopForward, run_until_stop
from harness.metrics import Metric
from harness.models import Inputs, Model
from harness.models.pooling import pooled
from harness.prompts import Prompts
from harness.prompts.targets import Readout, Targets
from harness.sweep.blocks import (
    Arguments,
    first_of,
    join_rows,
    repeat_source_mask,
    skip_blocks,
    with_first,
)
from harness.sweep.last_block import in_multiples, read_at_targets

#: Rows of logits in memory at once.
READ_AT_ONCE = 512

Resid = Float[Tensor, "target d_model"]


@dataclass
class Clean:
    """One clean forward of a batch of rows: the inputs and outputs of each block, and the stream's end at the targets.

    `end` is the residual stream after the last block at the targets, `logits` what the model's head makes of it (only
    when a metric compares with it). Of a run from some position on, `read` are the indices of its targets among all.
    If `narrow`, the last block's output is valid at the targets only.
    """

    inputs: Inputs
    targets: Targets
    entered: list[Arguments]
    outputs: list[Any]
    end: Resid
    logits: Tensor | None = None
    read: Tensor | None = None
    narrow: bool = False

    @property
    def n_rows(self) -> int:
        return len(self.inputs.token_id)


@torch.no_grad()
def run_clean(
    model: Model,
    prompts: Prompts,
    metrics: Sequence[Metric],
    some: range | None = None,
    narrow: bool = False,
) -> Clean:
    """Run a batch of prompts, or some of their rows, without an intervention.

    `narrow` is allowed only if the new z at a position depends on nothing but the position and the z there.
    """
    targets = targets_of(model, prompts)
    if some is not None:
        targets = targets.of_rows(some)
    clean = clean_run(model, model_rows(model, prompts, some)[0].inputs(model.device), targets, narrow)
    if any(metric.reads_clean for metric in metrics):
        clean.logits = torch.cat([logits for _, logits in logits_of(model, clean, clean.end)])
    return clean


@torch.no_grad()
def clean_run(model: Model, inputs: Inputs, targets: Targets, narrow: bool) -> Clean:
    """Run some rows without an intervention, up to the last block."""
    return recorded(model, inputs, targets, narrow)


def recorded(model: Model, inputs: Inputs, targets: Targets, narrow: bool = False) -> Clean:
    """Run some rows up to the last block, under the hooks and the gradient mode in force."""
    clean = Clean(inputs, targets, [], [], torch.empty(0, 0), narrow=narrow)
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
        run_until_stop(model.forward, clean.inputs, handles)
    return clean


@torch.no_grad()
def run_ablated(
    model: Model,
    clean: Clean,
    chunk: Sequence[Intervention],
    check: Check,
    watch: Callable[[], Sequence[Any]] = tuple,
) -> Resid:
    """Run a chunk of interventions; the end of the residual stream at the targets, [intervention × target, d_model].

    `chunk` must be in order of first block. `watch` hooks what the forward computes, after all else, and returns the
    handles. Raises `InterventionFailed` if an edit did not reach W_O.
    """
    starts = [one.first_block(model.shape) for one in chunk]
    blocks, first = hooks.blocks(model.bridge), starts[0]
    end: list[Tensor] = []

    def grow(at: int) -> Callable[..., Arguments]:
        """Let the rows of the interventions that begin in this block join, each with its prompt's mask."""
        copies = sum(start <= at for start in starts)
        return lambda _, args, kwargs: join_rows(
            (args, kwargs), clean.entered[at], clean.n_rows, copies, model.traits.per_row
        )

    def leave(_: Any, args: tuple, output: Any) -> None:
        end.append(_end(model, clean, first_of(output).unflatten(0, (len(chunk), clean.n_rows))))
        raise StopForward

    rows = [slice(at * clean.n_rows, (at + 1) * clean.n_rows) for at in range(len(chunk))]
    edits = [edit for one, where in zip(chunk, rows, strict=True) for edit in one.edits(where)]
    with ExitStack() as stack:
        stack.enter_context(ablation.editing(model, ablation.by_site(edits), check))
        stack.enter_context(skip_blocks(blocks[:first], clean.outputs))
        stack.enter_context(_last_block(model, clean))
        # Before the edits of a block's input, which are those of rows that may join there.
        joins = {"with_kwargs": True, "prepend": True}
        handles = [blocks[at].register_forward_pre_hook(grow(at), **joins) for at in range(first, len(blocks))]
        if (decoder := hooks.decoder_stack(model.bridge)) is not None:
            handles.append(decoder.register_forward_pre_hook(repeat_source_mask, with_kwargs=True))
        run_until_stop(model.forward, clean.inputs, [*handles, *watch(), blocks[-1].register_forward_hook(leave)])
    return end[0]


def _last_block(model: Model, clean: Clean) -> AbstractContextManager[None]:
    """Return the context that makes the last block run at the targets only, if the run is narrow."""
    return read_at_targets(model, clean.targets, clean.inputs.token_id.shape) if clean.narrow else nullcontext()


@torch.no_grad()
def run_plainly(model: Model, clean: Clean, one: Intervention) -> Resid:
    """Run one intervention by a whole forward that skips nothing: the reference for `run_ablated`."""
    with ablation.applied(model, one):
        return end_of(model, clean)


def end_of(model: Model, clean: Clean) -> Resid:
    """Run the same rows through the whole model, under the hooks in force; the stream's end at the targets."""
    end: list[Tensor] = []

    def leave(_: Any, args: tuple, output: Any) -> None:
        end.append(_end(model, clean, first_of(output)[None]))
        raise StopForward

    run_until_stop(model.forward, clean.inputs, [hooks.blocks(model.bridge)[-1].register_forward_hook(leave)])
    return end[0]


def tolerance(model: Model) -> float:
    """Return how far two ways to run the same intervention may differ in a metric, by the model's precision."""
    return max(1e-3, 16 * torch.finfo(getattr(torch, model.spec.dtype)).eps)


def measure(model: Model, clean: Clean, end: Resid, metrics: Sequence[Metric]) -> Float[Tensor, "metric row prompt"]:
    """Compute the metrics, one number per prompt, from the end of the residual stream [row × target, d_model]."""
    return by_prompt(clean.targets, metrics, by_target(model, clean, end, metrics))


def by_prompt(
    targets: Targets, metrics: Sequence[Metric], values: Float[Tensor, "metric row target"]
) -> Float[Tensor, "metric row prompt"]:
    """Make one number per prompt of each metric's values at the targets."""
    if not any(metric.reduce for metric in metrics):
        return targets.mean_by_prompt(values)
    reductions = [metric.reduce or _mean for metric in metrics]
    return torch.stack([reduce(own, targets) for reduce, own in zip(reductions, values, strict=True)])


def _mean(values: Float[Tensor, "row target"], targets: Targets) -> Float[Tensor, "row prompt"]:
    return targets.mean_by_prompt(values)


def by_target(model: Model, clean: Clean, end: Resid, metrics: Sequence[Metric]) -> Float[Tensor, "metric copy scored"]:
    """Compute the metrics at each target, from the end of the residual stream [row × target, d_model].

    Raises `RequestError` for a metric that does not return one number per target.
    """
    n_targets = len(clean.targets)
    values = end.new_empty((len(metrics), len(end)), dtype=torch.float32)
    for at, read in readouts(model, clean, end):
        for number, metric in enumerate(metrics):
            value, n = metric.compute(read), at.stop - at.start
            if not isinstance(value, Tensor) or value.shape != (n,):
                gave = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                remedy = f"a metric gives a tensor [target], here of {n}; this gave {gave}"
                raise RequestError("metrics", metric.name, remedy)
            values[number, at] = value
    return values.unflatten(1, (-1, n_targets))


def readouts(model: Model, clean: Clean, end: Resid) -> Iterator[tuple[slice, Readout]]:
    """Yield the `Readout` of ends of the residual stream [row × target, d_model], some rows at a time."""
    for at, logits in logits_of(model, clean, end):
        which = torch.arange(at.start, at.stop, device=end.device) % len(clean.targets)
        yield at, clean.targets.read(which, logits, None if clean.logits is None else clean.logits[which])


def logits_of(model: Model, clean: Clean, end: Resid) -> Iterator[tuple[slice, Float[Tensor, "row vocab"]]]:
    """Yield the logits that the model's own head computes from ends of the residual stream, some rows at a time."""
    for start in range(0, len(end), READ_AT_ONCE):
        rows = slice(start, min(start + READ_AT_ONCE, len(end)))
        n = rows.stop - start
        yield rows, _through_head(model, clean, in_multiples(end[rows]))[:n]


def _through_head(model: Model, clean: Clean, end: Resid) -> Float[Tensor, "row vocab"]:
    """Apply what follows the last block (final norm, unembedding, soft caps) to ends of the residual stream.

    The model's own forward runs on one token a row, skips every block, and takes the rows in place of the last block's
    output: all that follows the blocks works on each position alone. (One token per row, since some models, GPT-BigCode
    among them, give the last block's output the shape of their input.) A head that the bridge does not know is called.
    """
    if model.head is not None:
        return model.head(end)
    outputs = [*clean.outputs[:-1], with_first(clean.outputs[-1], end[:, None])]
    with skip_blocks(hooks.blocks(model.bridge), outputs):
        return model.forward(clean.inputs.first().repeated(len(end))).flatten(0, 1)


def _end(model: Model, clean: Clean, hidden: Float[Tensor, "copy row position d_model"]) -> Resid:
    """Select the scored positions of the last block's output, or pool each text's vector."""
    if model.kind == "embedding":
        return pooled(hidden, clean.inputs.mask.bool(), model.pooling).flatten(0, 1)
    return hidden[:, clean.targets.row, clean.targets.position].flatten(0, 1)
