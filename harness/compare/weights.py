"""Distance of the parameters of two models of one shape, block by block."""

import numpy as np
import torch
from jaxtyping import Float

from harness import hooks
from harness.models import Model


@torch.no_grad()
def weight_change(base: Model, other: Model) -> Float[np.ndarray, " block"]:
    """Return ‖Δ‖ / ‖base‖ of the parameters of each block, in run order (the encoder's blocks first)."""
    pairs = zip(hooks.blocks(base.bridge), hooks.blocks(other.bridge), strict=True)
    return np.array([_share(mine, its) for mine, its in pairs])


def _share(mine: torch.nn.Module, its: torch.nn.Module) -> float:
    moved = length = 0.0
    for a, b in zip(mine.parameters(), its.parameters(), strict=True):
        moved += float((a.double() - b.double().to(a.device)).square().sum())
        length += float(a.double().square().sum())
    return (moved / length) ** 0.5
