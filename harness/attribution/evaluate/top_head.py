"""Add the attention of the head with the largest effect as one more attribution method."""

import numpy as np
import xarray as xr
from jaxtyping import Float

from harness.hooks import Head, variable_name
from harness.metrics import leading


def with_top_head(data: xr.Dataset) -> xr.Dataset:
    """Add the method ``attention_L5H1``: the weights of the head with the largest mean effect, encoder heads excluded.

    The effect is on the `leading` metric, as everywhere. A masked LM's weights are those on the text
    without masks. Without effects or patterns the arrays are returned unchanged.
    """
    head = top_head(data)
    if head is None or f"attention_{head}" in data["attribution_method"].values:
        return data
    own, source = attention_from_targets(data, head)
    name = f"attention_{head}"
    wider = data.reindex({"attribution_method": [*data["attribution_method"].values, name]})
    for variable, values in (("attribution", own), ("source_attribution", source)):
        if variable in wider:
            wider[variable].loc[{"attribution_method": name}] = np.where(_visible(data, variable), values, np.nan)
            wider[variable].attrs = data[variable].attrs
    return wider


def _visible(data: xr.Dataset, variable: str) -> np.ndarray:
    """Return the tokens that a target can attend to, [prompt, target_position, position]."""
    return np.isfinite(data[variable].isel(attribution_method=0).values)


def top_head(data: xr.Dataset) -> Head | None:
    """Return the head with the largest mean effect, encoder heads excluded."""
    if not {"effect", "pattern", "attribution"} <= set(data):
        return None
    metrics = [str(name) for name in data["metric"].values]
    mean = abs(data["effect"].sel(metric=leading(metrics)).mean("prompt"))
    if "stack" in mean.dims:
        mean = mean.sel(stack=[name for name in mean["stack"].values if name != "encoder"])
    if not np.isfinite(mean).any():
        return None
    where = {str(name): mean[name].values[at] for name, at in mean.argmax(...).items()}
    return Head(int(where["layer"]), int(where["head"]), str(where.get("stack", "")))


def attention_from_targets(
    data: xr.Dataset, head: Head
) -> tuple[Float[np.ndarray, "prompt target position"], Float[np.ndarray, "prompt target source_position"] | float]:
    """Return the head's weights from the position of each target, on the prompt's own tokens and on its source's.

    For a text's vector they are the mean over the pooled tokens.
    """
    pattern = data[variable_name("pattern", head.stack)].sel(layer=head.layer, head=head.head).values.astype(np.float32)
    if "vector_share" in data:
        rows = np.einsum("pq,pqk->pk", data["vector_share"].values, pattern)[:, None].astype(np.float32)
    else:
        rows = np.take_along_axis(pattern, data["explained"].values.clip(0)[:, :, None], axis=1)
    if head.stack == "cross":
        return np.zeros((*rows.shape[:2], data.sizes["position"]), np.float32), rows
    return rows, 0.0
