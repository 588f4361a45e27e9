"""What is said of the parts of a prompt: its documents, or its tagged words."""

from typing import Literal

from harness.config.types import Names, PositiveInt, spec


@spec
class TraceSpec:
    """How a prediction is traced to the parts of its prompt.

    `causes` are names of `harness.attribution.causes.CAUSES`, of a whole part at once: by default the part is removed,
    and nobody may attend to it. `heads` says for which parts the heads that carry it are looked for, one knocked out at
    a time: the one that was ``used`` most by the last of the causes, ``every`` part, or ``none``. `gradient` takes one
    backward pass for each of the scored tokens, of which at most `targets` are traced, and the memory of all layers'
    patterns; without it a long context takes that of one layer's.
    """

    causes: Names = ("delete", "knockout")
    heads: Literal["used", "every", "none"] = "used"
    gradient: bool = True
    targets: PositiveInt = 16
