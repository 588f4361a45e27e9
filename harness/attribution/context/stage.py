"""The trace stage: attribute predictions to the segments (parts) of their prompts; one unit is one prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from harness.attribution.causes import Removal, choose_causes
from harness.attribution.context.part_attention import part_attention
from harness.attribution.context.segment_table import SegmentTables
from harness.attribution.example import Example, clean_values, example_of, limit_targets
from harness.attribution.gradients import norms_in_turn
from harness.attribution.knockout import knock_out_in
from harness.attribution.occlusion import mean_embedding
from harness.config import RequestError, RolloutSpec, RunSpec, TraceSpec
from harness.execute import Part
from harness.execute.cost import Trial, at_most
from harness.hooks import Head
from harness.models import Model, alone
from harness.prompts import Prompts
from harness.prompts.prompt import ANSWER, QUESTION, SPECIAL

Arrays = dict[str, np.ndarray]
#: Parts that are not candidates: a prediction always uses the question, and its own beginning.
EXCLUDED = (QUESTION, ANSWER, SPECIAL)

_CAUSE = ("prompt", "traced", "taken", "part")


@dataclass(frozen=True)
class TraceStage:
    """The stage that attributes predictions to parts. `heads` are those that may be knocked out one at a time.

    Raises `RequestError` for prompts without parts, for a model that reads one text and writes another, and for causes
    that the model does not allow.
    """

    model: Model
    prompts: Prompts
    spec: TraceSpec
    heads: tuple[Head, ...]
    rollout: RolloutSpec = field(default_factory=RolloutSpec)
    seed: int = 0
    name: str = "trace"

    def __post_init__(self) -> None:
        if self.prompts.source is not None:
            remedy = "it reads one text and writes another, and parts are of one: choose a decoder or an encoder"
            raise RequestError("model", self.model.name, remedy)
        if not self.prompts.has_parts:
            remedy = "they have no parts: set prompts=context, or tag words with prompts.words={TAG: [word]}"
            raise RequestError("prompts", self.prompts.name, remedy)
        if not self._candidates:
            raise RequestError("prompts", self.prompts.name, "they have no part but the question and the answer")
        choose_causes(self.spec.causes, self.model)
        if self.spec.heads != "none" and self.model.no_mixing:
            raise RequestError("trace.heads", self.spec.heads, f"{self.model.no_mixing}; set trace.heads=none")

    @cached_property
    def parts(self) -> list[str]:
        """The names of all parts, in order of first appearance in a prompt."""
        return [name for name in dict.fromkeys(map(str, self.prompts.part.ravel())) if name]

    @property
    def _candidates(self) -> list[str]:
        return [name for name in self.parts if name not in EXCLUDED]

    @cached_property
    def explained(self) -> Prompts:
        return limit_targets(self.prompts, self.spec.targets)

    @cached_property
    def _removal(self) -> Removal:
        ordinary = self.prompts.token_id[(self.prompts.token_id >= 0) & ~self.prompts.special]
        return Removal(mean_embedding(self.model), ordinary)

    @property
    def n_targets(self) -> int:
        return 1 if self.model.kind == "embedding" else int(self.explained.target.sum(axis=1).max())

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]:
        return {
            "batches": [[number] for number in range(len(self.prompts))],
            "parts": self.parts,
            "causes": list(choose_causes(self.spec.causes, self.model)),
            "heads": list(map(str, self.heads)) if self.spec.heads != "none" else [],
            "heads_of": self.spec.heads,
            "targets": self.n_targets,
            "seed": self.seed,
        }

    def work(self) -> float:
        """Return the work as forwards of one row, at most.

        A gradient is one forward, and for each target a backward pass, which costs two; blocks before a head do not run
        again, but its own pattern is computed once more.
        """
        shape, spec = self.model.shape, self.spec
        targets = self.explained.target.sum(axis=1) if self.model.kind != "embedding" else np.ones(len(self.prompts))
        rows = targets if self.model.kind == "masked_lm" else np.ones(len(targets))
        there = np.array([[name in row for name in self.parts] for row in self.prompts.part], dtype=int)
        taken = there @ [name != ANSWER for name in self.parts]
        carried = {"none": 0, "used": 1, "every": there @ [name not in EXCLUDED for name in self.parts]}[spec.heads]
        layers = {head.layer for head in self.heads}
        by_head = len(layers) + sum(1 - head.layer / shape.n_layers for head in self.heads)
        gradients = spec.gradient * (1 + 2 * targets)
        causes = len(choose_causes(spec.causes, self.model)) * taken
        return float((rows * (2 + causes + carried * by_head + gradients)).sum())

    def cost(self, trial: Trial) -> str:
        heads = "no heads" if self.spec.heads == "none" else f"{len(self.heads)} heads ({self.spec.heads})"
        done = f"{len(self.parts)} parts, {len(self.spec.causes)} causes, {heads}"
        return at_most(len(self.prompts), done, self.work(), trial(self.model, self.prompts))

    @alone
    def compute(self, plan: Mapping[str, Any], unit: int) -> Arrays:
        """Compute one prompt, every array with the prompt first, padded with NaN to the prompt with most targets."""
        number = plan["batches"][unit][0]
        example = example_of(self.model, self.explained.take([number]))
        names = self.prompts.part[number, : len(example.nodes)]
        inside = np.array([names == part for part in self.parts])
        attention, rolled = part_attention(example, inside, self.rollout)
        cause = self._causes(example, inside, number)
        there = inside.any(axis=1)
        arrays = {
            "tokens": inside.sum(axis=1)[None].astype(float),
            "attention": np.where(there, attention, np.nan),
            "rollout": np.where(there, rolled, np.nan),
            "cause": cause,
            "clean": clean_values(example),
            "position": example.position.astype(float),
        }
        if self.spec.gradient:
            arrays["gradient"] = np.where(there, norms_in_turn(example) @ inside.T, np.nan)
        if self.spec.heads != "none":
            arrays["head_cause"] = self._by_head(example, inside, cause)
        return {name: each if name == "tokens" else self._padded(each)[None] for name, each in arrays.items()}

    def _padded(self, values: np.ndarray) -> np.ndarray:
        """Pad [target, …] with NaN."""
        missing = self.n_targets - len(values)
        return np.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1), constant_values=np.nan)

    def _removable(self, inside: Bool[np.ndarray, "part node"]) -> list[int]:
        """Return the parts that can be removed: those in the prompt, without the answer's own tokens."""
        return [at for at, name in enumerate(self.parts) if inside[at].any() and name != ANSWER]

    def _causes(
        self, example: Example, inside: Bool[np.ndarray, "part node"], number: int
    ) -> Float[np.ndarray, "target taken part"]:
        """Return the increase of the explained number without each part, by each cause."""
        which = self._removable(inside)
        nodes = [np.flatnonzero(inside[at]).tolist() for at in which]
        removal = replace(self._removal, seed=(self.seed, number))
        causes = choose_causes(self.spec.causes, self.model)
        effects = np.full((example.n_targets, len(causes), len(self.parts)), np.nan)
        for kind, cause in enumerate(causes.values()):
            effects[:, kind, which] = cause(example, nodes, removal).T
        return effects

    def _by_head(
        self,
        example: Example,
        inside: Bool[np.ndarray, "part node"],
        cause: Float[np.ndarray, "target taken part"],
    ) -> Float[np.ndarray, "target layer head part"]:
        """Return the increase under attention knockout of a part in one head only, a layer at a time."""
        shape = self.model.shape
        effects = np.full((example.n_targets, shape.n_layers, shape.n_heads, len(self.parts)), np.nan)
        for part in self._carried(inside, cause):
            nodes = np.flatnonzero(inside[part]).tolist()
            for layer in range(shape.n_layers):
                mine = [head for head in self.heads if head.layer == layer]
                if mine:
                    grown = knock_out_in(example, [(nodes, [head]) for head in mine])
                    effects[:, layer, [head.head for head in mine], part] = grown.T
        return effects

    def _carried(
        self, inside: Bool[np.ndarray, "part node"], cause: Float[np.ndarray, "target taken part"]
    ) -> list[int]:
        """Return the parts whose heads are knocked out: all candidates, or the one with the largest last cause."""
        candidates = [at for at in self._removable(inside) if self.parts[at] in self._candidates]
        if self.spec.heads == "every" or not candidates:
            return candidates
        return [candidates[int(np.nan_to_num(cause[:, -1].mean(axis=0)[candidates], nan=-np.inf).argmax())]]

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """Join all units as labelled arrays."""
        whole = {name: np.concatenate([unit[name] for unit in units]) for name in units[0]}
        loss = "cosine distance of the text's vector to the clean one" if self._vector else "loss, nats"
        grown = f"{loss}: how much it grows (positive: the part helped)"
        notes: dict[str, tuple[tuple[str, ...], str, str]] = {
            "tokens": (("prompt", "part"), "tokens", ""),
            "attention": (
                ("prompt", "traced", "layer", "head", "part"),
                "share of a head's attention",
                "from the token at which a target is predicted (of a vector: from those pooled) to the part's tokens",
            ),
            "rollout": (("prompt", "traced", "part"), "share of attention", f"attention rollout {self.rollout}"),
            "gradient": (
                ("prompt", "traced", "part"),
                "L2 norm per unit of embedding",
                "norms of the gradient at the part's embeddings, summed over its tokens",
            ),
            "cause": (_CAUSE, grown, "the whole part removed; delete moves later tokens up"),
            "head_cause": (
                ("prompt", "traced", "layer", "head", "part"),
                grown,
                "attention knockout of the part in one head",
            ),
        }
        arrays: dict[str, Any] = {
            f"part_{name}": (dims, whole[name].astype(np.float32), {"units": units_, "method": method})
            for name, (dims, units_, method) in notes.items()
            if name in whole
        }
        position = whole["position"]
        arrays["traced_position"] = (("prompt", "traced"), np.where(np.isnan(position), -1, position).astype(int))
        arrays["traced_value"] = (("prompt", "traced"), whole["clean"], {"units": loss})
        shape = self.model.shape
        coords = {"part": plan["parts"], "taken": plan["causes"]}
        return xr.Dataset(arrays, coords | {"layer": np.arange(shape.n_layers), "head": np.arange(shape.n_heads)})

    @property
    def _vector(self) -> bool:
        return self.model.kind == "embedding"


def part(spec: RunSpec, model: Model, prompts: Prompts) -> Part:
    """Return the trace stage and tables of a run."""
    heads = model.heads(list(spec.heads))
    stage = TraceStage(model, prompts, spec.trace, heads, spec.attribution.rollout, spec.seed)
    return Part([stage], [SegmentTables(spec.stats)])
