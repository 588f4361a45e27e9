"""Patterns and values of a question's rows, by attention."""

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
    """Attentions in the order in which they run: the encoder's layers, then self and cross attention in turn."""
    return sorted(sites, key=lambda site: (site.stack != "encoder", site.layer, site.stack == "cross"))


def by_attention(example: Example, kinds: tuple[Literal["pattern", "v"], ...]) -> tuple[Stacked, ...]:
    """For each kind, by attention in run order: `pattern` [row, head, query, key] and `v` [row, kv_head, key, d_head].

    In double precision: what is summed over many layers should not add rounding of its own.
    """
    kept = activations(example.model, example.rows, kinds, "float64")
    order = run_order(example.model.shape.sites)
    return tuple({site: kept[variable_name(kind, site.stack)][:, site.layer] for site in order} for kind in kinds)


@torch.no_grad()
def of_site(
    example: Example, site: Site
) -> tuple[Float[np.ndarray, "row head query key"], Float[np.ndarray, "row kv_head key d_head"]]:
    """`pattern` and `v` of one attention alone, so that those of a long text need no more room than one layer has."""
    kept: dict[str, np.ndarray] = {}

    def keep(kind: str) -> Any:
        return lambda tensor, hook: kept.__setitem__(kind, tensor.double().cpu().numpy())

    watches = [(hooks.hook_name(kind, site), keep(kind)) for kind in ("pattern", "v")]
    with example.model.bridge.hooks(fwd_hooks=watches):
        example.model.forward(example.clean.given)
    return kept["pattern"], kept["v"].swapaxes(1, 2)
