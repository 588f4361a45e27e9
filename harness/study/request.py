"""What is asked, found right: model, prompts and stages, before anything is written."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from harness import ablation, attribution, compare, metrics, stats, sweep
from harness.attention import CacheStage
from harness.attribution.context.stage import TraceStage
from harness.attribution.evaluate.stage import AttributionStage
from harness.compare.stage import OtherStage
from harness.config import RequestError, RunSpec
from harness.execute import Chain, Stage
from harness.findings import questions
from harness.metrics import choose
from harness.models import Model, load_model
from harness.prompts import Prompts, check_prompts, load_prompts
from harness.roles.sets import RoleSetsStage
from harness.roles.stage import RolesStage
from harness.sweep import Ablating, SweepStage

#: Which parts each runner has.
PARTS = {
    "study": ("patterns", "sweep", "rollout", "attribution", "roles"),
    "cache_attention": ("patterns", "rollout"),
    "ablate_heads": ("sweep",),
    "compare_attributions": ("patterns", "rollout", "attribution"),
    "compare_models": ("patterns", "rollout", "sweep", "roles"),
    "trace_context": ("trace",),
    "profile_heads": ("patterns", "rollout", "roles", "role_sets"),
}


@dataclass(frozen=True)
class Other:
    """The model that is compared with, its prompts, and how the two are compared."""

    model: Model
    prompts: Prompts
    how: compare.Pairing


@dataclass
class Work:
    """A request that was found right: model, prompts and stages, ready to run."""

    runner: str
    spec: RunSpec
    model: Model
    prompts: Prompts
    stages: list[Stage | Chain]
    started: float = field(default_factory=time.time)
    #: The manifest that a resumed run has so far.
    before: Mapping[str, Any] | None = None
    #: What the sweep's arrays say of its checks, once they are there.
    checks: dict[str, Any] | None = None
    other: Other | None = None

    @property
    def ablating(self) -> list[Ablating]:
        """The stages that ablate, of both models."""
        stages = [stage.stage if isinstance(stage, OtherStage) else stage for stage in self.stages]
        return [stage for stage in stages if isinstance(stage, Ablating)]

    @property
    def has_rollout(self) -> bool:
        """Of an encoder-decoder there is none: what its decoder reads comes from the source as well."""
        return "rollout" in parts_of(self.runner, self.spec) and self.prompts.source is None


def parts_of(runner: str, spec: RunSpec) -> tuple[str, ...]:
    """The parts of a run: the runner's; of a study that is asked a question, what its answer is read from.

    Raises `RequestError` for a question that nobody knows, and one that the runner cannot answer.
    """
    if spec.question is None:
        return PARTS[runner]
    needs = questions.known(spec.question).needs
    if runner != "study" and not {*needs} <= {*PARTS[runner]}:
        lacking = " and ".join(part for part in needs if part not in PARTS[runner])
        remedy = f"{runner} does not measure what it is answered from ({lacking}); ask it of experiments.study"
        raise RequestError("question", spec.question, remedy)
    return needs if runner == "study" else PARTS[runner]


def check_names(runner: str, spec: RunSpec) -> None:
    """What can be found wrong without a model: names of metrics, the question, files of prompts, the statistics, and
    which settings two models can be compared by."""
    parts = parts_of(runner, spec)
    metrics.check_names(spec.metrics)
    check_prompts(spec.prompts)
    if runner == "compare_models":
        _check_comparable(spec)
    elif spec.other is not None:
        remedy = f"{runner} reads one model; two are for experiments.compare_models"
        raise RequestError("other", spec.other.name, remedy)
    if {"sweep", "attribution", "roles"} & set(parts):
        _check_statistics(spec)


def _check_comparable(spec: RunSpec) -> None:
    """Refuse settings by which two models cannot be compared."""
    if spec.other is None:
        remedy = "say which model to compare with, other.name=NAME, or what it has else, such as other.dtype=bfloat16"
        raise RequestError("other", "null", remedy)
    if spec.sweep.kind != ("single",):
        raise RequestError("sweep.kind", ",".join(spec.sweep.kind), "two models are compared head by head: say single")
    if spec.sweep.method != "exact":
        raise RequestError("sweep.method", spec.sweep.method, "two models are compared by exact effects: say exact")
    if spec.ablation.positions == "each":
        raise RequestError("ablation.positions", "each", "two models are compared over all positions: say all or last")


def _check_statistics(spec: RunSpec) -> None:
    """What the statistics at the run's end would refuse, by those of nothing."""
    stats.summarize(
        np.zeros((1, 1, 1)),
        confidence=spec.stats.confidence,
        level=spec.stats.level,
        resamples=spec.stats.resamples,
        min_effect=spec.stats.min_effect,
    )


