"""Label a sweep's values as arrays named as in ``data.zarr``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from harness.metrics import Metric
from harness.models import Shape
from harness.sweep.interventions import EFFECT, Groups

Values = Float[np.ndarray, "metric prompt group *rest"]


@dataclass(frozen=True)
class Layout:
    """The places of a sweep's interventions in labelled arrays.

    Each of `groups` has a place: layer and head for single heads, the layer for layers, attentions and MLPs, the depth
    for residual streams, its name along `set` for any other kind; in an encoder-decoder with the stack before the
    layer. NaN where nothing was ablated. With `position_lengths` [prompt] there is one more axis, `position`, NaN in
    padding.
    """

    kind: str
    groups: Groups
    shape: Shape
    metrics: Sequence[Metric]
    position_lengths: Int[np.ndarray, " prompt"] | None = None
    n_random: int = 0
    components: Sequence[str] = ()

    def labelled(self, values: Values) -> xr.DataArray:
        """Put values [metric, prompt, group] or [metric, prompt, group, position] in their places."""
        rest = ("position",)[: values.ndim - 3]
        if self.kind not in ("single", "layer", "mlp", "attn", "resid"):
            named = [*self.groups][: values.shape[2]]
            return xr.DataArray(values, dims=("metric", "prompt", "set", *rest), coords={"set": named})
        stacks = [stack for stack in self.shape.stacks if stack]
        sizes = {"stack": max(1, len(stacks)), "layer": self.shape.depth, "head": self.shape.n_heads}
        sizes["depth"] = self.shape.depth + 1
        dims = {"single": ("stack", "layer", "head"), "resid": ("stack", "depth")}.get(self.kind, ("stack", "layer"))
        full = np.full((*values.shape[:2], *(sizes[dim] for dim in dims), *values.shape[3:]), np.nan)
        parts = [parts[0] for parts in self.groups.values()]
        at = [[stacks.index(part.stack) if stacks else 0 for part in parts], [part.layer for part in parts]]
        at += [[part.head for part in parts]] if self.kind == "single" else []
        full[:, :, *at] = values
        coords = {dim: np.arange(size) for dim, size in sizes.items()} | {"stack": stacks or [""]}
        array = xr.DataArray(full, dims=("metric", "prompt", *dims, *rest), coords={dim: coords[dim] for dim in dims})
        return array if stacks else array.isel(stack=0, drop=True)

    def assembled(
        self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]], notes: Mapping[str, Any]
    ) -> xr.Dataset:
        """Join all units of a sweep: `clean`, and by head (with `ablated`), layer, MLP or set the effect.

        Position by position that of heads is `position_effect`; of the others it has one more axis. Of a patch the
        metrics of both texts, `clean` and `corrupted`, are kept. Each array has the `notes`; the first also has the
        checks: the number of edits verified and the largest difference to a plain forward.
        """
        cut = plan["batches"]
        clean = gathered(cut, [unit["clean"][..., None] for unit in units])[..., 0]
        ablated = gathered(cut, [unit["ablated"] for unit in units])
        by_position = self.position_lengths is not None
        kept = self.labelled(ablated[..., 0]) if self.kind == "single" and not by_position else None
        effect = np.subtract(ablated, clean[:, :, None, None], out=ablated)  # in place: a large run has room for one
        arrays = self._effects(effect)
        if kept is not None:
            arrays["ablated"] = kept
        if plan["direct"]:
            arrays["direct"] = self.labelled(gathered(cut, [unit["direct"] for unit in units]))
        if plan["source_direct"]:
            arrays["source_direct"] = self._by_source(gathered(cut, [unit["source_direct"] for unit in units]))
        if plan["account"]:
            account = self.labelled(gathered(cut, [unit["account"] for unit in units]).astype(np.float32))
            arrays["account"] = account.rename(position="component").assign_coords(component=[*self.components])
        if plan["null"]:
            arrays["null_effect"] = self._null(plan, units)
        for array in arrays.values():
            array.attrs = dict(notes)
        if "choice_log_prob" in units[0]:
            known = gathered(cut, [unit["choice_log_prob"][None] for unit in units])[0]
            arrays["choice_log_prob"] = xr.DataArray(known, dims=("prompt", "choice"), attrs={"units": "nats"})
        off = float(np.concatenate([unit["off"] for unit in units]).max(initial=0))
        checks = {"edits_verified": sum(int(unit["fired"]) for unit in units), "plain_forward_difference": off}
        next(iter(arrays.values())).attrs = {**notes, **checks}
        for name, values in _without(plan, units, clean).items():
            arrays[name] = xr.DataArray(values, dims=("metric", "prompt"), attrs=dict(notes))
        return xr.Dataset(arrays, coords={"metric": [metric.name for metric in self.metrics]})

    def _effects(self, effect: Float[np.ndarray, "metric prompt group turn"]) -> dict[str, xr.DataArray]:
        """Label the effects by their name, position by position or not, those of random sets apart."""
        if self.position_lengths is not None:
            real = np.arange(effect.shape[-1]) < self.position_lengths[:, None]
            name = "position_effect" if self.kind == "single" else EFFECT[self.kind]
            return {name: self.labelled(np.where(real[None, :, None], effect, np.nan))}
        named, random = np.split(effect[..., 0], [len(self.groups) // (1 + self.n_random)], axis=2)
        arrays = {EFFECT[self.kind]: self.labelled(named)}
        if self.n_random:
            draws = random.reshape(*named.shape, self.n_random)
            arrays["random_set_effect"] = self.labelled(draws).rename(position="draw")
        return arrays

    def _by_source(self, values: Values) -> xr.DataArray:
        """Label direct effects by key: 0 in padding, NaN for metrics that are not linear in the logits."""
        linear = xr.DataArray([metric.linear for metric in self.metrics], dims="metric")
        return self.labelled(np.nan_to_num(values)).rename(position="key").where(linear)

    def _null(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.DataArray:
        """Return the effects of random edits on distances, by draw and head; NaN for other metrics."""
        draws = range(plan["null"]["draws"])
        by_draw = [gathered(plan["batches"], [unit["null"][draw] for unit in units]) for draw in draws]
        by_head = xr.concat([self.labelled(values) for values in by_draw], dim="draw")
        distance = xr.DataArray([metric.distance for metric in self.metrics], dims="metric")
        return by_head.where(distance)


def _without(
    plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]], clean: np.ndarray
) -> dict[str, Float[np.ndarray, "metric prompt"]]:
    """Return the metrics without an ablation: `clean`, and of a patch, whichever run it patches, `corrupted` too."""
    if "donor" not in units[0]:
        return {"clean": clean}
    donor = gathered(plan["batches"], [unit["donor"][..., None] for unit in units])[..., 0]
    return {"clean": clean, "corrupted": donor} if plan["into"] == "clean" else {"clean": donor, "corrupted": clean}


def gathered(batches: Sequence[Sequence[int]], parts: Sequence[np.ndarray]) -> np.ndarray:
    """Join the units' arrays [metric, row, …] to one [metric, prompt, …], in the order of the prompts.

    A unit that is shorter in the last axis is filled up with NaN.
    """
    n, end = sum(map(len, batches)), max(part.shape[-1] for part in parts)
    whole = np.full((parts[0].shape[0], n, *parts[0].shape[2:-1], end), np.nan)
    for rows, part in zip(batches, parts, strict=True):
        whole[:, rows, ..., : part.shape[-1]] = part
    return whole
