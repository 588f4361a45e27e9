"""One run: everything it asks for, and where it is written."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from harness.config.ablation import AblationSpec, ZeroAblation
from harness.config.errors import RequestError
from harness.config.models import ModelSpec
from harness.config.prompts import PromptSpec
from harness.config.published import Published
from harness.config.types import Fraction, Names, OpenFraction, PathText, PositiveInt, Seed, spec


def _listed(value: Any) -> Any:
    """One word is a list of one, and each counts once."""
    items = [value] if isinstance(value, str) else value
    return list(dict.fromkeys(items)) if isinstance(items, list) and all(isinstance(x, str) for x in items) else items


Kind = Literal["single", "layer", "mlp", "set"]
Kinds = Annotated[tuple[Kind, ...], BeforeValidator(_listed), Field(min_length=1)]
Also = Annotated[tuple[Literal["z", "q", "k", "v", "scores", "resid"], ...], BeforeValidator(_listed)]


@spec
class SweepSpec:
    """What is ablated together: heads one at a time, a layer's heads, a layer's MLP, or named sets (``sweep.sets``);
    several kinds are swept one after the other.

    `memory` is a ceiling in GB on the activations of one chunk.
    """

    kind: Kinds = ("single",)
    sets: Mapping[str, Names] = Field(default_factory=dict)
    memory: Annotated[float, Field(gt=0)] = 2.0

    def __post_init__(self) -> None:
        if self.sets and "set" not in self.kind:
            raise RequestError("sweep.kind", ",".join(self.kind), "sweep.sets names sets, so say sweep.kind=set")


@spec
class StatsSpec:
    """How effects become claims. `min_effect` is a share of the clean value."""

    confidence: OpenFraction = 0.95
    level: OpenFraction = 0.05
    resamples: PositiveInt = 10_000
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
class RolloutSpec:
    """The options of attention rollout; see `harness.attribution.rollout`."""

    residual: Fraction = 0.5
    head_fusion: Literal["mean", "max", "min"] = "mean"
    start_layer: Annotated[int, Field(ge=0)] = 0
    discard_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.0


@spec
class AttributionSpec:
    """The options of the attribution methods."""

    rollout: RolloutSpec = Field(default_factory=RolloutSpec)


@spec
class ShowSpec:
    """What the report opens with: prompts by number, heads by name, tokens or words."""

    prompts: tuple[int, ...] = ()
    heads: Names = ()
    level: Literal["token"] = "token"


@spec
class ExecuteSpec:
    """Where units of work run."""

    name: Literal["local"] = "local"


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
    execute: ExecuteSpec = Field(default_factory=ExecuteSpec)
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


@spec
class RenderSpec:
    """Which saved run to draw again, what to open with, and whether the figures are for a screen or for the column of
    a paper."""

    run: PathText
    figures: Literal["screen", "paper"] = "screen"
    show: ShowSpec = Field(default_factory=ShowSpec)


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
