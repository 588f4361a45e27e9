"""Spec of tracing a prediction to the segments of its prompt: documents, or tagged words."""

from typing import Literal

from harness.config.types import Names, PositiveInt, spec


@spec
class TraceSpec:
    """How a prediction is traced to the segments of its prompt.

    `causes` are names of `harness.attribution.causes.CAUSES`, applied to a whole segment: by default deletion and
    attention knockout. `heads` is for which segments single heads are knocked out: the one with the largest effect of
    the last cause (``used``), ``every`` one, or ``none``. `gradient` takes one backward pass per scored token (at most
    `targets` are traced) and the memory of all layers' patterns; without it, that of one layer's.
    """

    causes: Names = ("delete", "knockout")
    heads: Literal["used", "every", "none"] = "used"
    gradient: bool = True
    targets: PositiveInt = 16
