"""The `Ablation` interface, zero-ablation, and ablation by a function of z.

An `Ablation` is a value with a model and prompts; `plan` is frozen before the first unit of work, and `prepare` makes
from the plan, for one batch, the `Baseline` of an `Intervention`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from harness.ablation.edits import Baseline, zeros
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
    """A replacement that is the same for all prompts: zero, or a function of z and the head."""

    baseline: Baseline
    name: str
    draws: int = 1

    @property
    def positionwise(self) -> bool:
        return self.baseline is zeros  # a user's function may depend on other positions

    def plan(self) -> dict[str, Any]:
        return {}

    def note(self, plan: Mapping[str, Any]) -> str:
        return "z becomes zero" if self.baseline is zeros else f"z becomes {self.name}(z, head)"

    def prepare(self, plan: Mapping[str, Any], share: Share, sites: Sequence[Site], draw: int) -> Baseline:
        return self.baseline


ZERO = FixedBaseline(zeros, "zero")
