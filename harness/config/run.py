"""Specs of runs and of the other runners, and where a run is written."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs, PydanticCustomError

from harness.config.ablation import AblationSpec, ZeroAblation
from harness.config.attribution import AttributionSpec
from harness.config.errors import RequestError, near
from harness.config.execute import ExecuteSpec, LocalExecute
from harness.config.models import ModelSpec
from harness.config.parsing import model_to_compare
from harness.config.prompts import PromptSpec
from harness.config.published import Published
from harness.config.trace import TraceSpec
from harness.config.types import Count, Heads, Names, OpenFraction, PathText, PositiveInt, Seed, Text, spec


def _listed(value: Any) -> Any:
    """Return words without duplicates; one word is a list of one."""
    items = [value] if isinstance(value, str) else value
    return list(dict.fromkeys(items)) if isinstance(items, list) and all(isinstance(x, str) for x in items) else items


def _worded(value: Any, known: tuple[str, ...], others: str) -> str:
    """Return a known word; raise a validation error that names the alternatives otherwise."""
    if value not in known:
        raise PydanticCustomError("worded", "{known}", {"known": f"{near(value, known)}, or {others}"})
    return value


def _max_heads(value: Any) -> Any:
    """Return how many heads: ``all``, a number, or a share of them."""
    if (type(value) is int and value >= 1) or (type(value) is float and 0 < value < 1):
        return value
    return _worded(value, ("all",), "a number of heads (20), or a share of them (0.25)")


def _pairs(value: Any) -> Any:
    """Return how pairs are chosen, or the listed pairs."""
    listed = list(value) if isinstance(value, list | tuple) else []
    if listed and all(
        isinstance(pair, list | tuple) and [type(name) for name in pair] == [str, str] for pair in listed
    ):
        return tuple(map(tuple, listed))
    return _worded(value, ("effect", "direct", "role", "all"), "a list of pairs such as [[L0H1,L1H2]]")


Kind = Literal["single", "layer", "mlp", "set", "complement", "cumulative", "pairs"]
Kinds = Annotated[tuple[Kind, ...], BeforeValidator(_listed), Field(min_length=1)]
Orders = Annotated[
    tuple[Literal["effect", "estimate", "random", "greedy"], ...], BeforeValidator(_listed), Field(min_length=1)
]
Method = Literal["exact", "fast", "screen"]
Methods = Annotated[tuple[Method, ...], BeforeValidator(_listed), Field(min_length=1)]
MaxHeads = Annotated[str | int | float, BeforeValidator(_max_heads)]
Pairs = Annotated[str | tuple[tuple[str, str], ...], BeforeValidator(_pairs)]
Also = Annotated[tuple[Literal["z", "q", "k", "v", "scores", "resid"], ...], BeforeValidator(_listed)]


@spec
class SweepSpec:
    """What a sweep ablates together; several kinds are swept one after the other.

    ``single``: heads one at a time; ``layer``: a layer's heads; ``mlp``: a layer's MLP; ``set``: the named `sets`
    (necessity); ``complement``: all heads but those of a set (sufficiency, by complement ablation).

    ``cumulative``: heads one after another, each staying ablated, `max_heads` so many (a share below 1, or ``all``), in
    each `order`: by ``effect`` or ``estimate`` of single heads, ``greedy`` (each the one that matters next, measured
    again every time), or ``random``, in as many as `n_random_orders`. `order_from` is the end to begin at: the heads
    that are needed most, or least.

    ``pairs``: two heads together, and what that does beyond the sum of each: among the `pairs_top_k` heads by
    ``effect`` or ``direct`` effect; the `pairs_top_k` heads of each ``role`` among themselves; ``all`` pairs, or those
    listed.

    Orders and pairs use the leading metric: `logit_diff` if it is measured, else the first. Where they need the
    effects of single heads and ``single`` is not among the kinds, single heads are swept first.

    `method` is how single heads are swept. ``exact``: in the model's own precision. ``fast``: matrix products in bf16,
    and a random share `verify_fraction` of the heads and the `verify_top_k` strongest again exactly. ``screen``:
    attribution patching with the gradient at `gradient_steps` points from the clean run towards all heads ablated, and
    the `verify_top_k` strongest exactly. `direct` adds direct logit attribution.

    `memory` is a ceiling in GB on the activations of one chunk; by default a quarter of what is free. Another chunk
    size adds in another order, which moves effects by about 1e-6; a run's hash does not depend on it.
    """

    kind: Kinds = ("single",)
    sets: Mapping[str, Heads] = Field(default_factory=dict)
    order: Orders = ("effect", "random")
    n_random_orders: PositiveInt = 10
    order_from: Literal["most_needed", "least_needed"] = "most_needed"
    max_heads: MaxHeads = 20
    pairs: Pairs = "effect"
    pairs_top_k: Annotated[int, Field(ge=2)] = 10
    method: Method = "exact"
    verify_fraction: Annotated[float, Field(gt=0, le=1)] = 0.05
    verify_top_k: PositiveInt = 20
    gradient_steps: PositiveInt = 1
    direct: bool = True
    memory: Annotated[float, Field(gt=0)] | None = None

    def __post_init__(self) -> None:
        kinds, shown = {*self.kind}, ",".join(self.kind)
        for field in fields(self):
            readers, value = _READ_BY.get(field.name, ()), getattr(self, field.name)
            if readers and value and value != field.default and not kinds & {*readers}:
                setting = " or ".join(f"sweep.kind={kind}" for kind in readers)
                raise RequestError("sweep.kind", shown, f"it does not read sweep.{field.name}, so set {setting}")
        for key, methods in _METHODS_THAT_READ.items():
            value = getattr(self, key)
            if value != type(self).__dataclass_fields__[key].default and self.method not in methods:
                setting = " or ".join(f"sweep.method={method}" for method in methods)
                raise RequestError(f"sweep.{key}", value, f"sweep.method={self.method} does not read it; set {setting}")
        if {"set", "complement"} <= kinds:
            remedy = "both are set_effect of the same names; make it two runs: -m sweep.kind=set,complement"
            raise RequestError("sweep.kind", shown, remedy)


#: Keys that only some methods read.
_METHODS_THAT_READ = {"verify_fraction": ("fast",), "verify_top_k": ("fast", "screen"), "gradient_steps": ("screen",)}
#: Keys that only some kinds of sweep read.
_READ_BY: dict[str, tuple[Kind, ...]] = {
    "sets": ("set", "complement"),
    **dict.fromkeys(("order", "n_random_orders", "order_from", "max_heads"), ("cumulative",)),
    **dict.fromkeys(("pairs", "pairs_top_k"), ("pairs",)),
}


@spec
class StatsSpec:
    """Options of the statistics. `min_effect` is a share of the clean value; all `resamples` of a head's mean are held
    in memory at once."""

    confidence: OpenFraction = 0.95
    level: OpenFraction = 0.05
    resamples: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    min_effect: Annotated[float, Field(ge=0)] = 0.05
    seed: Seed = 0


@spec
class CacheSpec:
    """Activations to cache beside the patterns (`also`), of which heads, and in which precision."""

    dtype: Literal["float32", "float16"] = "float32"
    also: Also = ()
    heads: Heads = ("all",)

    def __post_init__(self) -> None:
        if self.heads != ("all",) and not self.also:
            raise RequestError("cache.heads", list(self.heads), "patterns are kept of all heads; set cache.also=[z]")


@spec
class RolesSpec:
    """When a head has a role, and what its roles are measured on.

    A head has a role where its score exceeds `draws` draws of the null distribution, corrected over all heads
    (``stats.level``), and is at least `threshold` of the way from chance to 1. Induction, duplicate tokens and copying
    are measured on `n` texts of `length` random tokens repeated once, all other roles on the prompts. `n_random_sets`
    is the number of random sets of equal size that each role's heads are compared with when ablated (0: no ablation).
    """

    threshold: OpenFraction = 0.4
    draws: PositiveInt = 200
    n: PositiveInt = 8
    length: Annotated[int, Field(ge=4)] = 24
    n_random_sets: Count = 20
    seed: Seed = 0


@spec
class CompareSpec:
    """The second model of a comparison, and how the two are compared.

    `model` is written as in `harness.config.parsing.model_to_compare`. `special` set to ``drop`` removes special tokens
    from patterns and renormalises rows.
    """

    model: ModelSpec | None = None
    special: Literal["keep", "drop"] = "keep"


@spec
class ShowSpec:
    """Prompts (by number), heads (by name) and level (tokens or words) that the report opens with."""

    prompts: tuple[int, ...] = ()
    heads: Heads = ()
    level: Literal["token", "word"] = "token"


@spec
class RunSpec:
    """The full request of one run, but for where it is written (`Place`).

    `question` is a name of `harness.findings.questions.QUESTIONS`; a study with one runs only the stages that answer
    it.
    """

    model: ModelSpec
    prompts: PromptSpec
    ablation: AblationSpec = Field(default_factory=ZeroAblation)
    metrics: Names = ("auto",)
    heads: Heads = ("all",)
    sweep: SweepSpec = Field(default_factory=SweepSpec)
    stats: StatsSpec = Field(default_factory=StatsSpec)
    cache: CacheSpec = Field(default_factory=CacheSpec)
    attribution: AttributionSpec = Field(default_factory=AttributionSpec)
    trace: TraceSpec = Field(default_factory=TraceSpec)
    question: str | None = None
    roles: RolesSpec = Field(default_factory=RolesSpec)
    execute: ExecuteSpec = Field(default_factory=LocalExecute)
    show: ShowSpec = Field(default_factory=ShowSpec)
    published: tuple[Published, ...] = ()
    seed: Seed = 0
    compare: CompareSpec = Field(default_factory=CompareSpec)

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


def check_place(key: str, place: str) -> None:
    """Raise `RequestError` for an address that is no object store's, or that carries a password (not repeated)."""
    scheme, there, rest = place.partition("://")
    if not there:
        return
    if "@" in rest or "?" in rest:
        remedy = "leave keys out of the address: set them in the environment (AWS_ACCESS_KEY_ID …)"
        raise RequestError(key, f"{scheme}://…", remedy)
    if scheme != "s3" or not re.fullmatch(r"[a-z0-9][a-z0-9.-]+(/[^/]+)*/?", rest):
        raise RequestError(key, place, "name a folder, or an object store as s3://BUCKET/PREFIX")


