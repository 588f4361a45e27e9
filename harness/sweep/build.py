"""Build the stages of a sweep from its request, each after the stages whose results it needs."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from harness import ablation
from harness.ablation import Ablation
from harness.ablation.patch import Patch, prompts_to_patch
from harness.config import Activation, EdgesSpec, RequestError, RunSpec, SweepSpec
from harness.execute import Chain, Part, Stage
from harness.metrics import Metric, choose
from harness.models import Model
from harness.prompts import Prompts
from harness.sweep.account import check_account
from harness.sweep.activation_table import ActivationTable
from harness.sweep.attribution_patching import ScreenStage
from harness.sweep.cumulative import CumulativeStage
from harness.sweep.direct import has_direct
from harness.sweep.edges.build import check_edges, edge_stages
from harness.sweep.edges.table import EdgeTable
from harness.sweep.fast import FastStage
from harness.sweep.greedy import GreedyStage
from harness.sweep.head_inputs import HeadInputsStage, check_activations
from harness.sweep.head_table import HeadTable
from harness.sweep.interventions import AT_EACH_POSITION, groups
from harness.sweep.pairs import Pair, PairsStage
from harness.sweep.source_direct import check_sources
from harness.sweep.stage import SweepStage
from harness.sweep.verify import VerifyStage

#: The kinds of sweep that read named sets.
READ_SETS = ("set", "complement")


def stages(
    model: Model,
    prompts: Prompts,
    spec: SweepSpec,
    heads: Any,
    metrics: tuple[Metric, ...],
    ablated: Ablation,
    positions: str | tuple[int, ...],
    seed: int = 0,
    sets: Mapping[str, Any] | None = None,
    n_random_sets: int = 0,
    edges: EdgesSpec | None = None,
    of: Sequence[Activation] = ("z",),
) -> list[Stage | Chain]:
    """Build the stages of all kinds in the request.

    Single heads come first, and are swept too where another kind needs their effects; then those of their activations
    `of` that are not z. Raises `RequestError` for what
    this model, these prompts or the kinds do not allow.
    """

    def sweep(kind: str) -> SweepStage:
        interventions = groups(model, heads, kind, sets, n_random_sets, seed)
        # Edges replace what later heads read, by hooks on their own code.
        attention = "eager" if kind == "edges" else spec.attention
        how = {"kind": kind, "memory": spec.memory, "attention": attention, "seed": seed}
        how |= {"with_direct": spec.direct, "with_sources": spec.source_direct, "with_account": spec.account}
        n_random = n_random_sets if kind in READ_SETS else 0
        return SweepStage(model, prompts, interventions, metrics, ablated, positions, n_random=n_random, **how)

    edges = edges or EdgesSpec()
    check_sets(spec, sets, n_random_sets)
    check_edges(spec, edges)
    check_activations(spec, of, positions)
    if spec.source_direct:
        check_sources(model, prompts, metrics, ablated, positions)
    if spec.account:
        check_account(model, prompts, metrics, positions)
    _check_kinds(spec, positions, ablated)
    prompts = prompts_to_patch(ablated, prompts)
    others: list[Stage | Chain] = []
    for kind in spec.kind:
        if kind == "cumulative":
            others += _cumulative(spec, sweep(kind))
        elif kind == "pairs":
            others.append(_pairs(spec, sweep(kind)))
        elif kind == "edges":
            others += edge_stages(spec, edges, sweep(kind))
        elif kind != "single":
            others.append(sweep(kind))
    if "single" in spec.kind or _needs_singles(spec):
        others = [*(_singles(spec, sweep("single")) if "z" in of else []), *others]
    return others if tuple(of) == ("z",) else [*others, HeadInputsStage.of(sweep("single"), of)]


def _check_kinds(spec: SweepSpec, positions: str | tuple[int, ...], ablated: Ablation) -> None:
    """Raise `RequestError` for kinds that do not go with positions, or with the method."""
    if positions == "each" and len(spec.kind) > 1 and (others := [k for k in spec.kind if k not in AT_EACH_POSITION]):
        known = ", ".join(AT_EACH_POSITION)
        remedy = f"sweep.kind={others[0]} does not go through the positions with others; {known} do"
        raise RequestError("ablation.positions", "each", remedy)
    if isinstance(ablated, Patch) and ablated.into == "corrupted" and spec.method != "exact":
        remedy = "estimates are from the clean run, and this patch is of the corrupted one; set sweep.method=exact"
        raise RequestError("sweep.method", spec.method, remedy)
    if spec.method != "exact" and "single" not in spec.kind and not _needs_singles(spec):
        remedy = f"it is for single heads; set sweep.kind=[single,{','.join(spec.kind)}] or sweep.method=exact"
        raise RequestError("sweep.method", spec.method, remedy)


def check_sets(spec: SweepSpec, sets: Mapping[str, Any] | None, n_random_sets: int) -> None:
    """Raise `RequestError` for named or random sets that no kind of the sweep reads."""
    for key, value in (("sets", sets), ("n_random_sets", n_random_sets)):
        if value and not {*spec.kind} & {*READ_SETS}:
            setting = " or ".join(f"sweep.kind={kind}" for kind in READ_SETS)
            raise RequestError("sweep.kind", ",".join(spec.kind), f"it does not read {key}, so set {setting}")


def _singles(spec: SweepSpec, sweep: SweepStage) -> list[Stage | Chain]:
    """Build the stages of single heads: exact; or an approximation of all, then some of them exactly."""
    if spec.method != "exact" and sweep.positions == "each":
        remedy = "at each position in turn all is exact; set sweep.method=exact or other ablation.positions"
        raise RequestError("sweep.method", spec.method, remedy)
    if spec.method == "screen":
        return [ScreenStage(sweep, spec.gradient_steps), VerifyStage(sweep, "estimate", spec.verify_top_k)]
    if spec.method == "exact":
        return [sweep]
    if sweep.model.spec.dtype != "float32":
        remedy = f"it multiplies in bf16 what is in float32, and model.dtype={sweep.model.spec.dtype}; set exact"
        raise RequestError("sweep.method", "fast", remedy)
    return [FastStage(sweep), VerifyStage(sweep, "fast_effect", spec.verify_top_k, spec.verify_fraction)]


def _needs_singles(spec: SweepSpec) -> bool:
    """Whether an order or pairs are chosen by the effects of single heads."""
    ordered = "cumulative" in spec.kind and {"effect", "estimate"} & {*spec.order}
    return bool(ordered or ("pairs" in spec.kind and spec.pairs in ("effect", "direct")))


def needs_roles(spec: SweepSpec) -> bool:
    """Whether pairs are chosen by the roles of heads."""
    return "pairs" in spec.kind and spec.pairs == "role"


def part(spec: RunSpec, model: Model, prompts: Prompts) -> Part:
    """Return the sweeps of a run, and its table of heads."""
    of_z, activations = ablation.activations(spec.ablation)
    made, positions = ablation.build(of_z, model, prompts)
    metrics, heads = choose(spec.metrics, prompts), list(spec.heads)
    others = {"sets": spec.sets, "n_random_sets": spec.n_random_sets, "edges": spec.edges, "of": activations}
    made_stages = stages(model, prompts, spec.sweep, heads, metrics, made, positions, spec.seed, **others)
    return Part(made_stages, [HeadTable(spec.stats), ActivationTable(spec.stats), EdgeTable(spec.stats)])


def singles(spec: RunSpec, model: Model, prompts: Prompts) -> SweepStage:
    """Return the exact sweep of the z of a run's single heads, without their direct effects."""
    made, positions = ablation.build(ablation.activations(spec.ablation)[0], model, prompts)
    metrics, heads = choose(spec.metrics, prompts), list(spec.heads)
    how = {"memory": spec.sweep.memory, "attention": spec.sweep.attention, "seed": spec.seed, "with_direct": False}
    return SweepStage(model, prompts_to_patch(made, prompts), groups(model, heads), metrics, made, positions, **how)


