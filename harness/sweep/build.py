"""Which stages a request for a sweep means, in an order in which each finds what it goes by."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from harness import ablation
from harness.ablation import Ablation
from harness.config import RequestError, RunSpec, SweepSpec
from harness.execute import Chain, Part, Stage
from harness.metrics import Metric, choose
from harness.models import Model
from harness.prompts import Prompts
from harness.sweep.attribution_patching import ScreenStage
from harness.sweep.cumulative import CumulativeStage
from harness.sweep.direct import has_direct
from harness.sweep.fast import FastStage
from harness.sweep.greedy import GreedyStage
from harness.sweep.head_table import HeadTable
from harness.sweep.interventions import groups
from harness.sweep.pairs import Pair, PairsStage
from harness.sweep.stage import SweepStage
from harness.sweep.verify import VerifyStage


def stages(
    model: Model,
    prompts: Prompts,
    asked: SweepSpec,
    heads: Any,
    metrics: tuple[Metric, ...],
    ablated: Ablation,
    positions: str | tuple[int, ...],
    seed: int = 0,
) -> list[Stage | Chain]:
    """The stages of all kinds that are asked for; single heads come first, and are swept too where another kind goes
    by their effects. Raises `RequestError` for what this model, these prompts or the kinds do not allow."""

    def sweep(kind: str) -> SweepStage:
        interventions = groups(model, heads, kind, asked.sets)
        how = {"kind": kind, "memory": asked.memory, "with_direct": asked.direct, "seed": seed}
        return SweepStage(model, prompts, interventions, metrics, ablated, positions, **how)

    if positions == "each" and len(asked.kind) > 1:
        raise RequestError("ablation.positions", "each", "sweep one kind at each position in turn: sweep.kind=single")
    others: list[Stage | Chain] = []
    for kind in asked.kind:
        if kind == "cumulative":
            others += _cumulative(asked, sweep(kind))
        elif kind == "pairs":
            others.append(_pairs(asked, sweep(kind)))
        elif kind != "single":
            others.append(sweep(kind))
    if "single" in asked.kind or goes_by_singles(asked):
        return [*_singles(asked, sweep("single")), *others]
    if asked.method != "exact":
        remedy = f"it is for single heads; say sweep.kind=[single,{','.join(asked.kind)}], or sweep.method=exact"
        raise RequestError("sweep.method", asked.method, remedy)
    return others


def _singles(asked: SweepSpec, sweep: SweepStage) -> list[Stage | Chain]:
    """The stages that say what single heads do: exactly; or all at a quick look and some again."""
    if asked.method != "exact" and sweep.positions == "each":
        remedy = "at each position in turn all is exact; say sweep.method=exact, or other ablation.positions"
        raise RequestError("sweep.method", asked.method, remedy)
    if asked.method == "screen":
        return [ScreenStage(sweep, asked.steps), VerifyStage(sweep, "estimate", asked.verify_top)]
    if asked.method == "exact":
        return [sweep]
    if sweep.model.spec.dtype != "float32":
        remedy = f"it multiplies in bf16 what is in float32, and model.dtype={sweep.model.spec.dtype}; say exact"
        raise RequestError("sweep.method", "fast", remedy)
    return [FastStage(sweep), VerifyStage(sweep, "fast_effect", asked.verify_top, asked.verify)]


def goes_by_singles(asked: SweepSpec) -> bool:
    """Whether an order or pairs are chosen by what single heads do."""
    ordered = "cumulative" in asked.kind and {"effect", "estimate"} & {*asked.order}
    return bool(ordered or ("pairs" in asked.kind and asked.pairs in ("effect", "direct")))


def goes_by_roles(asked: SweepSpec) -> bool:
    """Whether pairs are chosen by the roles that heads have."""
    return "pairs" in asked.kind and asked.pairs == "role"


def part(spec: RunSpec, model: Model, prompts: Prompts) -> Part:
    """The sweeps of a run, and its table of heads where single heads are among them."""
    made, positions = ablation.build(spec.ablation, model, prompts)
    metrics, heads = choose(spec.metrics, prompts), list(spec.heads)
    made_stages = stages(model, prompts, spec.sweep, heads, metrics, made, positions, spec.seed)
    return Part(made_stages, [HeadTable(spec.stats)])


@runtime_checkable
class Ablating(Protocol):
    """A stage that ablates. As a plain sweep it is one of as much work with the same checks, known before the stage
    chooses what to ablate."""

    @property
    def name(self) -> str: ...

    def as_sweep(self) -> SweepStage: ...


def _cumulative(asked: SweepSpec, sweep: SweepStage) -> list[Stage | Chain]:
    if "estimate" in asked.order and asked.method != "screen":
        raise RequestError(
            "sweep.order", "estimate", "only sweep.method=screen makes estimates; say effect, greedy or random"
        )
    if "effect" in asked.order and asked.method == "screen":
        raise RequestError(
            "sweep.order", "effect", "a screen measures few heads' effects; say estimate, greedy or random"
        )
    n = len(sweep.groups)
    steps = {"all": n}[asked.until] if isinstance(asked.until, str) else asked.until
    n_steps = min(n, steps if isinstance(steps, int) else max(1, round(steps * n)))
    greedy: list[Stage | Chain] = [GreedyStage(sweep, n_steps, asked.first)] if "greedy" in asked.order else []
    return [*greedy, CumulativeStage(sweep, asked.order, n_steps, asked.orders, asked.first)]


def _pairs(asked: SweepSpec, sweep: SweepStage) -> PairsStage:
    if not isinstance(asked.pairs, str):
        return PairsStage(sweep, _listed(sweep.model, asked.pairs))
    if len(sweep.groups) < 2:
        raise RequestError("heads", ",".join(sweep.groups), "a pair is of two heads; name at least two")
    if asked.pairs == "direct" and not has_direct(
        sweep.model, [part for parts in sweep.groups.values() for part in parts]
    ):
        raise RequestError(
            "sweep.pairs", "direct", f"nothing goes straight to the output of {sweep.model.name}; say effect"
        )
    return PairsStage(sweep, asked.pairs, asked.top)


def _listed(model: Model, pairs: Sequence[tuple[str, str]]) -> tuple[Pair, ...]:
    """The pairs that are named, each once, its heads in the order in which they run."""
    found: dict[Pair, None] = {}
    for pair in pairs:
        try:
            heads = model.heads(list(pair))
        except RequestError as error:
            raise RequestError("sweep.pairs", error.value, error.remedy) from None
        if len(heads) != 2:
            raise RequestError("sweep.pairs", "+".join(pair), "a pair is two different heads, such as [L0H1,L1H2]")
        found[heads[0], heads[1]] = None
    return tuple(found)
