"""What heads' z becomes, for any batch of prompts.

An `Ablation` is a value that knows model and prompts; `plan` is what it freezes before the first unit of work, and
`prepare` makes from the plan, for one batch, the `Baseline` that an `Intervention` carries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from harness.ablation.edits import Baseline, zeros
from harness.ablation.rows import Share
from harness.hooks import Site


@runtime_checkable
class Ablation(Protocol):
    """What heads' z becomes. `draws` is over how many preparations of a batch the metrics are averaged."""

    @property
    def name(self) -> str: ...

    @property
    def draws(self) -> int: ...

    @property
    def positionwise(self) -> bool:
        """Whether z at a position becomes something that depends on nothing but the position and z there."""
        ...

    def plan(self) -> dict[str, Any]:
        """What is chosen once and frozen."""
        ...

    def note(self, plan: Mapping[str, Any]) -> str:
        """The plan in words, for the arrays' attributes."""
        ...

    def prepare(self, plan: Mapping[str, Any], share: Share, sites: Sequence[Site], draw: int) -> Baseline:
        """What z at these sites becomes, for some of the rows that the model is run on."""
        ...


@dataclass(frozen=True)
class FixedBaseline:
    """The same for all prompts: zero, or a function of z and the head."""

    baseline: Baseline
    name: str
    draws: int = 1

    @property
    def positionwise(self) -> bool:
        return self.baseline is zeros  # nobody knows what a function does

    def plan(self) -> dict[str, Any]:
        return {}

    def note(self, plan: Mapping[str, Any]) -> str:
        return "z becomes zero" if self.baseline is zeros else f"z becomes {self.name}(z, head)"

    def prepare(self, plan: Mapping[str, Any], share: Share, sites: Sequence[Site], draw: int) -> Baseline:
        return self.baseline


ZERO = FixedBaseline(zeros, "zero")
