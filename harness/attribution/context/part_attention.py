"""Sum attention and rollout by part while the model runs, so that no pattern outlives its layer."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from harness import hooks
from harness.attribution.example import Example
from harness.attribution.rollout import rollout
from harness.config import RolloutSpec

Attention = Float[np.ndarray, "target layer head part"]
Rolled = Float[np.ndarray, "target part"]


@torch.no_grad()
def part_attention(
    example: Example, inside: Bool[np.ndarray, "part node"], options: RolloutSpec
) -> tuple[Attention, Rolled]:
    """Return the share of each target's attention on each part, by head, and its rollout through all layers.

    The query is the token at which the target is predicted; for the vector of a text, the mean over the pooled tokens.
    """
    shape, member = example.model.shape, inside.T.astype(np.float64)
    attention = np.full((example.n_targets, shape.n_layers, shape.n_heads, len(inside)), np.nan)
    step: dict[str, Any] = asdict(options) | {"start_layer": 0}
    rolled = np.tile(np.eye(len(example.nodes)), (len(example.rows), 1, 1))

    def look(layer: int, pattern: Float[np.ndarray, "row head query key"]) -> None:
        attention[:, layer] = _read(example, pattern) @ member
        if layer >= options.start_layer:
            rolled[:] = [rollout(one[None], **step) @ before for one, before in zip(pattern, rolled, strict=True)]

    watches = [(hooks.hook_name("pattern", site), _at(site.layer, look)) for site in shape.sites]
    with example.model.bridge.hooks(fwd_hooks=watches):
        example.model.forward(example.clean.inputs)
    if np.isnan(attention).any():
        raise RuntimeError(f"an attention of {example.model.name} did not fire")
    return attention, _read(example, rolled[:, None])[:, 0] @ member


def _at(layer: int, look: Any) -> Any:
    return lambda pattern, hook: look(layer, pattern.float().cpu().numpy())


def _read(example: Example, pattern: Float[np.ndarray, "row head query key"]) -> Float[np.ndarray, "target head key"]:
    """Select the rows of a pattern at which the targets are predicted."""
    if example.model.kind == "embedding":
        return np.einsum("rq,rhqk->rhk", example.vector_share, pattern)[example.row]
    return pattern[example.row, :, example.position].astype(np.float64)