def check_there(key: str, place: str) -> None:
    """Raise `RequestError` for a missing folder on disk, before the slow imports of its reader."""
    if "://" not in place and not Path(place).is_dir():
        raise RequestError(key, place, "there is no such directory")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Place:
    """Where a run is written: its own directory, a new one in the store, or the one to resume; on a disk or in an
    object store (``s3://bucket/prefix``). A dry run is checked and its cost forecast, and nothing is written."""

    store: PathText = "results"
    run: PathText | None = None
    resume: PathText | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.run and self.resume:
            raise RequestError("run", self.run, "resume goes on in its own directory; leave out run or resume")
        for key in ("store", "run", "resume"):
            check_place(key, getattr(self, key) or "")


@spec
class RenderSpec:
    """A saved run to draw again: which views, what they open with, and figures for a screen or a paper's column."""

    run: PathText
    views: Annotated[tuple[Literal["report", "saliency"], ...], BeforeValidator(_listed)] = ("report",)
    figures: Literal["screen", "paper"] = "screen"
    show: ShowSpec = Field(default_factory=ShowSpec)

    def __post_init__(self) -> None:
        check_place("run", self.run)


@spec
class LookSpec:
    """A `text` (with its second sentence `pair`, or the `target` that an encoder-decoder writes), the model that reads
    it, and the page: the heads of one `layer` or of all, by ``token`` or by ``word``."""

    model: ModelSpec
    text: Annotated[Text, Field(min_length=1)]
    pair: Text | None = None
    target: Text | None = None
    layer: Annotated[int, Field(ge=0)] | None = None
    level: Literal["token", "word"] | None = None
    store: PathText = "results"


