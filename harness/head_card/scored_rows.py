"""What a head looks at where a prompt's last prediction is scored: one row of its pattern on a few prompts."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.hooks import Head
from harness.models import Model
from harness.prompts import Prompts

#: The prompts that are shown of each card: where the head's effect is largest, and where it is least.
EXTREMES = ("most", "least")


def prompts_shown(effects: Mapping[Head, Float[np.ndarray, " prompt"]]) -> dict[str, list[int]]:
    """Choose of each head the prompts with its largest and its smallest effect, whichever way."""
    known = {head: np.nan_to_num(np.abs(values)) for head, values in effects.items() if head.stack in ("", "decoder")}
    return {str(head): [int(size.argmax()), int(size.argmin())] for head, size in known.items()}


@torch.no_grad()
def scored_rows(model: Model, prompts: Prompts, number: int, heads: Sequence[Head]) -> Float[np.ndarray, "head key"]:
    """Return the row of the pattern of each head at the last scored position of one prompt, in one forward.

    It ends with the last real token. Nothing else of the patterns is kept.
    """
    one = prompts.take([number])
    n, scored = int(one.length[0]), np.flatnonzero(one.target[0])
    at = int(scored[-1]) if len(scored) else n - 1
    rows: dict[Head, Tensor] = {}

    def keep(head: Head, pattern: Float[Tensor, "row head query key"], hook: Any) -> None:
        rows[head] = pattern[0, head.head, at, :n].float().cpu()

    watches = [(hooks.hook_name("pattern", head.site), partial(keep, head)) for head in heads]
    with model.bridge.hooks(fwd_hooks=watches):
        model.forward(one.inputs(model.device))
    return torch.stack([rows[head] for head in heads]).numpy()
