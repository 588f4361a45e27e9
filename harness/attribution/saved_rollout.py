"""The rollout of every prompt, kept with the run."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jaxtyping import Float

from harness.attribution.rollout import rollout
from harness.config import RolloutSpec, RunSpec
from harness.execute import Closed, Part

if TYPE_CHECKING:
    from harness.models import Model
    from harness.prompts import Prompts
    from harness.results import Run


@dataclass(frozen=True)
class RolloutArray:
    """Adds `rollout` [prompt, query, key] to the arrays, made of the cached patterns."""

    spec: RolloutSpec

    def close(self, data: xr.Dataset) -> Closed:
        options = asdict(self.spec)
        rolled = np.stack([rollout(pattern.values, **options) for pattern in data["pattern"]])
        note = {"units": "share of attention", "method": f"attention rollout {options}"}
        array = xr.DataArray(rolled.astype(np.float32), dims=("prompt", "query", "key"), attrs=note)
        return Closed(data.assign(rollout=array))


def part(spec: RunSpec, model: "Model", prompts: "Prompts") -> Part:
    """The rollout of a run. An encoder-decoder has none: what its decoder reads comes from the source as well. Raises
    `RequestError` for options that roll out nothing."""
    if prompts.source is not None:
        return Part()
    rollout(np.ones((model.shape.n_layers, 1, 1, 1)), **asdict(spec.attribution.rollout))
    return Part(closings=[RolloutArray(spec.attribution.rollout)])


def rollout_of(run: "Run", prompt: int) -> Float[np.ndarray, "query key"]:
    """A saved run's rollout on one prompt: the saved one, or computed from its patterns with the run's own options.
    Padding off."""
    length = int(run.data["length"].values[prompt])
    if "rollout" in run.data:
        return run.data["rollout"].isel(prompt=prompt).values[:length, :length].astype(float)
    return rollout(run.pattern(prompt).values, **(run.spec.get("attribution", {}).get("rollout") or {}))
