"""One run: everything it asks for, and where it is written."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from harness.config.ablation import AblationSpec, ZeroAblation
from harness.config.attribution import AttributionSpec
from harness.config.errors import RequestError, near
from harness.config.execute import ExecuteSpec, LocalExecute
from harness.config.models import ModelSpec
from harness.config.prompts import PromptSpec
from harness.config.published import Published
from harness.config.types import Names, OpenFraction, PathText, PositiveInt, Seed, spec


def _listed(value: Any) -> Any:
    """One word is a list of one, and each counts once."""
    items = [value] if isinstance(value, str) else value
    return list(dict.fromkeys(items)) if isinstance(items, list) and all(isinstance(x, str) for x in items) else items


def _worded(value: Any, known: tuple[str, ...], others: str) -> str:
    """A word that is known; otherwise the mistake, with what else there is."""
    if value not in known:
        raise PydanticCustomError("worded", "{known}", {"known": f"{near(value, known)}, or {others}"})
    return value


def _until(value: Any) -> Any:
    """All heads, so many, or a share of them."""
    if (type(value) is int and value >= 1) or (type(value) is float and 0 < value < 1):
        return value
    return _worded(value, ("all",), "a number of heads (20), or a share of them (0.25)")


def _pairs(value: Any) -> Any:
    """How pairs are chosen, or which."""
    listed = list(value) if isinstance(value, list | tuple) else []
    if listed and all(
        isinstance(pair, list | tuple) and [type(name) for name in pair] == [str, str] for pair in listed
    ):
        return tuple(map(tuple, listed))
    return _worded(value, ("effect", "direct", "all"), "a list of pairs such as [[L0H1,L1H2]]")


Kind = Literal["single", "layer", "mlp", "set", "keep", "cumulative", "pairs"]
Kinds = Annotated[tuple[Kind, ...], BeforeValidator(_listed), Field(min_length=1)]
Orders = Annotated[
    tuple[Literal["effect", "estimate", "random", "greedy"], ...], BeforeValidator(_listed), Field(min_length=1)
]
Until = Annotated[str | int | float, BeforeValidator(_until)]
Pairs = Annotated[str | tuple[tuple[str, str], ...], BeforeValidator(_pairs)]
Also = Annotated[tuple[Literal["z", "q", "k", "v", "scores", "resid"], ...], BeforeValidator(_listed)]


@spec
class SweepSpec:
    """What is ablated together; several kinds are swept one after the other.

    ``single``: heads one at a time; ``layer``: a layer's heads; ``mlp``: a layer's MLP; ``set``: the named `sets`;
    ``keep``: all heads but those of a set, which shows whether the set is enough.

    ``cumulative``: heads one after another, each staying ablated, `until` so many (a share below 1, or ``all``), in
    each `order`: by ``effect`` or ``estimate`` of single heads, ``greedy`` (each the one that matters next, measured
    again every time), or ``random``, in as many as `orders`. `first` says from which end: the heads that are needed
    most, or least.

    ``pairs``: two heads together, and what that does beyond the sum of each: among the `top` heads by ``effect`` or
    ``direct`` effect, ``all`` pairs, or those listed.

    Orders and pairs go by the leading metric, `logit_diff` where there is one and else the first. Where they need the
    effects of single heads and ``single`` is not among the kinds, single heads are swept first.

    `memory` is a ceiling in GB on the activations of one chunk.
    """

    kind: Kinds = ("single",)
    sets: Mapping[str, Names] = Field(default_factory=dict)
    order: Orders = ("effect", "random")
    orders: PositiveInt = 10
    first: Literal["most_needed", "least_needed"] = "most_needed"
    until: Until = 20
    pairs: Pairs = "effect"
    top: Annotated[int, Field(ge=2)] = 10
    memory: Annotated[float, Field(gt=0)] = 2.0

    def __post_init__(self) -> None:
        asked, given = {*self.kind}, ",".join(self.kind)
        for field in fields(self):
            kinds, value = _READ_BY.get(field.name, ()), getattr(self, field.name)
            if kinds and value and value != field.default and not asked & {*kinds}:
                say = " or ".join(f"sweep.kind={kind}" for kind in kinds)
                raise RequestError("sweep.kind", given, f"it does not read sweep.{field.name}, so say {say}")
        if {"set", "keep"} <= asked:
            remedy = "both are set_effect of the same names; make it two runs: -m sweep.kind=set,keep"
            raise RequestError("sweep.kind", given, remedy)


#: Keys that only some kinds of sweep read.
_READ_BY: dict[str, tuple[Kind, ...]] = {
    "sets": ("set", "keep"),
    **dict.fromkeys(("order", "orders", "first", "until"), ("cumulative",)),
    **dict.fromkeys(("pairs", "top"), ("pairs",)),
}


@spec
class StatsSpec:
    """How effects become claims. `min_effect` is a share of the clean value; all `resamples` of a head's mean are held
    at once."""

    confidence: OpenFraction = 0.95
    level: OpenFraction = 0.05
    resamples: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    min_effect: Annotated[float, Field(ge=0)] = 0.05
    seed: Seed = 0


@spec
class CacheSpec:
    """What is kept of a forward beside the patterns (`also`), of which heads, and how precisely."""

    dtype: Literal["float32", "float16"] = "float32"
    also: Also = ()
    heads: Names = ("all",)

    def __post_init__(self) -> None:
        if self.heads != ("all",) and not self.also:
            raise RequestError("cache.heads", list(self.heads), "patterns are kept of all heads; say cache.also=[z]")


@spec
class ShowSpec:
    """What the report opens with: prompts by number, heads by name, tokens or words."""

    prompts: tuple[int, ...] = ()
    heads: Names = ()
    level: Literal["token", "word"] = "token"


@spec
class RunSpec:
    """Everything one run asks for. What only decides where it is written is not in here."""

    model: ModelSpec
    prompts: PromptSpec
    ablation: AblationSpec = Field(default_factory=ZeroAblation)
    metrics: Names = ("auto",)
    heads: Names = ("all",)
    sweep: SweepSpec = Field(default_factory=SweepSpec)
    stats: StatsSpec = Field(default_factory=StatsSpec)
    cache: CacheSpec = Field(default_factory=CacheSpec)
    attribution: AttributionSpec = Field(default_factory=AttributionSpec)
    execute: ExecuteSpec = Field(default_factory=LocalExecute)
    show: ShowSpec = Field(default_factory=ShowSpec)
    published: tuple[Published, ...] = ()
    seed: Seed = 0


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Place:
    """Where a run is written: a directory of its own, or a new one in the store; or the one to resume. A dry run is
    written nowhere: everything is checked, its cost is forecast, and that is all."""

    store: PathText = "results"
    run: PathText | None = None
    resume: PathText | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.run and self.resume:
            raise RequestError("run", self.run, "resume goes on in its own directory; leave out run or resume")
        for key in ("store", "run", "resume"):
            if "://" in (getattr(self, key) or ""):
                remedy = "object stores are not written to: name a folder, one that all workers share"
                raise RequestError(key, getattr(self, key), remedy)


@spec
class RenderSpec:
    """Which saved run to draw again, which views of it, what to open with, and whether the figures are for a screen or
    for the column of a paper."""

    run: PathText
    views: Annotated[tuple[Literal["report", "saliency"], ...], BeforeValidator(_listed)] = ("report",)
    figures: Literal["screen", "paper"] = "screen"
    show: ShowSpec = Field(default_factory=ShowSpec)


@spec
class BenchmarkSpec:
    """What is timed: a sweep of every `every`-th head by one metric, everywhere or at the last position."""

    model: ModelSpec
    prompts: PromptSpec
    metric: Literal["loss", "logit_diff", "prob"] = "loss"
    positions: Literal["all", "last"] = "all"
    every: PositiveInt = 1
    rounds: PositiveInt = 3
    store: PathText = "results"
    seed: Seed = 0


@spec
class ReproduceSpec:
    """Which saved run to do again, and where."""

    run: PathText
    store: PathText = "results"


#: What decides where, how fast and how a run is shown, but none of its numbers.
NOT_IN_HASH = ("execute", "show", "published")


def spec_hash(runner: str, spec: RunSpec) -> str:
    """Eight hex digits that change whenever a number of the run could."""
    plain = {key: value for key, value in asdict(spec).items() if key not in NOT_IN_HASH}
    plain["sweep"] = {key: value for key, value in plain["sweep"].items() if key != "memory"}
    text = json.dumps({"runner": runner, **plain}, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
