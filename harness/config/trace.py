"""Spec of tracing a prediction to the segments of its prompt: documents, or tagged words."""

from typing import Literal

from harness.config.types import Names, PositiveInt, spec


@spec
class TraceSpec:
    """How a prediction is traced to the segments of its prompt."""

    causes: Names = ("delete", "knockout")
    """Causes measured on whole segments: names of harness.attribution.causes.CAUSES."""
    heads: Literal["used", "every", "none"] = "used"
    """Segments for which single heads are knocked out: the most used one, every one, or none."""
    gradient: bool = True
    """Also one backward pass per scored token; takes the memory of all layers' patterns."""
    targets: PositiveInt = 16
    """Largest number of scored positions traced in each prompt."""
