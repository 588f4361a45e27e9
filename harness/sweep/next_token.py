"""What a model says next under an intervention: its most likely token at each prompt's last scored position.

It is measured as a metric among the others, in the forward that they are computed from; a token's number is exact in
32-bit floats up to 16.7 million.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from harness.metrics import Metric
from harness.models import Model
from harness.prompts.targets import Readout, Targets


def _most_likely(read: Readout) -> Float[Tensor, " target"]:
    return read.logits.argmax(dim=-1).float()


def _at_last(values: Float[Tensor, "row target"], targets: Targets) -> Float[Tensor, "row prompt"]:
    """Select the value at each prompt's last target; 0 for prompts without one here."""
    last = torch.full((targets.n_prompts,), -1, device=values.device)
    last = last.scatter_reduce(0, targets.prompt, torch.arange(len(targets), device=values.device), "amax")
    return torch.where(last >= 0, values[:, last.clamp(min=0)], values.new_zeros(()))


#: The number of the most likely token at a prompt's last target.
NEXT_TOKEN = Metric("next_token", _most_likely, "token", higher_is_better=None, reduce=_at_last)


def split_off(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Take `NEXT_TOKEN`, the last metric, out of a unit's arrays: `next_token` [prompt, …] and `clean_next_token`."""
    metrics = ("clean", "ablated", "donor")
    rest = {name: array[:-1] if name in metrics else array for name, array in arrays.items()}
    return {**rest, "next_token": arrays["ablated"][-1], "clean_next_token": arrays["clean"][-1]}


def written(model: Model, token_id: xr.DataArray) -> xr.DataArray:
    """Return the strings of token numbers; empty for NaN."""
    flat = token_id.values.ravel()
    known = np.unique(flat[np.isfinite(flat)]).astype(int)
    names: Sequence[str] = [model.tokens.string(number) for number in known.tolist()]
    place = np.searchsorted(known, np.nan_to_num(flat).astype(int)).clip(max=max(len(known) - 1, 0))
    strings = np.where(np.isfinite(flat), np.array(names, dtype=object)[place], "").astype(str)
    return xr.DataArray(strings.reshape(token_id.shape), dims=token_id.dims, coords=token_id.coords)
