"""The rows that a model is run on for some prompts."""

import numpy as np
from jaxtyping import Int

from harness.models import Model
from harness.prompts import Prompts, masked


def asked(model: Model, prompts: Prompts) -> tuple[Prompts, Int[np.ndarray, " row"]]:
    """The rows that a model is run on, and the prompt each belongs to: the prompts, or one row per masked position."""
    if model.kind == "masked_lm":
        return masked(prompts, model.tokens.mask_id)
    return prompts, np.arange(len(prompts))
