"""ALTI: a token counts by how near what it brought is to what came out.

Ferrando, Gállego & Costa-jussà, "Measuring the Mixing of Contextual Information in the Transformer" (EMNLP 2022):
the distance of each term to the whole in L1 norm, what is further than nothing counting as none, rows made to sum to 1
and multiplied over the layers. For encoder-decoders Ferrando et al., "Towards Opening the Black Box of Neural Machine
Translation" (EMNLP 2022), where the residual is an item beside the source's tokens.
"""

import numpy as np
from jaxtyping import Float


def contributions(
    items: Float[np.ndarray, "query item d_model"], whole: Float[np.ndarray, "query d_model"]
) -> Float[np.ndarray, "query item"]:
    """Each item's share of what came out, from the vectors that (with the biases) sum to it; rows sum to 1.

    c_ij ∝ max(0, ‖y_i‖₁ − ‖y_i − T_ij‖₁): an item as long as the whole and in its direction has all, one that points
    elsewhere none. A row in which no item is nearer to the whole than nothing is shares it evenly.
    """
    size = np.abs(whole).sum(axis=-1, keepdims=True)
    near = np.clip(size - np.abs(whole[:, None] - items).sum(axis=-1), 0, None)
    total = near.sum(axis=-1, keepdims=True)
    return np.where(total > 0, near / np.where(total > 0, total, 1), 1 / near.shape[-1])
