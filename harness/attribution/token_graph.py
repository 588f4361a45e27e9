"""One token graph for the three attentions of an encoder-decoder.

They are the encoder's, and in each decoder layer self and cross attention. On the tokens of both texts side by side
(the source first) each is one square matrix, the identity for tokens that take no part in it. So what is defined for a
stack of square patterns (rollout, flow …) is defined for an encoder-decoder too.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Square = Float[np.ndarray, "*head node node"]


@dataclass(frozen=True)
class Nodes:
    """The number of tokens of the source and of the text; `source` is 0 in a model with one stack."""

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
        """Place an attention's matrix among all nodes, with `idle` on the diagonal of those that take no part in it.

        `own` is added to the diagonal of the queries of a cross attention, whose keys are other tokens.
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
    """Stack all attentions of an encoder-decoder, in run order, as square patterns whose rows sum to 1.

    The encoder's layers, then self and cross attention in turn; nodes are the source's tokens, then the text's. Without
    `encoder` and `cross` it is the pattern itself.
    """
    if encoder is None or cross is None:
        return pattern
    nodes = Nodes(encoder.shape[-1], pattern.shape[-1])
    steps = [nodes.place(layer, "encoder") for layer in encoder]
    for layer, across in zip(pattern, cross, strict=True):
        steps += [nodes.place(layer, "decoder"), nodes.place(across, "cross")]
    return np.stack(steps)
