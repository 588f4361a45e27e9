"""Specs of runs and of the other runners, and where a run is written."""

import glob
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
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
    """What a sweep ablates together, and by which method.

    Kinds: ``single``: heads one at a time; ``layer``: a layer's heads; ``mlp``: a layer's MLP; ``set``: the named
    `sets` (necessity); ``complement``: all heads but those of a set (sufficiency); ``cumulative``: heads one after
    another, each staying ablated, in each `order`: by ``effect`` or ``estimate`` of single heads, ``greedy`` (each the
    one that matters next, measured again every time), or ``random``; ``pairs``: two heads together, and what that does
    beyond the sum of each. Orders and pairs use the leading metric: `logit_diff` if it is measured, else the first.
    Where they need the effects of single heads and ``single`` is not among the kinds, single heads are swept first.

    Methods: ``exact``: in the model's own precision. ``fast``: matrix products in bf16. ``screen``: attribution
    patching. Another `memory` adds in another order, which moves effects by about 1e-6; a run's hash does not depend on
    it.
    """

    kind: Kinds = ("single",)
    """What is ablated together: single, layer, mlp, set, complement, cumulative, pairs; or a list of these."""
    sets: Mapping[str, Heads] = Field(default_factory=dict)
    """Named sets of heads, for the kinds set and complement: {movers: [L5H1, L7]}."""
    order: Orders = ("effect", "random")
    """Orders of the kind cumulative: effect, estimate, greedy, random."""
    n_random_orders: PositiveInt = 10
    """Number of random orders."""
    order_from: Literal["most_needed", "least_needed"] = "most_needed"
    """End of an order to begin at: the heads needed most, or least."""
    max_heads: MaxHeads = 20
    """How many heads are ablated one after another: a number, a share such as 0.25, or all."""
    pairs: Pairs = "effect"
    """Which pairs of heads: by effect or direct effect, of one role, all, or a list [[L0H1,L1H2]]."""
    pairs_top_k: Annotated[int, Field(ge=2)] = 10
    """Number of heads (of each role) that are paired."""
    method: Method = "exact"
    """exact, fast (bf16) or screen (gradient); the last two measure some heads again exactly."""
    verify_fraction: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Random share of the heads that fast measures again exactly."""
    verify_top_k: PositiveInt = 20
    """Number of strongest heads that fast and screen measure exactly."""
    gradient_steps: PositiveInt = 1
    """Points at which screen takes the gradient, from the clean run towards all heads ablated."""
    direct: bool = True
    """Also the direct effect of each head (direct logit attribution)."""
    memory: Annotated[float, Field(gt=0)] | None = None
    """Ceiling in GB on the activations of one chunk; null: a quarter of what is free."""

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
    n_random_sets: Count = 20
    """Random sets of equal size that the heads of a role are compared with when ablated; 0: none is ablated."""
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
    """Metrics: loss, logit_diff, kl, accuracy, prob, label, embedding; auto: what model and prompts allow."""
    heads: Heads = ("all",)
    """Heads: L5H1, a layer L7, a range L15-L29, or all."""
    sweep: SweepSpec = Field(default_factory=SweepSpec)
    """What is ablated together, and how."""
    stats: StatsSpec = Field(default_factory=StatsSpec)
    """Statistics."""
    cache: CacheSpec = Field(default_factory=CacheSpec)
    """Activations to keep."""
    attribution: AttributionSpec = Field(default_factory=AttributionSpec)
    """Attribution methods and causes."""
    trace: TraceSpec = Field(default_factory=TraceSpec)
    """Tracing to the segments of a prompt."""
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
    if spec.ablation.positions == "each":
        raise RequestError("ablation.positions", "each", "two models are compared over all positions: use all or last")


def check_place(key: str, place: str) -> None:
    """Raise `RequestError` for an address that is no object store's, or that carries a password (not repeated)."""
    scheme, there, rest = place.partition("://")
    if not there:
        if os.path.isfile(place):  # False too for a path that is too long, which is refused by name later
            raise RequestError(key, place, "this is a file: name a folder")
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


def _holds_runs(path: str) -> bool:
    """Whether a path is a folder of runs, not a run itself."""
    return bool(path) and not (Path(path) / "spec.yaml").is_file() and any(Path(path).glob("*/spec.yaml"))


