"""One graph for what is read and what is written.

In an encoder-decoder three attentions take turns: the encoder's, and in each layer of the decoder its own and the one
across to the source. On the tokens of both texts side by side (the source first) each of them is one square matrix, in
which the tokens that take no part in it stay as they are. What is defined for a stack of square patterns (rollout,
flow …) is then defined here too.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Square = Float[np.ndarray, "*head node node"]


@dataclass(frozen=True)
class Nodes:
    """How many tokens are read and how many written. A model with one stack reads none: `source` is 0."""

    source: int
    written: int

    def __len__(self) -> int:
        return self.source + self.written

    def place(
        self,
        matrix: Float[np.ndarray, "*head query key"],
        stack: str,
        idle: float = 1.0,
        own: Float[np.ndarray, "*head query"] | None = None,
    ) -> Square:
        """An attention's matrix among all nodes; `idle` stands on the diagonal of those that take no part in it.

        `own` is what stands on the diagonal of the queries of a cross attention, whose keys are other tokens.
        """
        rows = slice(0, self.source) if stack == "encoder" else slice(self.source, len(self))
        columns = slice(0, self.source) if stack in ("encoder", "cross") else slice(self.source, len(self))
        whole = np.zeros((*matrix.shape[:-2], len(self), len(self)))
        whole[..., range(len(self)), range(len(self))] = idle
        whole[..., rows, rows] = 0
        whole[..., rows, columns] = matrix
        if own is not None:
            queries = np.arange(len(self))[rows]
            whole[..., queries, queries] += own
        return whole


def joint(
    pattern: Float[np.ndarray, "layer head query key"],
    encoder: Float[np.ndarray, "encoder_layer head source_query source_key"] | None = None,
    cross: Float[np.ndarray, "layer head query source_key"] | None = None,
) -> Float[np.ndarray, "step head node node"]:
    """All attentions of an encoder-decoder in the order in which they run, as one stack of square patterns whose rows
    sum to 1: the encoder's layers, then self and cross attention in turn. Nodes are the source's tokens, then those
    written. Without `encoder` and `cross` it is the pattern itself.
    """
    if encoder is None or cross is None:
        return pattern
    nodes = Nodes(encoder.shape[-1], pattern.shape[-1])
    steps = [nodes.place(layer, "encoder") for layer in encoder]
    for layer, across in zip(pattern, cross, strict=True):
        steps += [nodes.place(layer, "decoder"), nodes.place(across, "cross")]
    return np.stack(steps)
