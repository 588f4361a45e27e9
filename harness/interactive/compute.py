"""Cache attention, ablate heads, and compare attribution methods in memory, without a run directory."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import xarray as xr

from harness import ablation as ablations
from harness import config, sweep
from harness.ablation import Ablation, AblationRequest, HeadAblation
from harness.attention import CacheStage
from harness.attention.capture import Kind
from harness.attribution.evaluate.method_table import MethodTable
from harness.attribution.evaluate.stage import AttributionStage
from harness.attribution.evaluate.statistics import agreement
from harness.config import AttributionSpec, CacheSpec, EdgesSpec, RequestError, RunSpec, StatsSpec, SweepSpec
from harness.execute import Chain, Stage, run_in_memory
from harness.execute.kept_memory import memory_kept
from harness.hooks import Head
from harness.interactive.result import Attributions, Effects, Patterns
from harness.metrics import Function, choose
from harness.models import Model
from harness.prompts import Prompts
from harness.results.run import IN_MEMORY
from harness.study.record import checks_of, facts
from harness.study.run_folder import plain
from harness.sweep.activation_table import ActivationTable
from harness.sweep.edges.table import EdgeTable
from harness.sweep.head_table import HeadTable


def cache_attention(
    model: Model, prompts: Prompts, dtype: str = "float32", also: Sequence[Kind] = (), heads: Any = "all"
) -> Patterns:
    """Cache the attention patterns of every head, with their tokens.

    ``.data`` has `pattern` [prompt, layer, head, query, key] (rows sum to 1; 0 in padding) and the prompts' own
    variables (`token`, `word`, `target`, …), as in a run directory's ``data.zarr``. An encoder-decoder also gives
    `encoder_pattern` [prompt, layer, head, source_query, source_key] and `cross_pattern` [prompt, layer, head, query,
    source_key]; layers that a stack does not have are NaN. A model with a learnt sink in its softmax (gpt-oss) gives
    `sink` [prompt, layer, head, query], the share of each row that goes to no token: `pattern` and it sum to 1.

    `also` adds ``z q k v scores resid`` (see `harness.attention.capture.Variable`), of these `heads` alone. Raises
    `RequestError` for heads that the model does not have, and for scores whose softmax is not the pattern.

    >>> import harness
    >>> model = harness.load_model("random")
    >>> patterns = harness.cache_attention(model, harness.load_prompts("induction", model, n=2, length=4))
    >>> patterns["pattern"].dims
    ('prompt', 'layer', 'head', 'query', 'key')
    """
    started = time.time()
    chosen = None if isinstance(heads, str) and heads == "all" else model.heads(heads, "cache.heads")
    stage = CacheStage(model, prompts, dtype, tuple(also), chosen)
    data = xr.merge([prompts.dataset(), run_in_memory(stage)])
    named = ["all"] if chosen is None else list(map(str, chosen))
    cache = config.parse(CacheSpec, {"dtype": dtype, "also": list(also), "heads": named}, "cache.")
    settings = _settings(model, prompts, cache=cache)
    return Patterns(IN_MEMORY, settings, _manifest("cache_attention", settings, model, prompts, data, started), data)


def ablate_heads(
    model: Model,
    prompts: Prompts,
    ablation: AblationRequest = "zero",
    metrics: str | Function | Iterable[str | Function] = "auto",
    heads: Any = "all",
    method: str = "exact",
    kind: str | Iterable[str] = "single",
    sets: Mapping[str, Any] | None = None,
    n_random_sets: int = 0,
    positions: str | int | Iterable[int] | None = None,
    edges: Mapping[str, Any] | None = None,
    **sweep_keys: Any,
) -> Effects:
    """Ablate heads and measure what that costs, prompt by prompt.

    `ablation` is ``zero``, ``mean``, ``resample``, ``patch`` or ``scale``, one of these with its keys (``{"name":
    "mean", "reference": "ioi"}``, or a spec), a value such as ``harness.resample("L5H1", draws=4)``, whose heads take
    the place of `heads`, or a function of z [prompt, position, d_head] and the `Head` that gives the new z.
    `positions` is ``all``, ``last``, ``target``, ``each`` or a list (negative: from each prompt's end), and takes the
    place of the ablation's own. `heads`, and each of the `sets`, are written as in `harness.hooks.parse_heads`:
    ``["L5H1", (5, 2), "L15-L29"]``, or a boolean mask [layer, head]. A metric is a name or a function of a
    `harness.prompts.targets.Readout` that gives a number for each target; it is named as the function, and has no
    better direction.

    ``.data`` has `clean` [metric, prompt], `ablated` and `effect` [metric, prompt, layer, head] (NaN for heads not
    ablated), or `layer_effect`, `attn_effect`, `mlp_effect`, `resid_effect` [metric, prompt, depth], `set_effect`,
    `cumulative_effect` or `pair_effect` for the other kinds, and the prompts' own variables; beside `set_effect` the
    `random_set_effect` [metric, prompt, set, draw] of `n_random_sets` sets of as many heads as each. An encoder-decoder
    has `stack` before `layer`. With ``positions="each"`` it has `position_effect` [metric, prompt, layer, head,
    position] instead, NaN in padding, and for the kinds ``resid``, ``attn`` and ``mlp`` a last axis position. A patch
    (``{"name": "patch", "into": "corrupted"}``: clean z in the corrupted run) also gives `corrupted` [metric, prompt],
    the corrupted prompt's metric. Single heads of a model with pre-norm blocks also have `direct`, like `effect`: the
    direct effect (`harness.sweep.direct`); with ``source_direct=True`` also `source_direct` [metric, prompt, layer,
    head, key], the same by the token it was read from (`harness.sweep.source_direct`: zero-ablation, and metrics that
    are linear in the logits; NaN for others), and with ``account=True`` `account` [metric, prompt, layer, head,
    component], the effect by the later head or MLP that adds to it or takes it back (`harness.sweep.account`).
    Distances have `null_effect` [draw, …], the effects of random edits of the same size. With the ablation's key ``of``
    (``{"name": "patch", "of": ["z", "q", "k", "v", "pattern"]}``) each head is swept once for each of these
    activations: `effect` is of z, `activation_effect` [metric, prompt, activation, layer, head] of the others, and
    ``.activations`` their table (`harness.ablation.head_inputs`).
    With ``method="fast"`` there is `fast_effect` beside `effect`, with ``"screen"`` `estimate` (and `effect` of
    the heads that were measured); `exact` [layer, head] says which heads were measured exactly. `sweep_keys` are the
    other keys of `harness.config.SweepSpec`: ``order``, ``n_random_orders``, ``order_from`` and ``max_heads`` of
    ``kind="cumulative"``, ``pairs`` and ``pairs_top_k`` of ``kind="pairs"``, ``verify_fraction``, ``verify_top_k`` and
    ``gradient_steps`` of the methods.
    With ``kind="edges"`` there are `edge_effect` and `edge_estimate` [metric, prompt, edge], with the `sender`,
    `receiver` and `into` of each edge; `edges` are the keys of `harness.config.EdgesSpec`, and ``.edges`` is their
    table.
    effect = metric(ablated) − metric(clean) on the same prompt, in the metric's unit (`loss`: nats per target token,
    `logit_diff`: logits). Raises `RequestError` for a request that the model or
    the prompts do not allow, and `InterventionFailed` if an ablation did not reach W_O as intended.

    >>> import harness
    >>> model = harness.load_model("planted")
    >>> effects = harness.ablate_heads(model, harness.load_prompts("induction", model, n=4), metrics="loss")
    >>> str(effects.top(1)["head"].item()) in map(str, model.truth["induction"] + model.truth["previous_token"])
    True
    """
    started = time.time()
    if isinstance(ablation, HeadAblation):
        if not (isinstance(heads, str) and heads == "all"):
            raise RequestError("heads", heads, f"{ablation} names its heads itself: leave heads out")
        heads, ablation = ablation.heads, ablation.ablation
    of_z, activations = ablations.activations(ablation)
    made, where = ablations.build(of_z, model, prompts)
    if positions is not None:
        where = ablations.parse_positions(positions)
    members = {name: model.heads(some, f"sets.{name}") for name, some in (sets or {}).items()}
    spec = config.parse(SweepSpec, _named({"kind": kind, "method": method, **sweep_keys}), "sweep.")
    paths = config.parse(EdgesSpec, _named({**asdict(EdgesSpec()), **(edges or {})}), "edges.")
    data, chosen = prompts.dataset(), choose(metrics, prompts)
    every = isinstance(heads, str) and heads == "all"
    named = model.heads() if every else model.heads(heads)
    others = {"sets": members, "n_random_sets": n_random_sets, "edges": paths, "of": activations}

    def build(own: SweepSpec) -> Sequence[Stage | Chain]:
        return sweep.stages(model, prompts, own, named, chosen, made, where, **others)

    spec, _ = sweep.choose_method(spec, build)
    with memory_kept():
        for stage in build(spec):
            data = sweep.merge(data, run_in_memory(stage, data))
    settings = _settings(
        model,
        prompts,
        ablation=_ablation(ablation, made, where),
        metrics=[metric.name for metric in chosen],
        heads=["all"] if every else list(map(str, named)),
        sets={name: [*map(str, some)] for name, some in members.items()},
        sweep=spec,
        edges=paths,
    )
    record = _manifest("ablate_heads", settings, model, prompts, data, started)
    tables = (HeadTable(StatsSpec()), ActivationTable(StatsSpec()), EdgeTable(StatsSpec()))
    return Effects(IN_MEMORY, settings, record, data, closings=tables)


def compare_attributions(
    model: Model,
    prompts: Prompts,
    methods: str | Iterable[str] = "all",
    causes: str | Iterable[str] = "auto",
    **options: Any,
) -> Attributions:
    """Score the tokens of each prompt by attribution methods, and measure causes to compare them with.

    ``.data`` has `attribution` [prompt, attribution_method, target_position, position] and `cause` [prompt, cause_kind,
    target_position, position] (of an encoder-decoder `source_attribution` and `source_cause` too), `explained` [prompt,
    target_position] (where each target is predicted; −1: none), `agreement` [statistic, policy, prompt,
    attribution_method, cause_kind], with `fractions` the curves `erased`, and the prompts' own variables. NaN where a
    target cannot attend to a token. `options` are those of `harness.config.AttributionSpec`. ``.table()`` adds
    intervals and tests. Raises `RequestError` for what the model does not allow.

    >>> import harness
    >>> model = harness.load_model("random")
    >>> prompts = harness.load_prompts("induction", model, n=2, length=4)
    >>> found = harness.compare_attributions(model, prompts, methods=["rollout", "gradient"], causes=["knockout"])
    >>> found["attribution"].sel(attribution_method="rollout").dims
    ('prompt', 'target_position', 'position')
    """
    started = time.time()
    request = {"methods": _listed(methods), "causes": _listed(causes), **options}
    spec = config.parse(AttributionSpec, {**asdict(AttributionSpec()), **request}, "attribution.")
    data = xr.merge([prompts.dataset(), run_in_memory(AttributionStage(model, prompts, spec))])
    data = data.assign(agreement=agreement(data, spec.top_k, spec.level))
    settings = _settings(model, prompts, attribution=spec)
    record = _manifest("compare_attributions", settings, model, prompts, data, started)
    return Attributions(IN_MEMORY, settings, record, data, closings=(MethodTable(spec, StatsSpec()),))


def _settings(model: Model, prompts: Prompts, **chosen: Any) -> dict[str, Any]:
    """Return the settings as ``spec.yaml`` holds them; prompts that no spec can make are named only."""
    default: Any = RunSpec.__pydantic_fields__  # pyright: ignore[reportAttributeAccessIssue]
    known = {name: each.get_default(call_default_factory=True) for name, each in default.items()}
    return plain({**known, "model": model.spec, "prompts": prompts.spec or {"name": prompts.name}, **chosen})


def _ablation(request: AblationRequest, made: Ablation, positions: str | tuple[int, ...]) -> Any:
    """Return the ablation's settings; a function of the caller by its name."""
    if callable(request):
        return {"name": made.name, "positions": positions}
    return {**asdict(ablations.parse_ablation(request)), "positions": positions}


def _manifest(
    runner: str, settings: Mapping[str, Any], model: Model, prompts: Prompts, data: xr.Dataset, started: float
) -> dict[str, Any]:
    return facts(
        runner=runner,
        settings=settings,
        model=model,
        prompts=prompts,
        started=datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        seconds=time.time() - started,
        check=checks_of(data),
        status="complete",
    )


def _listed(names: str | Iterable[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _named(value: Any) -> Any:
    """Replace heads by their names, at any depth."""
    if isinstance(value, Mapping):
        return {key: _named(item) for key, item in value.items()}
    if isinstance(value, Head):
        return str(value)
    return value if isinstance(value, str) or not isinstance(value, Iterable) else [_named(item) for item in value]
