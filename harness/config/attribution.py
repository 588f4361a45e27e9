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
    head_fusion: Literal["mean", "max", "min"] = "mean"
    start_layer: Annotated[int, Field(ge=0)] = 0
    discard_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.0


@spec
class AttributionSpec:
    """Attribution methods, the causes they are compared with, and the tokens that count.

    `methods` are names of `harness.attribution.methods.METHODS`, or the attention of one layer or head such as
    ``attention_L5`` and ``attention_L5H1``; `causes` those of `harness.attribution.causes.CAUSES`, or ``knockout_L5``
    and ``knockout_L5H1``; ``all`` and ``auto`` are all that the model allows. `special` keeps or drops special tokens,
    the first token and the one at which a target is predicted: ``keep``, ``drop``, or both. `level`
    is the unit of the comparison and of the erasure curves, ``token`` or ``word`` (the sum of its tokens). `targets` is
    the largest number of scored positions explained per prompt, `fractions` the shares of tokens erased for the curves
    (empty: no curves), `top_k` the number of strongest tokens compared, `ig_steps` the number of points at which
    integrated gradients begin (up to 16 times as many where the completeness error is too large).
    """

    rollout: RolloutSpec = Field(default_factory=RolloutSpec)
    methods: Names = ("attention_mean", "rollout")
    causes: Names = ("knockout",)
    special: Policies = ("keep", "drop")
    level: Literal["token", "word"] = "token"
    targets: PositiveInt = 4
    fractions: Fractions = ()
    top_k: PositiveInt = 3
    ig_steps: PositiveInt = 16
    seed: Seed = 0
