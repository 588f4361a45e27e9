"""ALTI: score tokens by how near the vector they contribute is to the attention's output.

Ferrando, Gállego & Costa-jussà, "Measuring the Mixing of Contextual Information in the Transformer" (EMNLP 2022):
the L1 distance of each term to the sum, clipped at the distance of the zero vector, rows normalised to sum to 1 and
multiplied over the layers. For encoder-decoders Ferrando et al., "Towards Opening the Black Box of Neural Machine
Translation" (EMNLP 2022), where the residual is an item beside the source's tokens.
"""

import numpy as np
from jaxtyping import Float


def contributions(
    items: Float[np.ndarray, "query item d_model"], whole: Float[np.ndarray, "query d_model"]
) -> Float[np.ndarray, "query item"]:
    """Return each item's share of the output y_i, from the vectors T_ij that (with the biases) sum to it.

    c_ij ∝ max(0, ‖y_i‖₁ − ‖y_i − T_ij‖₁), rows sum to 1. A row in which no item is nearer to y_i than the zero vector
    is shared evenly.
    """
    size = np.abs(whole).sum(axis=-1, keepdims=True)
    near = np.clip(size - np.abs(whole[:, None] - items).sum(axis=-1), 0, None)
    total = near.sum(axis=-1, keepdims=True)
    return np.where(total > 0, near / np.where(total > 0, total, 1), 1 / near.shape[-1])
