"""Prepare and check a request, model, prompts and stages, before anything is written."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from harness import attention, compare, config, head_card, metrics, stats, sweep
from harness.attribution import saved_rollout
from harness.attribution.context import stage as context_stage
from harness.attribution.evaluate import stage as evaluate_stage
from harness.behaviour import stage as text_stage
from harness.behaviour import tasks as task_stage
from harness.compare.comparison import Comparison
from harness.compare.stage import OtherStage
from harness.config import RequestError, RunSpec, SweepSpec
from harness.execute import Chain, Closing, Part, Stage
from harness.findings import questions
from harness.metrics import choose
from harness.models import Model, load_model
from harness.prompts import Prompts, check_prompts, load_prompts
from harness.roles import sets as role_sets
from harness.roles import stage as roles_stage
from harness.sweep import Ablating

#: Builders of a run's parts, in the order in which they run. To add one: write a `part` in its room, and add it here.
BUILDERS: dict[str, Callable[[RunSpec, Model, Prompts], Part]] = {
    "patterns": attention.part,
    "rollout": saved_rollout.part,
    "roles": roles_stage.part,
    "role_sets": role_sets.part,
    "sweep": sweep.part,
    "cards": head_card.part,
    "study_cards": head_card.study_part,
    "attribution": evaluate_stage.part,
    "method_pairs": evaluate_stage.pairs_part,
    "trace": context_stage.part,
    "texts": text_stage.part,
    "tasks": task_stage.part,
}
#: The parts of each runner.
PARTS = {
    "study": ("patterns", "sweep", "study_cards", "rollout", "attribution", "roles"),
    "cache_attention": ("patterns", "rollout"),
    "ablate_heads": ("sweep",),
    "explain_heads": ("patterns", "sweep", "cards"),
    "compare_attributions": ("patterns", "rollout", "attribution", "method_pairs"),
    "compare_models": ("patterns", "rollout", "sweep", "roles"),
    "trace_context": ("trace",),
    "profile_heads": ("patterns", "rollout", "roles", "role_sets"),
    "generate": ("texts",),
    "evaluate": ("tasks",),
}


@dataclass(frozen=True)
class OtherModel:
    """The second model of a comparison, its prompts, and how the two are paired."""

    model: Model
    prompts: Prompts
    how: compare.Pairing


@dataclass
class Request:
    """A checked request: model, prompts and stages, ready to run."""

    runner: str
    spec: RunSpec
    model: Model
    prompts: Prompts
    stages: list[Stage | Chain]
    closings: list[Closing]
    started: float = field(default_factory=time.time)
    #: The manifest that a resumed run has so far.
    before: Mapping[str, Any] | None = None
    #: The sweep's checks from its arrays, once these are computed.
    checks: dict[str, Any] | None = None
    other: OtherModel | None = None
    #: The directory of the saved run whose settings were changed.
    parent: str | None = None
    #: Which method `sweep.method=auto` stands for, and why; empty where a method was named.
    method: str = ""

    @property
    def ablating(self) -> list[Ablating]:
        """The stages that ablate, of both models."""
        stages = [stage.stage if isinstance(stage, OtherStage) else stage for stage in self.stages]
        return [stage for stage in stages if isinstance(stage, Ablating)]


def parts_of(runner: str, spec: RunSpec) -> tuple[str, ...]:
    """Return the names of a run's parts: the runner's, or in a study with a question, those that its answer reads.

    Raises `RequestError` for an unknown question, and one that the runner cannot answer.
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
    """Check what needs no model: names of metrics, the question, files of prompts, the statistics, and the settings of
    a comparison of two models. Raises `RequestError`."""
    parts = parts_of(runner, spec)
    metrics.check_names(spec.metrics)
    check_prompts(spec.prompts)
    config.check_comparison(runner, spec)
    config.check_text_heads(runner, spec)
    config.check_tasks(runner, spec)
    if "sweep" in parts:
        sweep.check_sets(spec.sweep, spec.sets, spec.n_random_sets)
        sweep.check_edges(spec.sweep, spec.edges)
    if {"sweep", "attribution", "roles"} & set(parts):
        _check_statistics(spec)


def _check_statistics(spec: RunSpec) -> None:
    """Raise `RequestError` for options that the statistics at the run's end would refuse, by a trial on zeros."""
    stats.summarize(
        np.zeros((1, 1, 1)),
        confidence=spec.stats.confidence,
        level=spec.stats.level,
        resamples=spec.stats.resamples,
        min_effect=spec.stats.min_effect,
    )


def prepare(runner: str, spec: RunSpec) -> Request:
    """Load the model and prompts of a request, check them against each other, and build the stages."""
    check_names(runner, spec)
    model = load_model(spec.model)
    prompts = load_prompts(spec.prompts, model, scored=PARTS[runner] not in (("texts",), ("tasks",)))
    spec, method = _with_method(runner, spec, model, prompts)
    parts = _parts(runner, spec, model, prompts)
    closings = dict.fromkeys(closing for part in parts for closing in part.closings)
    stages = [stage for part in parts for stage in part.stages]
    work = Request(runner, spec, model, prompts, stages, list(closings), method=method)
    if spec.compare.model is not None:
        _add_other(work, spec.compare.model)
    _check_shown(work)
    return work


def _with_method(runner: str, spec: RunSpec, model: Model, prompts: Prompts) -> tuple[RunSpec, str]:
    """Return the spec with the method of its sweep chosen, and why (`sweep.choose_method`)."""
    if "sweep" not in parts_of(runner, spec):
        return spec, ""

    def build(own: SweepSpec) -> Sequence[Stage | Chain]:
        return sweep.part(replace(spec, sweep=own), model, prompts).stages

    chosen, why = sweep.choose_method(spec.sweep, build, spec.execute.workers or 1)
    return replace(spec, sweep=chosen), why


def _parts(runner: str, spec: RunSpec, model: Model, prompts: Prompts) -> list[Part]:
    """Build the parts of a run for a model and its prompts, with roles where pairs are chosen by them."""
    names = {*parts_of(runner, spec)}
    names |= {"roles"} if "sweep" in names and sweep.needs_roles(spec.sweep) else set()
    return [build(spec, model, prompts) for name, build in BUILDERS.items() if name in names]


def _add_other(work: Request, named: Any) -> None:
    """Add the other model with the same parts. Raises `RequestError` where the two cannot be compared."""
    spec, other = work.spec, load_model(named)
    prompts = load_prompts(spec.prompts, other)
    how = compare.pairing(work.model, other, work.prompts, prompts)
    compare.check_metrics(choose(spec.metrics, work.prompts), choose(spec.metrics, prompts))
    if spec.heads != ("all",) and not how.same_heads:
        raise RequestError(
            "heads", ",".join(spec.heads), f"{other.name} has other heads; two sizes are compared by role"
        )
    work.other = OtherModel(other, prompts, how)
    work.stages += [
        OtherStage(stage, how) for part in _parts(work.runner, spec, other, prompts) for stage in part.stages
    ]
    work.closings.insert(0, Comparison(work.model, other, how, spec.compare, spec.stats))


def _check_shown(work: Request) -> None:
    """Raise `RequestError` for prompts and heads that the report at the run's end cannot show."""
    shown = work.spec.show
    for number in shown.prompts:
        if not 0 <= number < len(work.prompts):
            raise RequestError("show.prompts", number, f"the run has prompts 0-{len(work.prompts) - 1}")
    if shown.heads:
        work.model.heads(list(shown.heads), "show.heads")
