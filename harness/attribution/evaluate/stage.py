"""The attribution stage: methods, causes and erasure curves of each prompt, as labelled arrays."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from harness.attribution.causes import CAUSES, Cause, Removal, choose_causes, fill_of, lead_occlusion, measure_causes
from harness.attribution.causes import refusal as cause_refusal
from harness.attribution.effect_weighted_rollout import negative_share
from harness.attribution.evaluate.erasure import CURVES, erase
from harness.attribution.evaluate.levels import count_words, sum_by_word, words_of
from harness.attribution.evaluate.method_table import MethodTable, PairTable
from harness.attribution.evaluate.policies import count_tokens
from harness.attribution.example import Example, clean_values, example_of, limit_targets
from harness.attribution.forward_cache import ForwardCache
from harness.attribution.integrated import MAX_REFINEMENT
from harness.attribution.masking import each_token
from harness.attribution.methods import METHODS, Method, choose_methods, score_methods
from harness.attribution.methods import refusal as method_refusal
from harness.attribution.occlusion import mean_embedding
from harness.config import AttributionSpec, RequestError, RunSpec
from harness.execute import Part
from harness.execute.cost import Trial, at_most
from harness.models import Model, alone
from harness.prompts import Prompts, batches

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class AttributionStage:
    """The stage that attributes predictions to tokens: one unit is a batch of prompts, each run by itself.

    Raises `RequestError` for methods, causes or heads that the model does not allow.
    """

    model: Model
    prompts: Prompts
    spec: AttributionSpec
    name: str = "attribution"

    def __post_init__(self) -> None:
        if not (self.methods and self.causes):
            raise RequestError("attribution.methods", "[]", "name at least one method and one cause")

    @cached_property
    def methods(self) -> dict[str, Method]:
        """The requested methods; of ``all``, those that this model allows."""
        chosen = choose_methods(self.spec.methods, self.model)
        if "alti" in chosen and self._alti_refused:
            del chosen["alti"]
        return chosen

    @cached_property
    def causes(self) -> dict[str, Cause]:
        return choose_causes(self.spec.causes, self.model)

    @cached_property
    @alone
    def _alti_refused(self) -> str:
        """Why ALTI is not available: the first prompt's terms do not sum to its residual stream. Raises `RequestError`
        if the request names it."""
        try:
            self.methods_of(self._example(0), 0, {"alti": choose_methods(("alti",), self.model)["alti"]})
        except RequestError as error:
            if self.spec.methods != ("all",):
                raise
            return error.remedy.removesuffix("; leave out alti")
        return ""

    @cached_property
    def left_out(self) -> dict[str, str]:
        """The methods and causes that ``all`` and ``auto`` leave out for this model, and why."""
        methods, causes = self.methods, self.causes
        reasons = {}
        if self.spec.methods == ("all",):
            reasons |= {
                name: method_refusal(name, self.model) or self._alti_refused for name in METHODS if name not in methods
            }
        if self.spec.causes == ("auto",):
            reasons |= {name: cause_refusal(name, self.model) for name in CAUSES if name not in causes}
        return reasons

    @cached_property
    def explained(self) -> Prompts:
        """The prompts, with at most `spec.targets` scored positions each."""
        return limit_targets(self.prompts, self.spec.targets)

    @cached_property
    def _removal(self) -> Removal:
        prompts = self.prompts
        ordinary = prompts.token_id[(prompts.token_id >= 0) & ~prompts.special]
        if prompts.source is not None:
            read = prompts.source
            ordinary = np.append(ordinary, read.token_id[(read.token_id >= 0) & ~read.special])
        return Removal(mean_embedding(self.model), ordinary)

    @property
    def n_targets(self) -> int:
        """The largest number of explained predictions of a prompt."""
        return 1 if self.model.kind == "embedding" else int(self.explained.target.sum(axis=1).max())

    @property
    def _sides(self) -> tuple[int, int]:
        """The lengths of the longest source and of the longest prompt."""
        source = 0 if self.prompts.source is None else self.prompts.source.token_id.shape[1]
        return source, self.prompts.token_id.shape[1]

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]:
        return {
            "batches": batches(self.prompts),
            "methods": list(self.methods),
            "causes": list(self.causes),
            "policies": list(self.spec.special),
            "fractions": list(self.spec.fractions),
            "taken_away_by": lead_occlusion(self.causes),
            "left_out": self.left_out,
            "targets": self.n_targets,
            "seed": self.spec.seed,
        }

    def work(self) -> float:
        """Return the work as forwards of one row, at most.

        Methods may remove the same tokens, and a smooth path needs fewer points of integrated gradients (each a forward
        and a gradient, the work of three).
        """
        shape, spec = self.model.shape, self.spec
        targets = self.explained.target.sum(axis=1) if self.model.kind != "embedding" else np.ones(len(self.prompts))
        rows = targets if self.model.kind == "masked_lm" else np.ones(len(targets))
        source = 0 if self.prompts.source is None else self.prompts.source.length
        copies = len(self.causes) * (self.prompts.length + source)
        if "rollout_effect" in self.methods:
            copies = copies + len(shape.sites) * shape.n_heads / 2  # blocks before the head do not run again
        curves = len(CURVES) * len(spec.fractions) * len(self.methods) + bool(spec.fractions)
        copies = copies + targets * len(spec.special) * curves
        points = MAX_REFINEMENT * (spec.ig_steps + 1) if "integrated_gradients" in self.methods else 0
        return float((rows * copies + 3 * targets * points).sum())

    def cost(self, trial: Trial) -> str:
        done = f"{len(self.methods)} methods, {len(self.causes)} causes"
        return at_most(len(self.prompts), done, self.work(), trial(self.model, self.prompts))

    def _example(self, number: int) -> Example:
        return example_of(self.model, self.explained.take([number]))

    def methods_of(
        self, example: Example, number: int, methods: Mapping[str, Method]
    ) -> tuple[ForwardCache, np.ndarray]:
        """Return the forward cache of one prompt, and the methods' scores [method, target, node]."""
        cache = ForwardCache(example, self.spec, self._removal.baseline, (self.spec.seed, number))
        return cache, score_methods(cache, dict(methods))

    @alone
    def compute(self, plan: Mapping[str, Any], unit: int) -> Arrays:
        """Compute one batch: every array with the prompt first, padded with NaN to the longest prompt of all."""
        made = [self._one(number) for number in plan["batches"][unit]]
        return {name: np.stack([each[name] for each in made]) for name in made[0]}

    def _one(self, number: int) -> Arrays:
        """Compute all arrays of one prompt."""
        example = self._example(number)
        cache, scores = self.methods_of(example, number, self.methods)
        removal = replace(self._removal, seed=(self.spec.seed, number))
        counts = count_tokens(example, self.spec.special)
        arrays = {
            "attribution": self._padded(scores, example),
            "cause": self._padded(measure_causes(example, self.causes, removal), example),
            "counted": self._padded(counts.astype(float), example),
            "clean": self._by_target(clean_values(example)),
            "explained": self._by_target(example.position.astype(float)),
        }
        if self.model.kind == "embedding":
            share = example.vector_share[0]
            arrays["vector_share"] = np.pad(share, (0, self._sides[1] - len(share)))
        if "integrated_gradients" in self.methods:
            arrays["completeness_error"] = self._by_target(cache.integrated.error)
        if "rollout_effect" in self.methods:
            arrays["negative_share"] = self._by_target(np.array([negative_share(each) for each in cache.helps]))
        if self.spec.fractions:
            grown, everything = self._erased(example, scores, counts, removal)
            arrays["erased"] = np.moveaxis(self._by_target(np.moveaxis(grown, -2, -1)), -1, -2)
            arrays["erased_all"] = self._by_target(everything)
        return arrays

    def _erased(
        self, example: Example, scores: np.ndarray, counts: np.ndarray, removal: Removal
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute the erasure curves, by token or by whole words."""
        fill, parts = fill_of(lead_occlusion(self.causes), example, removal), each_token(example)
        if self.spec.level == "word":
            parts, visible = words_of(example), np.broadcast_to(example.visible, counts.shape)
            scores, counts = sum_by_word(scores, parts), count_words(counts, visible, parts)
        return erase(example, scores, counts, self.spec.fractions, fill, parts)

    def _by_target(self, values: np.ndarray) -> np.ndarray:
        """Pad […, target] with NaN to the largest number of targets."""
        missing = self.n_targets - values.shape[-1]
        return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)], constant_values=np.nan)

    def _padded(self, values: np.ndarray, example: Example) -> np.ndarray:
        """Pad […, target, node] with NaN: the source's tokens, then the prompt's own."""
        sides = (slice(0, example.nodes.source), slice(example.nodes.source, None))
        by_side = [
            np.pad(each, [(0, 0)] * (each.ndim - 1) + [(0, size - each.shape[-1])], constant_values=np.nan)
            for each, size in zip((values[..., side] for side in sides), self._sides, strict=True)
        ]
        return np.moveaxis(self._by_target(np.moveaxis(np.concatenate(by_side, -1), -2, -1)), -1, -2)

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """Join all units as labelled arrays; those over tokens once for the prompt's own and once for its source."""
        order = [number for batch in plan["batches"] for number in batch]
        whole = {name: np.concatenate([unit[name] for unit in units])[np.argsort(order)] for name in units[0]}
        n_source, note = self._sides[0], self._note(plan)
        arrays: dict[str, Any] = {}
        for name, axis in (("attribution", "attribution_method"), ("cause", "cause_kind"), ("counted", "policy")):
            dims = ("prompt", axis, "target_position")
            values = whole[name].astype(np.float32) if axis != "policy" else whole[name] == 1
            if n_source:
                arrays[f"source_{name}"] = ((*dims, "source_position"), values[..., :n_source], note[axis])
            arrays[name] = ((*dims, "position"), values[..., n_source:], note[axis])
        explained = whole["explained"]
        arrays["explained"] = (_TARGET, np.where(np.isnan(explained), -1, explained).astype(int), note["explained"])
        arrays["explained_value"] = (_TARGET, whole["clean"], note["explained_value"])
        for name in ("completeness_error", "negative_share"):
            if name in whole:
                arrays[name] = (_TARGET, whole[name], note[name])
        if "vector_share" in whole:
            arrays["vector_share"] = (("prompt", "position"), whole["vector_share"], note["vector_share"])
        if "erased" in whole:
            arrays["erased"] = (_ERASED, whole["erased"].astype(np.float32), note["erased"])
            arrays["erased_all"] = (("prompt", "policy", "target_position"), whole["erased_all"], note["erased"])
        coords = {"attribution_method": plan["methods"], "cause_kind": plan["causes"], "policy": plan["policies"]}
        if "erased" in whole:
            coords |= {"curve": list(CURVES), "fraction": plan["fractions"]}
        return xr.Dataset(arrays, coords)

    def _note(self, plan: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Return the units and methods of the arrays, for their attributes."""
        vector = self.model.kind == "embedding"
        unit = "cosine distance of the text's vector to the clean one" if vector else "loss, nats"
        slope = "the vector's length along its clean direction" if vector else "log-probability of the right token"
        rolled = self.spec.rollout
        return {
            "attribution_method": {
                "units": "as each method gives; larger: more of the prediction is attributed to the token",
                "method": f"rollout: {rolled}; gradients of the {slope}, at the embeddings; integrated gradients from "
                f"the mean embedding, {self.spec.ig_steps} points and more where the path is rough; "
                "flow rounded to 1e-6",
                "left_out": json.dumps(plan["left_out"], ensure_ascii=False),
            },
            "cause_kind": {
                "units": unit,
                "method": "its increase when the token is removed (positive: the token helped); delete moves later "
                "tokens up by one place",
            },
            "policy": {
                "units": "which tokens count",
                "method": "keep: all that the target can attend to; drop: without special tokens, the first token and "
                "the one at which the target is predicted",
            },
            "explained": {"units": "position at which the target is predicted; -1: none"},
            "explained_value": {"units": unit},
            "completeness_error": {
                "units": f"{slope}: completeness error, |Σ scores − the difference between baseline and text|"
            },
            "vector_share": {
                "units": "share of the text's vector that is pooled from the token",
                "method": self.model.pooling,
            },
            "negative_share": {"units": "share of all head effects that hurts, which rollout_effect leaves out"},
            "erased": {
                "units": unit,
                "method": f"its increase when tokens are removed ({plan['taken_away_by']}): deletion, the strongest "
                "share; insertion, all but the strongest share",
            },
        }


_TARGET = ("prompt", "target_position")
_ERASED = ("prompt", "attribution_method", "policy", "curve", "target_position", "fraction")


def part(spec: RunSpec, model: Model, prompts: Prompts) -> Part:
    """Return the attribution stage and table of a run."""
    stage = AttributionStage(model, prompts, spec.attribution)
    return Part([stage], [MethodTable(spec.attribution, spec.stats)])


def pairs_part(spec: RunSpec, model: Model, prompts: Prompts) -> Part:
    """Return the table of paired differences, which is made after the top head was added to the methods."""
    return Part(closings=[PairTable(spec.attribution, spec.stats)])
