"""Score heads over texts: mean score, interval, chance level, p, and whether the head has the role."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from harness.config import RolesSpec, StatsSpec
from harness.prompts.relations import Relation
from harness.roles.catalogue import ROLES, SYNTACTIC
from harness.roles.role_measures import MEASURES
from harness.roles.syntax import MORE, best_offset, grouped, syntactic
from harness.stats.bootstrap import interval
from harness.stats.clusters import group
from harness.stats.randomisation import tail

Heads = Float[np.ndarray, " head"]
_SPREAD = 1e-6  # a smaller spread of the null distribution is rounding


def beyond_chance(score: Heads, null: Float[np.ndarray, "draw head"]) -> Heads:
    """Return max-T p over all heads, each standardised by its own null draws (Westfall and Young 1993)."""
    mean, spread = null.mean(axis=0), np.maximum(null.std(axis=0), _SPREAD)
    return tail((score - mean) / spread, [(null - mean) / spread], exact=False, unseen=0)[1]


def far_enough(score: Heads, chance: Heads, threshold: float, least: float) -> Bool[np.ndarray, " head"]:
    """Whether a score lies at least `threshold` of the way from chance to 1, and is at least `least`."""
    return (score - chance >= threshold * (1 - chance)) & (score >= least)


Grid = Float[np.ndarray, "stack layer head"]
_FIELDS = ("score", "low", "high", "chance", "p", "given")


@dataclass(frozen=True)
class TextScores:
    """All texts of one kind: their clusters, each text's score, and the null draws averaged over them."""

    cluster: np.ndarray
    score: Float[np.ndarray, "role text stack layer head"]
    null: Float[np.ndarray, "role draw stack layer head"]
    n: Int[np.ndarray, "role stack layer"]

    @classmethod
    def of(
        cls, cluster: Sequence[str], cut: Sequence[Sequence[int]], units: Sequence[Mapping[str, np.ndarray]]
    ) -> "TextScores":
        """Join the units of these batches."""
        order = [number for batch in cut for number in batch]
        n = np.sum([unit["n"] for unit in units], axis=0)
        null = np.sum([unit["null"].astype(np.float64) for unit in units], axis=0)
        score = np.concatenate([unit["score"] for unit in units], axis=1).astype(np.float64)
        return cls(np.array(cluster)[order], score, null / np.maximum(n, 1)[:, None, :, :, None], n)


@dataclass(frozen=True)
class RelationHits:
    """The relations of all prompts, the heads of the reading stack that hit them, and whether it is causal."""

    relations: Sequence[Relation]
    hit: Float[np.ndarray, "relation way layer head"]
    causal: bool


def role_scores(
    texts: Mapping[str, TextScores], related: RelationHits, stacks: Sequence[str], spec: RolesSpec, stats: StatsSpec
) -> xr.Dataset:
    """Compute `role_score` and its statistics, [role, layer, head], in an encoder-decoder with the stack before the
    layer. NaN (and no role) where a role is not defined; a head with a finer role does not get the coarser one."""
    size = texts["prompts"].score.shape[2:]
    made = {role: _of_role(role, texts, spec, stats) for role in ROLES}
    for role, measure in MEASURES.items():
        for finer in measure.finer:
            made[role]["given"] &= ~made[finer]["given"]
    made |= {SYNTACTIC + name: each for name, each in _syntactic(related, size, spec, stats)}
    dims = ("role", "stack", "layer", "head")
    coords = {"role": list(made), "stack": list(stacks), "layer": np.arange(size[1]), "head": np.arange(size[2])}
    whole = {
        f"role_{name}": xr.DataArray(np.stack([each[name] for each in made.values()]), dims=dims, attrs=_NOTES[name])
        for name in _FIELDS
    }
    scores = xr.Dataset(whole, coords)
    return scores if len(stacks) > 1 else scores.isel(stack=0, drop=True)


def _of_role(role: str, texts: Mapping[str, TextScores], spec: RolesSpec, stats: StatsSpec) -> dict[str, np.ndarray]:
    """Compute the statistics of one role, each [stack, layer, head]."""
    measure, at = MEASURES.get(role), ROLES.index(role)
    of = texts[measure.on if measure else "repeats"]
    made, least = _empty(of.score.shape[2:]), measure.least if measure else 0.0
    scored = np.isfinite(of.score[at]).any(axis=(1, 2, 3))
    there = np.isfinite(of.score[at][scored]).all(axis=0) if scored.any() else np.zeros(of.score.shape[2:], bool)
    if not there.any():
        return made
    by_text, null = of.score[at][scored][:, there], of.null[at][:, there]
    score, chance = by_text.mean(axis=0), null.mean(axis=0)
    grouped_texts = group(of.cluster[scored], len(by_text))
    seed = np.random.SeedSequence([stats.seed, at])
    spread = interval(grouped_texts.sums(by_text), grouped_texts.size, stats.confidence, stats.resamples, seed)
    p_adjusted = beyond_chance(score, null)
    has_role = far_enough(score, chance, spec.threshold, least) & (p_adjusted < stats.level)
    for name, values in zip(_FIELDS, (score, spread.low, spread.high, chance, p_adjusted, has_role), strict=True):
        made[name][there] = values
    return made


def _empty(size: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {name: np.zeros(size, bool) if name == "given" else np.full(size, np.nan) for name in _FIELDS}


def _syntactic(related: RelationHits, size: tuple[int, ...], spec: RolesSpec, stats: StatsSpec):
    """Yield each relation's name and the statistics of the heads that read its words; without intervals."""
    n_layers = related.hit.shape[2]
    for name, which in grouped(related.relations).items():
        made = _empty(size)
        fixed = best_offset([related.relations[at] for at in which], related.causal)
        hit = related.hit[which].reshape(*related.hit[which].shape[:2], -1)
        scored = syntactic(hit, fixed, spec.draws, np.random.default_rng([spec.seed, len(ROLES)]))
        if scored is not None:
            measured, chance = scored
            p_adjusted = beyond_chance(measured.score, measured.null)
            has_role = (measured.score >= chance + MORE) & (p_adjusted < stats.level)
            columns = {"score": measured.score, "chance": chance, "p": p_adjusted, "given": has_role}
            for field, values in columns.items():
                made[field][0, :n_layers] = values.reshape(n_layers, -1)
        yield name, made


_NOTES = {
    "score": {"units": "share; alignment: correlation", "method": "harness.roles.role_measures, mean over texts"},
    "low": {"units": "as role_score", "method": "lower end of its interval over texts"},
    "high": {"units": "as role_score", "method": "upper end of its interval over texts"},
    "chance": {"units": "as role_score", "method": "mean over null draws; syntactic: the best fixed offset"},
    "p": {"units": "probability", "method": "max-T over all heads"},
    "given": {"units": "whether the head has the role"},
}
