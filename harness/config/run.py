"""The spec of a run, with those of its parts that have no file of their own, and its hash."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import ArgsKwargs

from harness.config.ablation import AblationSpec, ZeroAblation, check_everywhere
from harness.config.attribution import AttributionSpec
from harness.config.edges import EdgesSpec
from harness.config.errors import RequestError
from harness.config.execute import ExecuteSpec, LocalExecute
from harness.config.models import ModelSpec
from harness.config.parsing import model_to_compare
from harness.config.prompts import PromptSpec
from harness.config.published import Published
from harness.config.sweep import OF_SPEED, Also, SweepSpec
from harness.config.texts import TextSpec
from harness.config.trace import TraceSpec
from harness.config.types import Count, Heads, Names, OpenFraction, PathText, PositiveInt, Seed, spec


@spec
class StatsSpec:
    """Options of the statistics."""

    confidence: OpenFraction = 0.95
    """Confidence of the intervals."""
    level: OpenFraction = 0.05
    """Level below which a corrected q-value is significant."""
    resamples: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Bootstrap resamples, all in memory at once."""
    min_effect: Annotated[float, Field(ge=0)] = 0.05
    """Smallest important effect, as a share of the clean value."""
    seed: Seed = 0
    """Seed of the bootstrap."""


@spec
class CacheSpec:
    """Activations to cache beside the patterns."""

    dtype: Literal["float32", "float16"] = "float32"
    """Precision of what is kept."""
    also: Also = ()
    """Activations to keep beside the patterns: z, q, k, v, scores, resid."""
    heads: Heads = ("all",)
    """Heads of which they are kept; patterns are kept of all."""

    def __post_init__(self) -> None:
        if self.heads != ("all",) and not self.also:
            raise RequestError("cache.heads", list(self.heads), "patterns are kept of all heads; set cache.also=[z]")


@spec
class RolesSpec:
    """When a head has a role, and what its roles are measured on.

    A head has a role where its score exceeds the null distribution, corrected over all heads (``stats.level``), and
    `threshold`. Roles other than induction, duplicate tokens and copying are measured on the prompts.
    """

    threshold: OpenFraction = 0.4
    """A role needs a score at least so far from chance towards 1."""
    draws: PositiveInt = 200
    """Draws of the null distribution."""
    n: PositiveInt = 8
    """Texts of repeated random tokens, for induction, duplicate tokens and copying."""
    length: Annotated[int, Field(ge=4)] = 24
    """Tokens of such a text, before they are repeated."""
    seed: Seed = 0
    """Seed of the draws."""


@spec
class CompareSpec:
    """The second model of a comparison (see `harness.config.model_to_compare`), and how the two are compared."""

    model: ModelSpec | None = None
    """Second model: a name, or keys that differ from the first: compare.model.dtype=bfloat16."""
    special: Literal["keep", "drop"] = "keep"
    """Keep special tokens in the patterns, or drop them and renormalise the rows."""


@spec
class ShowSpec:
    """What a report opens with."""

    prompts: tuple[int, ...] = ()
    """Prompts, by number, that the report opens with."""
    heads: Heads = ()
    """Heads that the report opens with."""
    level: Literal["token", "word"] = "token"
    """Unit that the report opens with."""


