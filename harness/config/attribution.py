"""Specs of attribution methods, and of the causal effects that they are compared with."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from harness.config.types import Fraction, Names, PositiveInt, Seed, spec

Policy = Literal["keep", "drop"]


def _each_once(value: object) -> object:
    """Return the items without duplicates; one word or number is a list of one."""
    items = [value] if isinstance(value, str | int | float) else value
    return list(dict.fromkeys(items)) if isinstance(items, list | tuple) else items


Fractions = Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], BeforeValidator(_each_once)]
Policies = Annotated[tuple[Policy, ...], BeforeValidator(_each_once), Field(min_length=1)]


@spec
class RolloutSpec:
    """Options of attention rollout (`harness.attribution.rollout`)."""

    residual: Fraction = 0.5
    """Share of the residual stream that is mixed into each layer's attention."""
    head_fusion: Literal["mean", "max", "min"] = "mean"
    """How a layer's heads are combined: mean, max or min."""
    start_layer: Annotated[int, Field(ge=0)] = 0
    """First layer that is multiplied in."""
    discard_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the smallest allowed weights that is dropped before the rows are normalised."""


@spec
class AttributionSpec:
    """Attribution methods, the causes they are compared with, and the tokens that count.

    Names of methods are those of `harness.attribution.methods.METHODS`, names of causes those of
    `harness.attribution.causes.CAUSES`.
    """

    rollout: RolloutSpec = Field(default_factory=RolloutSpec)
    """Options of attention rollout."""
    methods: Names = ("attention_mean", "rollout")
    """Methods (attention_mean, rollout, norms, … or attention_L5, attention_L5H1), or all that the model allows."""
    causes: Names = ("knockout",)
    """Measured causes (knockout, delete, … or knockout_L5, knockout_L5H1), or auto for all that are possible."""
    special: Policies = ("keep", "drop")
    """Keep or drop special tokens, the first token and the predicting one; or both, side by side."""
    level: Literal["token", "word"] = "token"
    """Unit of the comparison and of the erasure curves; a word is the sum of its tokens."""
    targets: PositiveInt = 4
    """Largest number of scored positions explained in each prompt."""
    fractions: Fractions = ()
    """Shares of tokens erased for the erasure curves; none without."""
    top_k: PositiveInt = 3
    """Number of strongest tokens whose overlap is compared."""
    ig_steps: PositiveInt = 16
    """Points at which integrated gradients begin; up to 16 times as many where the completeness error is large."""
    seed: Seed = 0
    """Seed of the random baselines."""
