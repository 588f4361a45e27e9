"""Save the rollout of every prompt with the run."""

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
    """Add `rollout` [prompt, query, key] to the arrays, from the cached patterns."""

    spec: RolloutSpec

    def close(self, data: xr.Dataset) -> Closed:
        options = asdict(self.spec)
        rolled = np.stack([rollout(pattern.values, **options) for pattern in data["pattern"]])
        note = {"units": "share of attention", "method": f"attention rollout {options}"}
        array = xr.DataArray(rolled.astype(np.float32), dims=("prompt", "query", "key"), attrs=note)
        return Closed(data.assign(rollout=array))


def part(spec: RunSpec, model: "Model", prompts: "Prompts") -> Part:
    """Return the rollout of a run; none for an encoder-decoder, whose decoder also reads the source. Raises
    `RequestError` for invalid options."""
    if prompts.source is not None:
        return Part()
    rollout(np.ones((model.shape.n_layers, 1, 1, 1)), **asdict(spec.attribution.rollout))
    return Part(closings=[RolloutArray(spec.attribution.rollout)])


def rollout_of(run: "Run", prompt: int) -> Float[np.ndarray, "query key"]:
    """Return a saved run's rollout on one prompt, without padding; computed with the run's options if not saved."""
    length = int(run.data["length"].values[prompt])
    if "rollout" in run.data:
        return run.data["rollout"].isel(prompt=prompt).values[:length, :length].astype(float)
    return rollout(run.pattern(prompt).values, **(run.spec.get("attribution", {}).get("rollout") or {}))
