"""Which layers' parameters differ between two models of one shape."""

import numpy as np
import torch
from jaxtyping import Float

from harness import hooks
from harness.models import Model


@torch.no_grad()
def weight_change(base: Model, other: Model) -> Float[np.ndarray, " block"]:
    """How far the parameters of each block are from the base's, as a share of their length: ‖Δ‖ / ‖base‖. Blocks are in
    the order in which they run (of an encoder-decoder, the encoder's first)."""
    pairs = zip(hooks.blocks(base.bridge), hooks.blocks(other.bridge), strict=True)
    return np.array([_share(mine, its) for mine, its in pairs])


def _share(mine: torch.nn.Module, its: torch.nn.Module) -> float:
    moved = length = 0.0
    for a, b in zip(mine.parameters(), its.parameters(), strict=True):
        moved += float((a.double() - b.double().to(a.device)).square().sum())
        length += float(a.double().square().sum())
    return (moved / length) ** 0.5