@spec
class BenchmarkSpec:
    """What to time: a sweep of every `every`-th head by one metric, at all or the last positions, by each of `methods`
    (`memory` as in `SweepSpec`); or `page`, the report of a saved run opened in a browser."""

    model: ModelSpec
    prompts: PromptSpec
    metric: Literal["loss", "logit_diff", "prob"] = "loss"
    positions: Literal["all", "last"] = "all"
    methods: Methods = ("exact", "fast", "screen")
    memory: Annotated[float, Field(gt=0)] | None = None
    every: PositiveInt = 1
    rounds: PositiveInt = 3
    page: PathText | None = None
    store: PathText = "results"
    seed: Seed = 0

    def __post_init__(self) -> None:
        for key in ("store", "page"):
            check_place(key, getattr(self, key) or "")


@spec
class WhereSpec:
    """Filters of runs: by runner, names of model and prompts, a metric, how they ended."""

    runner: str | None = None
    model: str | None = None
    prompts: str | None = None
    metric: str | None = None
    status: Literal["running", "complete", "failed", "damaged"] | None = None


@spec
class ListSpec:
    """Runs of a store to list, and runs to delete by name."""

    store: PathText = "results"
    where: WhereSpec = Field(default_factory=WhereSpec)
    delete: Names = ()
    confirm: bool = False

    def __post_init__(self) -> None:
        if "://" in self.store:
            check_place("store", self.store)
            raise RequestError("store", self.store, "runs in an object store are not listed: name a folder")


@spec
class ReproduceSpec:
    """A saved run to do again, in a new directory of the store or in `resume`, begun by an earlier try."""

    run: PathText
    store: PathText = "results"
    resume: PathText | None = None

    def __post_init__(self) -> None:
        for key in ("run", "store", "resume"):
            check_place(key, getattr(self, key) or "")


#: Keys that do not change a run's numbers: how fast it is, how it is shown, what it is compared with.
NOT_IN_HASH = ("execute", "show", "published")


def spec_hash(runner: str, spec: RunSpec) -> str:
    """Return eight hex digits that change whenever a number of the run could."""
    return settings_hash(runner, asdict(spec))


def settings_hash(runner: str, settings: Mapping[str, Any]) -> str:
    """Return the hash of a spec's plain values."""
    plain = {key: value for key, value in settings.items() if key not in NOT_IN_HASH}
    plain["sweep"] = {key: value for key, value in plain["sweep"].items() if key != "memory"}
    text = json.dumps({"runner": runner, **plain}, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
