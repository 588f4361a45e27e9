"""Specs of the runners that make no run of their own: render, look, bake, benchmark, list, reproduce …"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from harness.config.ablation import WEIGHTS, AblationSpec, ZeroAblation, check_everywhere
from harness.config.errors import RequestError, near
from harness.config.models import ModelSpec
from harness.config.place import check_new, check_place
from harness.config.prompts import PromptSpec
from harness.config.run import ShowSpec
from harness.config.sweep import Methods, listed
from harness.config.types import Heads, Names, PathText, PositiveInt, Seed, Text, spec


@spec
class RenderSpec:
    """A saved run to draw again."""

    run: PathText
    """Directory of the run."""
    views: Annotated[tuple[Literal["report", "saliency"], ...], BeforeValidator(listed)] = ("report",)
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
class BakeSpec:
    """A checkpoint to write, with heads ablated in its weights."""

    to: PathText
    """New folder of the checkpoint."""
    model: ModelSpec
    """Model whose weights are changed."""
    heads: Annotated[Heads, Field(min_length=1)]
    """Heads to ablate: L5H1, a layer L7, a range L15-L29, or all."""
    ablation: AblationSpec = Field(default_factory=ZeroAblation)
    """What replaces z: zero, scale, or mean with ablation.means=pooled."""
    prompts: PromptSpec
    """Prompts that a mean is over."""
    seed: Seed = 0
    """Seed of all draws whose own seed is not set."""

    def __post_init__(self) -> None:
        check_new("to", self.to)
        check_everywhere(self.ablation, WEIGHTS)


@spec
class BenchmarkSpec:
    """A benchmark: sweeps by each method beside loops of whole forwards, looks, refusals, or the report of a run."""

    model: ModelSpec
    """Model to sweep; random with model.shape=gpt2-small or llama-1b needs no weights."""
    prompts: PromptSpec
    """Prompts it reads."""
    metric: Literal["loss", "logit_diff", "prob", "choice_margin"] = "loss"
    """The metric."""
    positions: Literal["all", "last"] = "all"
    """Positions where heads are ablated."""
    methods: Methods = ("exact", "fast", "screen")
    """Methods of sweeping to time."""
    memory: Annotated[float, Field(gt=0)] | None = None
    """Ceiling in GB on the activations of one chunk; null: a quarter of what is free."""
    every: PositiveInt = 1
    """Ablate every n-th head; of maps, patch before every n-th layer; of edges, send from every n-th layer."""
    rounds: PositiveInt = 3
    """Rounds, of which the median is reported."""
    what: Literal["sweep", "maps", "edges", "look", "refusals"] = "sweep"
    """What to time: sweeps, patching maps, edges, looks at texts of 16 and 128 tokens, or wrong requests."""
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

    runs: Annotated[tuple[PathText, ...], BeforeValidator(listed), Field(min_length=1)]
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
