"""Rollout of the weights that the prediction depends on.

Chefer, Gur & Wolf, "Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder Transformers"
(ICCV 2021), equations 5 and 6.
"""

import numpy as np
from jaxtyping import Float


def gradient_weighted(
    pattern: Float[np.ndarray, "step head node node"], gradient: Float[np.ndarray, "step head node node"]
) -> Float[np.ndarray, "node node"]:
    """Ā = mean_h max(0, ∇A ⊙ A) and R ← R + Ā R, from R = I; the row of the target explains it.

    `gradient` is that of what is explained, larger being more of it, by each weight; both are 0 for tokens that take
    no part in a step. For an encoder-decoder the rule is applied to source and target as one graph, without the
    paper's normalisation of the cross terms (equations 8 to 11).
    """
    relevance = np.eye(pattern.shape[-1])
    for weights, slope in zip(pattern, gradient, strict=True):
        relevance = relevance + np.clip(weights * slope, 0, None).mean(axis=0) @ relevance
    return relevance
