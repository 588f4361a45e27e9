"""Value-weighted norms: a token that is looked at counts by what the look brings.

Kobayashi, Kuribayashi, Yokoi & Inui, "Attention is Not Only a Weight: Analyzing Transformers with Vector Norms" (EMNLP
2020): the output of an attention is the sum of vectors y_i = Σ_j α_ij f(x_j), with f(x) = (x W_V + b_V) W_O, and the
norm of each says how much it brings.
"""

import numpy as np
from jaxtyping import Float


def terms(
    pattern: Float[np.ndarray, "head query key"], carried: Float[np.ndarray, "key head d_model"]
) -> Float[np.ndarray, "query key d_model"]:
    """What each key adds to each query, Σ_h A_ij f_h(x_j); summed over keys, W_O z without its bias.

    `carried` is f_h(x_j), each key's value through its head's part of W_O.
    """
    return np.einsum("hqk,khd->qkd", pattern, carried, optimize=True)


def value_weighted_norms(
    pattern: Float[np.ndarray, "head query key"], carried: Float[np.ndarray, "key head d_model"]
) -> Float[np.ndarray, "query key"]:
    """The Euclidean norm of what each key adds to each query, in the units of the residual stream."""
    return np.linalg.norm(terms(pattern, carried), axis=-1)
