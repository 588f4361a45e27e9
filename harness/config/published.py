"""Spec of published values that a run is compared with."""

from typing import Annotated, Literal

from pydantic import Field

from harness.config.errors import RequestError
from harness.config.types import spec


@spec
class Published:
    """One published value, with its source: a mean over the prompts of a metric without an ablation (``clean``), with a
    head ablated (``ablated``), or of the difference (``effect``); or the ``role`` of a head.

    `tolerance` is the largest deviation that counts as agreement, in the metric's unit.
    """

    source: str
    what: Literal["clean", "ablated", "effect", "role"]
    metric: str | None = None
    head: str | None = None
    value: float | None = None
    tolerance: Annotated[float, Field(gt=0)] | None = None
    role: str | None = None

    def __post_init__(self) -> None:
        needed = ["head", "role"] if self.what == "role" else ["metric", "value", "tolerance"]
        needed += ["head"] if self.what in ("ablated", "effect") else []
        for key in needed:
            if getattr(self, key) is None:
                raise RequestError(f"published.{key}", "null", f"a published {self.what} needs a {key}")
