"""Value-weighted norms: score a key by the norm of its weighted, transformed value vector.

Kobayashi, Kuribayashi, Yokoi & Inui, "Attention is Not Only a Weight: Analyzing Transformers with Vector Norms" (EMNLP
2020): an attention's output is y_i = Σ_j α_ij f(x_j), with f(x) = (x W_V + b_V) W_O; a key's score is ‖α_ij f(x_j)‖.
"""

import numpy as np
from jaxtyping import Float


def terms(
    pattern: Float[np.ndarray, "head query key"], carried: Float[np.ndarray, "key head d_model"]
) -> Float[np.ndarray, "query key d_model"]:
    """Return what each key adds to each query, Σ_h A_ij f_h(x_j); summed over keys, W_O z without its bias.

    `carried` is f_h(x_j), each key's value through its head's part of W_O.
    """
    return np.einsum("hqk,khd->qkd", pattern, carried, optimize=True)


def value_weighted_norms(
    pattern: Float[np.ndarray, "head query key"], carried: Float[np.ndarray, "key head d_model"]
) -> Float[np.ndarray, "query key"]:
    """Return the Euclidean norm of what each key adds to each query, in the units of the residual stream.

    `pattern` [head, query, key] and `carried` [key, head, d_model], each key's value through its head's part of W_O,
    give [query, key] (Kobayashi et al. 2020, section 2). Raises ValueError where their sizes differ.

    >>> import numpy as np
    >>> import harness
    >>> pattern = np.array([[[1.0, 0.0], [0.5, 0.5]]])                 # one head, two tokens
    >>> carried = np.array([[[3.0, 4.0]], [[0.0, 2.0]]])               # norms 5 and 2
    >>> harness.attribution.value_weighted_norms(pattern, carried)
    array([[5. , 0. ],
           [2.5, 1. ]])
    """
    return np.linalg.norm(terms(pattern, carried), axis=-1)
