"""The roles stage: score every head for every role; one unit is a batch of prompts, or of repeated random tokens."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from harness.attention import activations
from harness.config import RequestError, RolesSpec, RunSpec, StatsSpec
from harness.execute import Part
from harness.models import Model, alone
from harness.prompts import Prompts, batches
from harness.roles.attention_context import read, read_by_mask
from harness.roles.catalogue import ROLES
from harness.roles.copying import copying, has_copying, raised
from harness.roles.probe_prompts import repeats
from harness.roles.role_measures import MEASURES, RoleScore
from harness.roles.scoring import RelationHits, TextScores, role_scores
from harness.roles.syntax import WAYS, hits
from harness.sweep.head_table import HeadTable
from harness.words import merge_pattern

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class RolesStage:
    """The stage that scores roles. Raises `RequestError` for a probe that is too long for the model, and for fewer
    draws than the significance level needs."""

    model: Model
    prompts: Prompts
    spec: RolesSpec
    stats: StatsSpec
    name: str = "roles"

    def __post_init__(self) -> None:
        if (self.spec.draws + 1) * self.stats.level <= 1:
            least = int(1 / self.stats.level)
            raise RequestError("roles.draws", self.spec.draws, f"level {self.stats.level} needs at least {least}")
        assert len(self.repeats)

    @cached_property
    def repeats(self) -> Prompts:
        return repeats(self.model, self.spec)

    @property
    def _stacks(self) -> list[str]:
        return list(self.model.shape.stacks)

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]:
        own = batches(self.prompts)
        return {"batches": [*own, *batches(self.repeats)], "own": len(own), "draws": self.spec.draws}

    @alone
    def compute(self, plan: Mapping[str, Any], unit: int) -> Arrays:
        """Compute one batch: `score` [role, prompt, stack, layer, head], `null` [role, draw, …] summed over its `n`
        [role, stack, layer] prompts, and (of the prompts) `hit` [relation, way, layer, head]."""
        on = "prompts" if unit < plan["own"] else "repeats"
        texts, numbers = self.prompts if on == "prompts" else self.repeats, plan["batches"][unit]
        batch = texts.take(numbers)
        # Sliding windows show in the scores only; a pattern may be 0 where its mask allows a key.
        cache = activations(self.model, batch, ("pattern", "allowed") if self.model.traits.has_scores else ("pattern",))
        size = (len(self._stacks), self.model.shape.depth, self.model.shape.n_heads)
        score = np.full((len(ROLES), len(numbers), *size), np.nan, np.float32)
        null = np.zeros((len(ROLES), plan["draws"], *size), np.float32)
        n = np.zeros((len(ROLES), *size[:2]), int)
        for role, row, at, layers, measured in self._measured(on, batch, cache, numbers):
            score[role, row, at, layers] = measured.score.reshape(len(layers), -1)
            null[role, :, at, layers] += measured.null.reshape(len(measured.null), len(layers), -1).swapaxes(0, 1)
            n[role, at, layers] += 1
        made = {"score": score, "null": null, "n": n}
        return made | {"hit": self._hits(batch, cache)} if on == "prompts" else made

    def _measured(
        self, on: str, batch: Prompts, cache: Arrays, numbers: Sequence[int]
    ) -> Iterator[tuple[int, int, int, np.ndarray, RoleScore]]:
        """Yield role, row, stack and layers of each score, as numbers, with the heads in the order of layers."""
        for row, number in enumerate(numbers):
            for at, stack in enumerate(self._stacks):
                for layers, pattern, context in read_by_mask(batch, row, cache, stack, self.model):
                    for role, measure in MEASURES.items():
                        if measure.on == on and ("cross" if context.another else "self") in measure.where:
                            measured = measure.by(pattern, context, self.spec.draws, self._rng(role, number, at))
                            if measured is not None:
                                yield ROLES.index(role), row, at, layers, measured
        if on == "repeats" and has_copying(self.model):
            position = np.flatnonzero(~batch.special[0])[: self.spec.length]
            for row, each in enumerate(raised(self.model, batch, position)):
                rng = self._rng("copying", numbers[row], 0)
                heads = each.reshape(-1, *each.shape[2:])
                everywhere = np.arange(len(each))
                yield ROLES.index("copying"), row, 0, everywhere, copying(heads, self.spec.draws, rng)

    def _rng(self, role: str, number: int, stack: int) -> np.random.Generator:
        return np.random.default_rng([self.spec.seed, ROLES.index(role), number, stack])

    def _hits(self, batch: Prompts, cache: Arrays) -> np.ndarray:
        """Return which heads hit which relations, prompt after prompt."""
        shape, stack = self.model.shape, self._stacks[0]
        made = [np.empty((0, len(WAYS), shape.stacks[stack], shape.n_heads), np.float32)]
        for row, relations in enumerate(batch.relations):
            if relations:
                pattern, context = read(batch, row, cache, stack, self.model)
                word = (batch.source or batch).word[row, : len(context.token_id)]
                special = np.isin(np.arange(word.max() + 1), word[context.special])
                hit = hits(merge_pattern(pattern, word), special, relations, self._causal)
                made.append(hit.reshape(*hit.shape[:2], *made[0].shape[2:]).astype(np.float32))
        return np.concatenate(made)

    @property
    def _causal(self) -> bool:
        """Whether the stack that reads the relations' words is causal."""
        return self.model.kind == "decoder"

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """Return `role_score`, `role_chance`, `role_p` (max-T over heads) and `role_given` [role, layer, head], with
        the interval of the score over texts, `role_low` and `role_high`."""
        cut, own = plan["batches"], plan["own"]
        texts = {
            "prompts": TextScores.of(self.prompts.cluster, cut[:own], units[:own]),
            "repeats": TextScores.of(self.repeats.cluster, cut[own:], units[own:]),
        }
        relations = [each for batch in cut[:own] for number in batch for each in self.prompts.relations[number]]
        related = RelationHits(relations, np.concatenate([unit["hit"] for unit in units[:own]]), self._causal)
        return role_scores(texts, related, self._stacks, self.spec, self.stats)


def part(spec: RunSpec, model: Model, prompts: Prompts) -> Part:
    """Return the roles stage of a run; its roles go to the table of heads."""
    return Part([RolesStage(model, prompts, spec.roles, spec.stats)], [HeadTable(spec.stats)])