@spec
class RunSpec:
    """The full request of one run, but for where it is written (`Place`)."""

    model: ModelSpec
    """Model to study."""
    prompts: PromptSpec
    """Prompts it reads."""
    ablation: AblationSpec = Field(default_factory=ZeroAblation)
    """What replaces a head's z."""
    metrics: Names = ("auto",)
    """Metrics: loss, logit_diff, logit, kl, accuracy, prob, label, embedding, choice_margin; auto: what is possible."""
    heads: Heads = ("all",)
    """Heads: L5H1, a layer L7, a range L15-L29, or all."""
    sets: Mapping[str, Heads] = Field(default_factory=dict)
    """Named sets of heads: {movers: [L5H1, L7]}."""
    n_random_sets: Count = 0
    """Random sets of equal size beside each set, for comparison."""
    sweep: SweepSpec = Field(default_factory=SweepSpec)
    """What is ablated together, and how."""
    edges: EdgesSpec = Field(default_factory=EdgesSpec)
    """Edges from heads to later heads and MLPs."""
    stats: StatsSpec = Field(default_factory=StatsSpec)
    """Statistics."""
    cache: CacheSpec = Field(default_factory=CacheSpec)
    """Activations to keep."""
    attribution: AttributionSpec = Field(default_factory=AttributionSpec)
    """Attribution methods and causes."""
    trace: TraceSpec = Field(default_factory=TraceSpec)
    """Tracing to the segments of a prompt."""
    texts: TextSpec = Field(default_factory=TextSpec)
    """Texts written with heads ablated."""
    tasks: Names = ()
    """Tasks of lm-evaluation-harness, by name."""
    tasks_path: PathText | None = None
    """Folder of tasks of one's own: lm-evaluation-harness's YAML files, and their data."""
    tasks_limit: PositiveInt | None = None
    """Number of items of each task, from its beginning; null: all."""
    question: str | None = None
    """Question to answer in one sentence; a study then runs only what its answer reads."""
    roles: RolesSpec = Field(default_factory=RolesSpec)
    """Roles of heads."""
    execute: ExecuteSpec = Field(default_factory=LocalExecute)
    """Where the units of work run."""
    show: ShowSpec = Field(default_factory=ShowSpec)
    """What the report opens with."""
    published: tuple[Published, ...] = ()
    """Published values to compare with."""
    seed: Seed = 0
    """Seed of all draws whose own seed is not set."""
    compare: CompareSpec = Field(default_factory=CompareSpec)
    """Second model of compare_models."""

    @model_validator(mode="before")
    @classmethod
    def _complete_second_model(cls, values: Any) -> Any:
        keys = values.kwargs if isinstance(values, ArgsKwargs) else values
        if not isinstance(keys, Mapping):
            return values
        compare = keys.get("compare")
        if not isinstance(compare, Mapping) or compare.get("model") is None:
            return values
        second = model_to_compare(keys.get("model"), compare["model"])
        return {**keys, "compare": {**compare, "model": second}}


def check_comparison(runner: str, spec: RunSpec) -> None:
    """Raise `RequestError` for a second model that `runner` does not read, and for settings that a comparison of two
    models does not support."""
    if runner != "compare_models":
        if spec.compare.model is not None:
            remedy = f"{runner} reads one model; two are for experiments.compare_models"
            raise RequestError("compare.model", spec.compare.model.name, remedy)
        return
    if spec.compare.model is None:
        remedy = "name the model to compare with, compare.model=NAME, or what differs: compare.model.dtype=bfloat16; "
        remedy += "saved runs are set side by side by collect"
        raise RequestError("compare.model", "null", remedy)
    if spec.sweep.kind != ("single",):
        raise RequestError("sweep.kind", ",".join(spec.sweep.kind), "two models are compared head by head: use single")
    if spec.sweep.method != "exact":
        raise RequestError("sweep.method", spec.sweep.method, "two models are compared by exact effects: use exact")
    if spec.ablation.of != ("z",):
        raise RequestError("ablation.of", ",".join(spec.ablation.of), "two models are compared by effects of z: use z")
    if spec.ablation.positions == "each":
        raise RequestError("ablation.positions", "each", "two models are compared over all positions: use all or last")


def check_tasks(runner: str, spec: RunSpec) -> None:
    """Raise `RequestError` for tasks without names, without lm-evaluation-harness, or with an ablation that depends on
    the position: answers of different lengths share a forward, padded."""
    if runner != "evaluate":
        return
    if find_spec("lm_eval") is None:
        raise RequestError("tasks", ",".join(spec.tasks), "install the tasks: pip install 'attention-harness[eval]'")
    if not spec.tasks:
        raise RequestError("tasks", "[]", "name at least one: tasks=[arc_easy], or one of tasks_path=DIR")
    if spec.tasks_path is not None and not Path(spec.tasks_path).is_dir():
        raise RequestError("tasks_path", spec.tasks_path, "there is no such folder")
    check_everywhere(spec.ablation, "tasks have texts of any length")


def check_text_heads(runner: str, spec: RunSpec) -> None:
    """Raise `RequestError` for texts that are to be written with all heads ablated because none are named."""
    if runner in ("generate", "evaluate") and not spec.sets and spec.heads == ("all",):
        remedy = "name the heads to write without, heads=[L5H1], or sets of them: sets={movers: [L5H1, L6]}"
        raise RequestError("heads", "all", remedy)


#: Keys that do not change a run's numbers: how fast it is, how it is shown, what it is compared with.
NOT_IN_HASH = ("execute", "show", "published")


def spec_hash(runner: str, spec: RunSpec) -> str:
    """Return eight hex digits that change whenever a number of the run could."""
    return settings_hash(runner, asdict(spec))


def settings_hash(runner: str, settings: Mapping[str, Any]) -> str:
    """Return the hash of a spec's plain values."""
    plain = {key: value for key, value in settings.items() if key not in NOT_IN_HASH}
    plain["sweep"] = {key: value for key, value in plain["sweep"].items() if key not in OF_SPEED}
    text = json.dumps({"runner": runner, **plain}, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
