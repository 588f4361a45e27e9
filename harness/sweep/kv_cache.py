"""Start ablations at late positions of a decoder from the clean run's key–value cache.

Decoder attention is causal: an ablation whose first position is `start` leaves all earlier positions clean. So its rows
need only the clean keys and values of these, and run from `start`.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from harness.ablation import Baseline, Intervention
from harness.hooks import Part
from harness.models import Inputs, Model
from harness.sweep import engine
from harness.sweep.engine import Clean


class CachedPrefixes:
    """Clean runs of the suffixes of one batch, each made on first use from the cached prefix."""

    def __init__(self, model: Model, clean: Clean):
        self.model, self.clean = model, clean
        self._made: dict[int, Clean] = {0: clean}

    @cached_property
    def _past(self) -> Cache:
        """Return the clean run's keys and values."""
        kept = Cache(layer_class_to_replicate=DynamicLayer)
        self.model.forward(replace(self.clean.inputs, past=kept))
        return kept

    @torch.no_grad()
    def part(self, start: int) -> Clean:
        """Return the clean run from position `start`."""
        if start not in self._made:
            inputs, targets = self.clean.inputs, self.clean.targets
            read = (targets.position >= start).nonzero()[:, 0]
            later = targets.take(read)
            targets = replace(later, position=later.position - start)
            past = Cache(layers=[_Before(layer, start) for layer in self._past.layers])
            suffix = Inputs(inputs.token_id[:, start:], inputs.mask, past=past)
            logits = None if self.clean.logits is None else self.clean.logits[read]
            self._made[start] = replace(
                engine.clean_run(self.model, suffix, targets, self.clean.narrow), read=read, logits=logits
            )
        return self._made[start]


def first_position(todo: Iterable[Intervention]) -> int:
    """Return the first position, in any row, that one of these interventions edits."""
    starts = [0]
    for one in todo:
        if one.positions is None:
            return 0
        starts.append(min((place for places in one.positions for place in places), default=0))
    return min(starts[1:], default=0)


def shift(one: Intervention, start: int) -> Intervention:
    """Return the same intervention for rows that begin at `start`.

    The new z at a position may depend on nothing but the position and the z there.
    """
    if start == 0:
        return one
    if one.positions is None:
        return replace(one, baseline=_late(one.baseline, start))
    places = tuple(tuple(place - start for place in places) for places in one.positions)
    return replace(one, baseline=_late(one.baseline, start), positions=places)


def _late(baseline: Baseline, start: int) -> Baseline:
    def later(z: Tensor, head: Part) -> Tensor:
        whole = torch.nn.functional.pad(z, (0, 0, start, 0))
        return baseline(whole, head).expand_as(whole)[:, start:]

    return later


class _Before(DynamicLayer):
    """The keys and values of the positions before `start`, repeated for as many copies of the rows as are run."""

    def __init__(self, whole: Any, start: int):
        super().__init__()
        self.keys, self.values = whole.keys[:, :, :start], whole.values[:, :, :start]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return _after(self.keys, key_states), _after(self.values, value_states)


def _after(before: Any, states: Tensor) -> Tensor:
    return torch.cat([before.repeat(len(states) // len(before), 1, 1, 1), states], dim=-2)