def prepare(runner: str, spec: RunSpec) -> Work:
    """Load what the request names and check the one against the other."""
    check_names(runner, spec)
    model = load_model(spec.model)
    prompts = load_prompts(spec.prompts, model)
    work = Work(runner, spec, model, prompts, _stages(runner, spec, model, prompts))
    if spec.other is not None:
        _add_other(work, spec.other)
    _check_end(work)
    return work


def _stages(runner: str, spec: RunSpec, model: Model, prompts: Prompts) -> list[Stage | Chain]:
    """What the runner does with a model and its prompts."""
    parts, stages = parts_of(runner, spec), list[Stage | Chain]()
    if "patterns" in parts:
        stages.append(CacheStage.of(model, prompts, spec.cache))
    if "roles" in parts or ("sweep" in parts and sweep.goes_by_roles(spec.sweep)):
        stages.append(RolesStage(model, prompts, spec.roles, spec.stats))
    if "role_sets" in parts and spec.roles.sets:
        stages.append(_role_sets(spec, model, prompts))
    if "sweep" in parts:
        stages += _sweeps(spec, model, prompts)
    if "attribution" in parts:
        stages.append(AttributionStage(model, prompts, spec.attribution))
    if "trace" in parts:
        heads = model.heads(list(spec.heads))
        stages.append(TraceStage(model, prompts, spec.trace, heads, spec.attribution.rollout, spec.seed))
    return stages


def _add_other(work: Work, named: Any) -> None:
    """The other model, and what is done with it: the same. Raises `RequestError` where the two cannot be compared."""
    spec, other = work.spec, load_model(named)
    prompts = load_prompts(spec.prompts, other)
    how = compare.pairing(work.model, other, work.prompts, prompts)
    compare.check_metrics(choose(spec.metrics, work.prompts), choose(spec.metrics, prompts))
    if spec.heads != ("all",) and not how.same_heads:
        raise RequestError(
            "heads", ",".join(spec.heads), f"{other.name} has other heads; two sizes are compared by role"
        )
    work.other = Other(other, prompts, how)
    work.stages += [OtherStage(stage, how) for stage in _stages(work.runner, spec, other, prompts)]


def _sweeps(spec: RunSpec, model: Model, prompts: Prompts) -> Sequence[Stage | Chain]:
    """The stages that ablate."""
    made, positions = ablation.build(spec.ablation, model, prompts)
    measured, heads = choose(spec.metrics, prompts), list(spec.heads)
    return sweep.stages(model, prompts, spec.sweep, heads, measured, made, positions, spec.seed)


def _role_sets(spec: RunSpec, model: Model, prompts: Prompts) -> RoleSetsStage:
    """The stage that ablates the heads of each role together."""
    made, positions = ablation.build(spec.ablation, model, prompts)
    measured, heads = choose(spec.metrics, prompts), sweep.groups(model, list(spec.heads))
    memory = spec.sweep.memory
    swept = SweepStage(model, prompts, heads, measured, made, positions, kind="set", memory=memory, seed=spec.seed)
    return RoleSetsStage(swept, spec.roles.sets, spec.roles.seed)


def _check_end(work: Work) -> None:
    """What the run's end would refuse, asked now: a rollout of next to nothing, and what to show."""
    spec, shown = work.spec, work.spec.show
    if work.has_rollout:
        attribution.rollout(np.ones((work.model.shape.n_layers, 1, 1, 1)), **asdict(spec.attribution.rollout))
    for number in shown.prompts:
        if not 0 <= number < len(work.prompts):
            raise RequestError("show.prompts", number, f"the run has prompts 0-{len(work.prompts) - 1}")
    if shown.heads:
        work.model.heads(list(shown.heads), "show.heads")
