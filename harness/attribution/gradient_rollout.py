"""Gradient-weighted rollout: rollout of attention weights times their gradients.

Chefer, Gur & Wolf, "Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder Transformers"
(ICCV 2021), equations 5 and 6.
"""

import numpy as np
from jaxtyping import Float


def gradient_weighted(
    pattern: Float[np.ndarray, "step head node node"], gradient: Float[np.ndarray, "step head node node"]
) -> Float[np.ndarray, "node node"]:
    """Compute R ← R + Ā R from R = I, with Ā = mean_h max(0, ∇A ⊙ A); the target's row of R explains it.

    `gradient` is that of the explained number (larger: predicted better) by each weight; both are 0 for tokens that
    take no part in a step. For an encoder-decoder the rule is applied to source and target as one graph, without the
    paper's normalisation of the cross terms (equations 8 to 11).
    """
    relevance = np.eye(pattern.shape[-1])
    for weights, slope in zip(pattern, gradient, strict=True):
        relevance = relevance + np.clip(weights * slope, 0, None).mean(axis=0) @ relevance
    return relevance
