"""The `Ablation` interface, zero-ablation, scaling, and ablation by a function of z.

An `Ablation` is a value with a model and prompts; `plan` is frozen before the first unit of work, and `prepare` makes
from the plan, for one batch, the `Baseline` of an `Intervention`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

from harness.ablation.edits import Baseline, multiply, zeros
from harness.ablation.rows import Share
from harness.hooks import Site


@runtime_checkable
class Ablation(Protocol):
    """A replacement of heads' z. Metrics are averaged over `draws` preparations of a batch."""

    @property
    def name(self) -> str: ...

    @property
    def draws(self) -> int: ...

    @property
    def positionwise(self) -> bool:
        """Whether the replacement at a position depends only on the position and z there."""
        ...

    @property
    def alike_in_rows(self) -> bool:
        """Whether the replacement is the same function of position and z in every row."""
        ...

    def plan(self) -> dict[str, Any]:
        """Return the choices that are made once and frozen."""
        ...

    def note(self, plan: Mapping[str, Any]) -> str:
        """Return the plan in words, for the arrays' attributes."""
        ...

    def prepare(self, plan: Mapping[str, Any], share: Share, sites: Sequence[Site], draw: int) -> Baseline:
        """Return the replacement of z at these sites for some of the model's rows."""
        ...


@dataclass(frozen=True)
class FixedBaseline:
    """A replacement that is the same for all prompts: zero, z times a factor, or a user's function of z and the head.

    `positionwise` is off unless it is known: a user's function may depend on other positions.
    """

    baseline: Baseline
    name: str
    in_words: str
    positionwise: bool = False
    draws: int = 1

    @property
    def alike_in_rows(self) -> bool:
        return self.positionwise

    def plan(self) -> dict[str, Any]:
        return {}

    def note(self, plan: Mapping[str, Any]) -> str:
        return self.in_words

    def prepare(self, plan: Mapping[str, Any], share: Share, sites: Sequence[Site], draw: int) -> Baseline:
        return self.baseline


ZERO = FixedBaseline(zeros, "zero", "z becomes zero", positionwise=True)


def scaling(factor: float) -> FixedBaseline:
    """Return the ablation that multiplies z by a factor."""
    in_words = f"z is multiplied by {factor:g}"
    return FixedBaseline(partial(multiply, factor=factor), "scale", in_words, positionwise=True)
