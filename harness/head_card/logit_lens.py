"""The logit lens: the metrics read from the residual stream after each block, clean and with a head ablated.

The stream at the scored positions goes through the model's own head (final norm, unembedding, soft caps) as if no
block came after (nostalgebraist 2020, "interpreting GPT: the logit lens").
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.ablation import Check, Intervention
from harness.hooks.block_stream import hidden_of, watch_input
from harness.metrics import Metric
from harness.models import Model
from harness.sweep.blocks import stream_blocks
from harness.sweep.engine import Clean, measure, run_ablated


def clean_lens(model: Model, clean: Clean, metrics: Sequence[Metric]) -> Float[Tensor, "metric depth prompt"]:
    """Return the metrics read from the stream that enters each block, and last from the stream's end."""
    streams = [_at_targets(clean, hidden_of(*clean.entered[at]))[0] for at in stream_blocks(model)]
    return _read(model, clean, [*streams, clean.end], metrics)[:, :, 0]


@torch.no_grad()
def ablated_lens(
    model: Model, clean: Clean, todo: Sequence[Intervention], metrics: Sequence[Metric], check: Check
) -> Float[Tensor, "metric depth intervention prompt"]:
    """Return the same under each intervention; before its first block the stream is the clean one."""
    order = sorted(range(len(todo)), key=lambda at: todo[at].first_block(model.shape))
    streams: dict[int, Tensor] = {}

    def watch() -> list[Any]:
        blocks = hooks.blocks(model.bridge)
        return [watch_input(blocks[at], partial(read, at)) for at in stream_blocks(model)]

    def read(at: int, hidden: Tensor) -> None:
        streams[at] = _at_targets(clean, hidden)

    end = run_ablated(model, clean, [todo[at] for at in order], check, watch)
    whole = [_of_all(clean, streams.get(at), at, len(todo)) for at in stream_blocks(model)]
    lens = _read(model, clean, [*whole, end], metrics)
    return lens[:, :, torch.argsort(torch.tensor(order, device=lens.device))]


def _at_targets(clean: Clean, hidden: Float[Tensor, "row position d_model"]) -> Float[Tensor, "copy target d_model"]:
    return hidden.unflatten(0, (-1, clean.n_rows))[:, clean.targets.row, clean.targets.position]


def _of_all(clean: Clean, begun: Tensor | None, at: int, n: int) -> Float[Tensor, "row d_model"]:
    """Return the stream of all interventions, clean for those that had not begun."""
    before = _at_targets(clean, hidden_of(*clean.entered[at]))
    parts = [] if begun is None else [begun]
    missing = n - sum(map(len, parts))
    return torch.cat([*parts, before.expand(missing, -1, -1)]).flatten(0, 1)


def _read(
    model: Model, clean: Clean, streams: Sequence[Tensor], metrics: Sequence[Metric]
) -> Float[Tensor, "metric depth copy prompt"]:
    with torch.no_grad():
        return torch.stack([measure(model, clean, stream, metrics) for stream in streams], dim=1)
