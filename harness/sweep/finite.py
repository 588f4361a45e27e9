"""Numbers that are none (NaN, infinities) are named by prompt and head before anything is made of them."""

from collections.abc import Sequence

import numpy as np

from harness.models import Model
from harness.models.checks import not_finite


def check_finite(
    model: Model, metrics: Sequence[str], prompts: Sequence[int], values: np.ndarray, ablated: Sequence[str] = ()
) -> None:
    """Raises `RequestError` for the first of these values [metric, prompt] (clean) or [metric, prompt, intervention]
    that is no number, with the prompt's own number and the name of what was ablated."""
    for at in np.argwhere(~np.isfinite(values)):
        metric = metrics[at[0]]
        what = f"{metric} without {ablated[at[2]]}" if len(ablated) else f"the clean {metric}"
        raise not_finite(model, prompts[at[1]], what, values[tuple(at)])