@runtime_checkable
class Ablating(Protocol):
    """A stage that ablates. `as_sweep` is a plain sweep of as much work with the same checks, for the forecast."""

    @property
    def name(self) -> str: ...

    def as_sweep(self) -> SweepStage: ...


def _cumulative(spec: SweepSpec, sweep: SweepStage) -> list[Stage | Chain]:
    if "estimate" in spec.order and spec.method != "screen":
        raise RequestError(
            "sweep.order", "estimate", "only sweep.method=screen makes estimates; set effect, greedy or random"
        )
    if "effect" in spec.order and spec.method == "screen":
        raise RequestError(
            "sweep.order", "effect", "a screen measures few heads' effects; set estimate, greedy or random"
        )
    n = len(sweep.groups)
    steps = {"all": n}[spec.max_heads] if isinstance(spec.max_heads, str) else spec.max_heads
    n_steps = min(n, steps if isinstance(steps, int) else max(1, round(steps * n)))
    greedy: list[Stage | Chain] = [GreedyStage(sweep, n_steps, spec.order_from)] if "greedy" in spec.order else []
    return [*greedy, CumulativeStage(sweep, spec.order, n_steps, spec.n_random_orders, spec.order_from)]


def _pairs(spec: SweepSpec, sweep: SweepStage) -> PairsStage:
    if not isinstance(spec.pairs, str):
        return PairsStage(sweep, _listed(sweep.model, spec.pairs))
    if len(sweep.groups) < 2:
        raise RequestError("heads", ",".join(sweep.groups), "a pair is of two heads; name at least two")
    if spec.pairs == "direct" and not has_direct(
        sweep.model, [part for parts in sweep.groups.values() for part in parts]
    ):
        raise RequestError(
            "sweep.pairs", "direct", f"these heads of {sweep.model.name} have no direct effect; set effect"
        )
    return PairsStage(sweep, spec.pairs, spec.pairs_top_k)


def _listed(model: Model, pairs: Sequence[tuple[str, str]]) -> tuple[Pair, ...]:
    """Return the named pairs, each once, its heads in the order in which they run."""
    known: dict[Pair, None] = {}
    for pair in pairs:
        try:
            heads = model.heads(list(pair))
        except RequestError as error:
            raise RequestError("sweep.pairs", error.value, error.remedy) from None
        if len(heads) != 2:
            raise RequestError("sweep.pairs", "+".join(pair), "a pair is two different heads, such as [L0H1,L1H2]")
        known[heads[0], heads[1]] = None
    return tuple(known)
