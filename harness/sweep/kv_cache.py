"""Ablations at late positions of a decoder: what comes before them is as it was in the clean run.

A decoder looks back only. So the rows of an ablation whose first position is `start` need the clean keys and values of
the positions before it, and run from there on.
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
from harness.prompts.targets import Targets
from harness.sweep import engine
from harness.sweep.engine import Clean


class CachedPrefixes:
    """Parts of one clean run, each from some position on, made when they are first asked for."""

    def __init__(self, model: Model, clean: Clean):
        self.model, self.clean = model, clean
        self._made: dict[int, Clean] = {0: clean}

    @cached_property
    def _past(self) -> Cache:
        """The clean run's keys and values."""
        kept = Cache(layer_class_to_replicate=DynamicLayer)
        self.model.forward(replace(self.clean.given, past=kept))
        return kept

    @torch.no_grad()
    def part(self, start: int) -> Clean:
        """The clean run of what comes from `start` on."""
        if start not in self._made:
            given, (targets, read) = self.clean.given, _from(self.clean.targets, start)
            past = Cache(layers=[_Before(layer, start) for layer in self._past.layers])
            later = Inputs(given.token_id[:, start:], given.mask, past=past)
            logits = None if self.clean.logits is None else self.clean.logits[read]
            self._made[start] = replace(
                engine.clean_run(self.model, later, targets, self.clean.narrow), read=read, logits=logits
            )
        return self._made[start]


def first_place(todo: Iterable[Intervention]) -> int:
    """The first position, in any row, that some of these interventions change."""
    starts = [0]
    for one in todo:
        if one.positions is None:
            return 0
        starts.append(min((place for places in one.positions for place in places), default=0))
    return min(starts[1:], default=0)


def from_there(one: Intervention, start: int) -> Intervention:
    """The same intervention on rows that begin at `start`. What z becomes at a position may depend on nothing but the
    position and z there."""
    if start == 0 or one.positions is None:
        return one
    places = tuple(tuple(place - start for place in places) for places in one.positions)
    return replace(one, baseline=_late(one.baseline, start), positions=places)


def _late(baseline: Baseline, start: int) -> Baseline:
    def later(z: Tensor, head: Part) -> Tensor:
        whole = torch.nn.functional.pad(z, (0, 0, start, 0))
        return baseline(whole, head).expand_as(whole)[:, start:]

    return later


def _from(targets: Targets, start: int) -> tuple[Targets, Tensor]:
    """The targets from a position on, counted from there, and which of all they are."""
    read = (targets.position >= start).nonzero()[:, 0]
    later = targets.take(read)
    return replace(later, position=later.position - start), read


class _Before(DynamicLayer):
    """The keys and values of the positions before `start`, for as many copies of the rows as come along."""

    def __init__(self, whole: Any, start: int):
        super().__init__()
        self.keys, self.values = whole.keys[:, :, :start], whole.values[:, :, :start]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return _after(self.keys, key_states), _after(self.values, value_states)


def _after(before: Any, states: Tensor) -> Tensor:
    return torch.cat([before.repeat(len(states) // len(before), 1, 1, 1), states], dim=-2)
