"""Specs of ablations: what replaces a head's z (or its q, k, v or pattern), and at which positions."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from harness.config.errors import RequestError, near
from harness.config.types import PositiveInt, Seed, spec


def _positions(value: Any) -> Any:
    """Return positions as a word or a tuple of whole numbers; one number is a list of one."""
    words = ("all", "last", "target", "each")
    items = [value] if type(value) is int else value
    if isinstance(items, list | tuple) and items and all(type(item) is int for item in items):
        return tuple(items)
    if value not in words:
        known = f"{near(value, words)}, or a list of positions such as [3,4] or [-1]"
        raise PydanticCustomError("positions", "{known}", {"known": known})
    return value


#: Where z is replaced: everywhere, at each prompt's last token, at its scored positions, at each position in turn, or
#: at these (negative ones from the prompt's end).
Positions = Annotated[str | tuple[int, ...], BeforeValidator(_positions)]


def _each_once(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value))


Activation = Literal["z", "q", "k", "v", "pattern"]
#: Which of a head's activations is replaced, each in a sweep of its own.
Activations = Annotated[
    tuple[Activation, ...],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    AfterValidator(_each_once),
    Field(min_length=1),
]


@spec
class ZeroAblation:
    """Zero-ablation: a head's z becomes zero."""

    name: Literal["zero"] = "zero"
    """Which of the options this is."""
    positions: Positions = "all"
    """Where z is replaced: all, last, target (scored positions), each in turn, or a list such as [3,-1]."""
    of: Activations = ("z",)
    """Which of a head's activations is replaced, one at a time: z, q, k, v, pattern, or a list."""


@spec
class MeanAblation:
    """Mean-ablation: z becomes its mean over a reference set, the prompts themselves (``self``) or a named prompt set.

    With `means` ``by_position`` each position has a mean of its own where all prompts, swept and reference, have one
    length; otherwise the first token has its own and all other positions share one. With ``pooled`` a head has one,
    over all positions: what W_O's bias can hold, so what `harness.bake` writes.
    """

    name: Literal["mean"] = "mean"
    """Which of the options this is."""
    positions: Positions = "all"
    """Where z is replaced: all, last, target (scored positions), each in turn, or a list such as [3,-1]."""
    of: Activations = ("z",)
    """Which of a head's activations is replaced, one at a time: z, q, k, v, pattern, or a list."""
    reference: str = "self"
    """Prompts the mean is over: self (these prompts), or a prompt set with defaults such as ioi."""
    means: Literal["by_position", "pooled"] = "by_position"
    """by_position (the first token apart from all others where lengths differ), or pooled: one for all positions."""


@spec
class ResampleAblation:
    """Resample-ablation: z becomes that of a prompt from another cluster; metrics are means over `draws` prompts."""

    name: Literal["resample"] = "resample"
    """Which of the options this is."""
    positions: Positions = "all"
    """Where z is replaced: all, last, target (scored positions), each in turn, or a list such as [3,-1]."""
    of: Activations = ("z",)
    """Which of a head's activations is replaced, one at a time: z, q, k, v, pattern, or a list."""
    draws: PositiveInt = 1
    """Number of donor prompts; metrics are means over them."""
    seed: Seed = 0
    """Seed of the choice of donors."""


@spec
class PatchAblation:
    """Activation patching: a head's z becomes that of the prompt's counterfactual (corrupted prompt).

    `into` ``clean``: corrupted z in the clean run (noising); ``corrupted``: clean z in the corrupted run (denoising).
    """

    name: Literal["patch"] = "patch"
    """Which of the options this is."""
    positions: Positions = "all"
    """Where z is replaced: all, last, target (scored positions), each in turn, or a list such as [3,-1]."""
    of: Activations = ("z",)
    """Which of a head's activations is replaced, one at a time: z, q, k, v, pattern, or a list."""
    into: Literal["clean", "corrupted"] = "clean"
    """Run that is patched: clean (noising), or corrupted, with clean z (denoising)."""


@spec
class ScaleAblation:
    """Scaling: a head's z is multiplied by `factor`. 0 is zero-ablation, 1 changes nothing, −1 reverses the head."""

    name: Literal["scale"] = "scale"
    """Which of the options this is."""
    positions: Positions = "all"
    """Where z is replaced: all, last, target (scored positions), each in turn, or a list such as [3,-1]."""
    of: Activations = ("z",)
    """Which of a head's activations is replaced, one at a time: z, q, k, v, pattern, or a list."""
    factor: float = 0.5
    """What z is multiplied by: 0 is zero-ablation, 1 changes nothing, -1 reverses the head."""


AblationSpec = Annotated[
    ZeroAblation | MeanAblation | ResampleAblation | PatchAblation | ScaleAblation, Field(discriminator="name")
]


#: Why weights hold some ablations only.
WEIGHTS = "weights are the same for every text and position"


def check_everywhere(ablation: AblationSpec, because: str) -> None:
    """Raise `RequestError` for an ablation that is not the same for all texts and at all positions, with the reason."""
    if not isinstance(ablation, ZeroAblation | ScaleAblation | MeanAblation):
        name = getattr(ablation, "name", ablation)
        raise RequestError("ablation", name, f"{because}; use zero, scale or mean")
    if ablation.of != ("z",):
        raise RequestError("ablation.of", ",".join(ablation.of), f"{because}, and hold z alone; use z")
    if ablation.positions != "all":
        shown = ablation.positions if isinstance(ablation.positions, str) else list(ablation.positions)
        raise RequestError("ablation.positions", shown, f"{because}; use all")
    if isinstance(ablation, MeanAblation) and ablation.means != "pooled":
        raise RequestError("ablation.means", ablation.means, f"{because}; use pooled")
