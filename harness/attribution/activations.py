"""Patterns and values of an example's rows, by attention."""

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from harness import hooks
from harness.attention.capture import activations
from harness.attribution.example import Example
from harness.hooks import Site, variable_name

Stacked = dict[Site, Float[np.ndarray, "row head position key"]]


def run_order(sites: Iterable[Site]) -> list[Site]:
    """Sort attentions in the order in which they run: the encoder's layers, then self and cross attention in turn."""
    return sorted(sites, key=lambda site: (site.stack != "encoder", site.layer, site.stack == "cross"))


def by_attention(example: Example, kinds: tuple[Literal["pattern", "v"], ...]) -> tuple[Stacked, ...]:
    """Return `pattern` [row, head, query, key] and `v` [row, kv_head, key, d_head] by attention, in run order.

    In double precision: sums over many layers should not add rounding of their own.
    """
    kept = activations(example.model, example.rows, kinds, "float64")
    order = run_order(example.model.shape.sites)
    return tuple({site: kept[variable_name(kind, site.stack)][:, site.layer] for site in order} for kind in kinds)


@torch.no_grad()
def of_site(
    example: Example, site: Site
) -> tuple[Float[np.ndarray, "row head query key"], Float[np.ndarray, "row kv_head key d_head"]]:
    """Return `pattern` and `v` of one attention alone, so that a long text needs no more memory than one layer's."""
    kept: dict[str, np.ndarray] = {}

    def keep(kind: str) -> Any:
        return lambda tensor, hook: kept.__setitem__(kind, tensor.double().cpu().numpy())

    watches = [(hooks.hook_name(kind, site), keep(kind)) for kind in ("pattern", "v")]
    with example.model.bridge.hooks(fwd_hooks=watches):
        example.model.forward(example.clean.inputs)
    return kept["pattern"], kept["v"].swapaxes(1, 2)
