"""Flatten an effect array (numpy or xarray) to one labelled column per head, and check its values."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from harness.config import RequestError
from harness.hooks import Head


@runtime_checkable
class LabelledArray(Protocol):
    """The used part of `xarray.DataArray`, so that xarray need not be imported."""

    @property
    def dims(self) -> tuple[Hashable, ...]: ...
    @property
    def coords(self) -> Any: ...
    def transpose(self, *dims: Any) -> Any: ...


@dataclass(frozen=True)
class Columns:
    """Effects of the heads that were measured, and which heads those are (one row of `labels` per column).

    `shape` is that of the whole array, prompt first; `kept` marks its measured heads.
    """

    values: Float[np.ndarray, "prompt head"]
    labels: pd.DataFrame
    kept: Bool[np.ndarray, " candidate"]
    shape: tuple[int, ...]

    def name(self, column: int) -> str:
        """``L5H1``, or ``layer=5`` where the rows are not heads."""
        row = self.labels.iloc[column]
        if list(self.labels.columns)[-2:] == ["layer", "head"]:
            return str(Head(int(row["layer"]), int(row["head"]), str(row.get("stack", ""))))
        return ", ".join(f"{key}={value}" for key, value in row.items())


def labelled_axes(effect: LabelledArray | np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the plain array with the prompt first, and the coordinates of every other axis."""
    if not isinstance(effect, LabelledArray):
        plain = np.asarray(effect)
        if plain.ndim != 3:
            raise RequestError("effect", f"shape {plain.shape}", "a plain array must be [prompt, layer, head]")
        return plain, {"layer": np.arange(plain.shape[1]), "head": np.arange(plain.shape[2])}
    if "prompt" not in effect.dims or len(effect.dims) < 2:
        raise RequestError("effect", f"dimensions {effect.dims}", "it needs prompt, and something that was ablated")
    order = ("stack", "layer", "head")
    others = sorted((str(dim) for dim in effect.dims if dim != "prompt"), key=lambda dim: (*order, dim).index(dim))
    array = np.asarray(effect.transpose("prompt", *others))
    return array, {
        dim: np.asarray(effect.coords[dim]) if dim in effect.coords else np.arange(size)
        for dim, size in zip(others, array.shape[1:], strict=True)
    }


def columns(effect: LabelledArray | np.ndarray) -> Columns:
    """Return one float64 column per measured head; a head that is NaN for every prompt was not ablated.

    Raises:
        RequestError: no prompt, no measured head, or a value that is not finite for some prompts only.
    """
    array, axes = labelled_axes(effect)
    flat = array.reshape(len(array), -1).astype(np.float64) if array.size else np.empty((0, 0))
    kept = np.logical_not(np.isnan(flat).all(axis=0))
    if not flat.size or not kept.any():
        raise RequestError("effect", f"shape {array.shape}", "there is no measured head in it")
    grid = np.meshgrid(*axes.values(), indexing="ij")
    labels = pd.DataFrame({name: each.ravel()[kept] for name, each in zip(axes, grid, strict=True)})
    result = Columns(flat[:, kept], labels, kept, array.shape)
    bad = np.argwhere(~np.isfinite(result.values))
    if len(bad):
        prompt, column = (int(i) for i in bad[0])
        where = f"prompt {prompt}, {result.name(column)}"
        more = f" ({len(bad)} such values in all)" if len(bad) > 1 else ""
        raise RequestError("effect", result.values[prompt, column], f"{where} is not a finite number{more}")
    return result
