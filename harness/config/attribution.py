"""How predictions are attributed to tokens, and what the attributions are held against."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from harness.config.types import Fraction, Names, PositiveInt, Seed, spec

Policy = Literal["keep", "drop"]


def _each_once(value: object) -> object:
    """One word or number is a list of one, and each counts once."""
    items = [value] if isinstance(value, str | int | float) else value
    return list(dict.fromkeys(items)) if isinstance(items, list | tuple) else items


Fractions = Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], BeforeValidator(_each_once)]
Policies = Annotated[tuple[Policy, ...], BeforeValidator(_each_once), Field(min_length=1)]


@spec
class RolloutSpec:
    """The options of attention rollout; see `harness.attribution.rollout`."""

    residual: Fraction = 0.5
    head_fusion: Literal["mean", "max", "min"] = "mean"
    start_layer: Annotated[int, Field(ge=0)] = 0
    discard_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.0


@spec
class AttributionSpec:
    """Which methods, held against which causes, over which tokens.

    `methods` are names of `harness.attribution.methods.METHODS`, or the attention of one layer or head such as
    ``attention_L5`` and ``attention_L5H1``; `causes` those of `harness.attribution.causes.CAUSES`, or ``knockout_L5``
    and ``knockout_L5H1``; ``all`` and ``auto`` are all that the model allows. `special` says whether special tokens,
    the first token and the one at which a target is predicted count: ``keep``, ``drop``, or both side by side. `level`
    says whether methods and causes are compared, and text is taken away for the curves, by ``token`` or by ``word``
    (which has the sum of its tokens). `targets` is how many scored positions of each prompt are explained at most,
    `fractions` which shares of the tokens are taken away for the curves (none: no curves), `top` how many strongest
    tokens are compared, `steps` at how many points integrated gradients begin (where those are too few, up to 16 times
    as many).
    """

    rollout: RolloutSpec = Field(default_factory=RolloutSpec)
    methods: Names = ("attention_mean", "rollout")
    causes: Names = ("knockout",)
    special: Policies = ("keep", "drop")
    level: Literal["token", "word"] = "token"
    targets: PositiveInt = 4
    fractions: Fractions = ()
    top: PositiveInt = 3
    steps: PositiveInt = 16
    seed: Seed = 0