def run_folders(patterns: Sequence[str]) -> list[str]:
    """Return the run directories of these patterns and paths, each once, those of a pattern in order of their names.

    A folder that is no run stands for the runs in it. What a pattern matches beside runs is left out. Raises
    `RequestError` where there is no run, or not at a path.
    """
    patterns = [f"{glob.escape(each)}/*" if _holds_runs(each) else each for each in patterns]
    listed = [path for each in patterns for path in (sorted(glob.glob(each)) or [each])]
    folders = [path for path in listed if (Path(path) / "spec.yaml").is_file()]
    missing = [path for path in patterns if path in listed and path not in folders]
    if missing or not folders:
        value = missing[0] if missing else ",".join(patterns)
        raise RequestError("runs", value, "no run is there: give a pattern such as results/ablate_heads/*")
    return [*dict.fromkeys(folders)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Place:
    """Where a run is written."""

    store: PathText = "results"
    """Folder or object store (s3://bucket/prefix) of new runs."""
    run: PathText | None = None
    """The run's own directory, in place of one in the store."""
    resume: PathText | None = None
    """Directory of a run to go on with."""
    dry_run: bool = False
    """Check the request and forecast its cost; write nothing."""

    def __post_init__(self) -> None:
        if self.run and self.resume:
            raise RequestError("run", self.run, "resume goes on in its own directory; leave out run or resume")
        for key in ("store", "run", "resume"):
            check_place(key, getattr(self, key) or "")


@spec
class RenderSpec:
    """A saved run to draw again."""

    run: PathText
    """Directory of the run."""
    views: Annotated[tuple[Literal["report", "saliency"], ...], BeforeValidator(_listed)] = ("report",)
    """Views to draw: report, saliency (text coloured by scores)."""
    figures: Literal["screen", "paper"] = "screen"
    """Figures for a screen, or for a paper's column and page with captions and data, into figures/paper."""
    show: ShowSpec = Field(default_factory=ShowSpec)
    """What the report opens with."""

    def __post_init__(self) -> None:
        check_place("run", self.run)


@spec
class LookSpec:
    """A text, the model that reads it, and the page."""

    model: ModelSpec
    """Model that reads the text."""
    text: Annotated[Text, Field(min_length=1)]
    """The sentence."""
    pair: Text | None = None
    """A second sentence, for encoders such as minilm."""
    target: Text | None = None
    """What an encoder-decoder writes."""
    layer: Annotated[int, Field(ge=0)] | None = None
    """Heads of this layer; null: of all."""
    level: Literal["token", "word"] | None = None
    """Tokens or words; null: as the model suggests."""
    store: PathText = "results"
    """Folder or object store of the page."""


@spec
class BenchmarkSpec:
    """A benchmark: sweeps by each method beside loops of whole forwards, looks, refusals, or the report of a run."""

    model: ModelSpec
    """Model to sweep; random with model.shape=gpt2-small or llama-1b needs no weights."""
    prompts: PromptSpec
    """Prompts it reads."""
    metric: Literal["loss", "logit_diff", "prob"] = "loss"
    """The metric."""
    positions: Literal["all", "last"] = "all"
    """Positions where heads are ablated."""
    methods: Methods = ("exact", "fast", "screen")
    """Methods of sweeping to time."""
    memory: Annotated[float, Field(gt=0)] | None = None
    """Ceiling in GB on the activations of one chunk; null: a quarter of what is free."""
    every: PositiveInt = 1
    """Ablate every n-th head."""
    rounds: PositiveInt = 3
    """Rounds, of which the median is reported."""
    what: Literal["sweep", "look", "refusals"] = "sweep"
    """What to time: sweeps, looks at a text of 16 and of 128 tokens, or refusals of wrong requests."""
    page: PathText | None = None
    """Directory of a run: time how soon its report can be used in headless Chromium, in place of a sweep."""
    store: PathText = "results"
    """Folder or object store of the results."""
    seed: Seed = 0
    """Seed of all draws whose own seed is not set."""

    def __post_init__(self) -> None:
        for key in ("store", "page"):
            check_place(key, getattr(self, key) or "")


@spec
class ListSpec:
    """Runs of a store to list, and runs to delete by name. `where` filters by ``runner``, ``model``, ``prompts``,
    ``metric`` and ``status``, and by any dotted key of the spec (``where.ablation.name=mean``)."""

    store: PathText = "results"
    """Folder of runs."""
    where: Mapping[str, Any] = Field(default_factory=dict)
    """Filters: runner, model, prompts, metric, status, or any dotted key of a spec (where.ablation.name=mean)."""
    delete: Names = ()
    """Runs to delete, by their names in the list; without confirm=true they are only named."""
    confirm: bool = False
    """Delete them."""

    def __post_init__(self) -> None:
        if "://" in self.store:
            check_place("store", self.store)
            raise RequestError("store", self.store, "runs in an object store are not listed: name a folder")
        status, known = self.where.get("status"), ("running", "complete", "failed", "damaged")
        if status is not None and status not in known:
            raise RequestError("where.status", status, near(status, known))


@spec
class ReproduceSpec:
    """A saved run to do again in today's environment."""

    run: PathText
    """Directory of the run, or a reference: spec.yaml, manifest.json and heads.csv."""
    store: PathText = "results"
    """Folder or object store of the new run."""
    resume: PathText | None = None
    """Directory of the new run, to go on with one that was interrupted."""

    def __post_init__(self) -> None:
        for key in ("run", "store", "resume"):
            check_place(key, getattr(self, key) or "")


@spec
class CollectSpec:
    """Saved runs to collect side by side."""

    runs: Annotated[tuple[PathText, ...], BeforeValidator(_listed), Field(min_length=1)]
    """A folder of runs, a pattern of run directories such as 'results/ablate_heads/*', or a list."""
    metric: str | None = None
    """The metric of maps and rankings; null: the leading one of those that all runs have."""
    by: Literal["head", "role", "depth"] = "head"
    """Compare head by head, or models with other heads by role or relative depth."""
    top_k: PositiveInt = 10
    """How many of the strongest heads count for the overlap of rankings."""
    store: PathText = "results"
    """Folder in which the collection is written."""

    def __post_init__(self) -> None:
        check_place("store", self.store)


@spec
class AgainSpec:
    """A saved run with other settings, as a new run that names its parent."""

    run: PathText
    """Directory of the saved run; any other key changes its settings (ablation=mean seed=1)."""
    store: PathText = "results"
    """Folder or object store of the new run."""
    dry_run: bool = False
    """Check and forecast only."""
    seed: Seed | None = None
    """Seed of every random choice of the run; null: as it was."""
    changes: Mapping[str, Any] = Field(default_factory=dict)
    """Settings that change, by key; on a command line without this word: ablation=mean."""

    def __post_init__(self) -> None:
        for key in ("run", "store"):
            check_place(key, getattr(self, key))


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
