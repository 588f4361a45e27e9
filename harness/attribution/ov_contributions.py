"""Decompose each attention's output by key: values through W_O (OV), and the residual stream before and after."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.attribution.activations import Stacked, run_order
from harness.attribution.alti import contributions
from harness.attribution.example import Example
from harness.attribution.norms import terms
from harness.config import RequestError
from harness.hooks import Site
from harness.hooks.frozen_norm import FrozenNorm

#: The largest difference between the sum of the terms and the residual stream, as a share of its largest entry.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Stream:
    """The residual stream around one attention, and W_O's bias."""

    before: Float[Tensor, "row query d_model"]
    after: Float[Tensor, "row query d_model"]
    bias: Float[Tensor, " d_model"]


@torch.no_grad()
def through_output(
    example: Example, site: Site, value: Float[np.ndarray, "row kv_head key d_head"]
) -> Float[np.ndarray, "row key head d_model"]:
    """Return f_h(x_j): each value through its head's part of W_O, without the bias.

    The module runs on one head at a time, so it does not matter how a family stores its weights.
    """
    projection, n_heads = hooks.output_projection(example.model.bridge, site), example.model.shape.n_heads
    by_head = np.moveaxis(value.repeat(n_heads // value.shape[1], axis=1), 1, 2)
    v = torch.as_tensor(by_head, device=example.model.device).to(projection.weight)
    alone = torch.zeros(*v.shape[:2], n_heads, n_heads, v.shape[-1]).to(v)
    alone[..., range(n_heads), range(n_heads), :] = v
    written = projection(alone.flatten(-2).flatten(0, 2)) - _bias(projection, v)
    return written.unflatten(0, v.shape[:3]).double().cpu().numpy()


def _bias(projection: Any, like: Tensor) -> Float[Tensor, " d_model"]:
    return projection(like.new_zeros(1, like.shape[-1] * like.shape[-2]))[0]


@torch.no_grad()
def streams(example: Example) -> dict[Site, Stream]:
    """Record the residual stream around each attention. Raises `RequestError` where the model has no such stream."""
    model, sites = example.model, run_order(example.model.shape.sites)
    names = {site: hooks.stream_hooks(site, _is_post_norm(example)) for site in sites}
    kept: dict[str, Tensor] = {}
    watches = [
        (name, lambda tensor, hook, name=name: kept.__setitem__(name, tensor.clone()))
        for name in dict.fromkeys(name for pair in names.values() for name in pair)
    ]
    if absent := [name for name, _ in watches if name not in model.bridge.hook_dict]:
        raise _refused(example, f"it has no {absent[0]}: attention and MLP read one stream, or a norm follows W_O")
    try:
        with model.bridge.hooks(fwd_hooks=watches):
            model.forward(example.clean.inputs)
    except ValueError as error:
        raise _refused(example, str(error)) from error
    if silent := [name for name, _ in watches if name not in kept]:
        raise _refused(example, f"{silent[0]} does not run")
    width = (model.shape.n_heads, model.shape.d_head)
    projections = {site: hooks.output_projection(model.bridge, site) for site in sites}
    return {
        site: Stream(kept[before], kept[after], _bias(projections[site], kept[before].new_zeros(width)))
        for site, (before, after) in names.items()
    }


def _is_post_norm(example: Example) -> bool:
    """Whether the model normalises after adding: the hooked encoders (BERT and relatives) do, all others before."""
    return example.model.kind not in ("decoder", "encoder_decoder")


def norms_of(
    pattern: Stacked, carried: Mapping[Site, Float[np.ndarray, "row key head d_model"]]
) -> dict[Site, Float[np.ndarray, "row query key"]]:
    """Return the value-weighted norms of every attention (`harness.attribution.norms`)."""
    made = {}
    for site, weights in pattern.items():
        each = [np.linalg.norm(terms(*pair), axis=-1) for pair in zip(weights, carried[site], strict=True)]
        made[site] = np.stack(each)
    return made


def alti_of(
    example: Example, pattern: Stacked, carried: Mapping[Site, Float[np.ndarray, "row key head d_model"]]
) -> dict[Site, Float[np.ndarray, "row query item"]]:
    """Return ALTI's contributions in every attention; of a cross attention the last item is the residual.

    Pre-norm: T_ij = Σ_h A_ij f_h(x_j), and x_i beside T_ii; they sum to the residual stream after the attention, its
    bias apart. Post-norm: the same through the layer's norm, with its scale frozen.
    Raises `RequestError` for a model in which they do not (parallel attention, or a norm after W_O).
    """
    by_site = {}
    for site, stream in streams(example).items():
        rows = [
            _contributions(example, site, stream, row, pattern[site][row], carried[site][row])
            for row in range(len(example.rows))
        ]
        by_site[site] = np.stack(rows)
    return by_site


def _contributions(
    example: Example,
    site: Site,
    stream: Stream,
    row: int,
    pattern: Float[np.ndarray, "head query key"],
    carried: Float[np.ndarray, "key head d_model"],
) -> Float[np.ndarray, "query item"]:
    scale = example.model.traits.write_scale.get(site, 1.0)
    items = items_of(site, scale * terms(pattern, carried), stream.before[row].double().cpu().numpy())
    whole, bias = stream.after[row].double().cpu().numpy(), scale * stream.bias.double().cpu().numpy()
    off = np.abs(items.sum(1) + bias - whole).max()
    if not off <= TOLERANCE * max(1.0, np.abs(whole).max()):
        raise _refused(example, f"at {site} they are off by {off:.2g}")
    if _is_post_norm(example):
        items, whole = _normalised(example, site, items, whole)
    return contributions(items, whole)


def items_of(
    site: Site, added: Float[np.ndarray, "query key d_model"], before: Float[np.ndarray, "query d_model"]
) -> Float[np.ndarray, "query item d_model"]:
    """Return the vectors that sum to the output: what each key adds, and the residual.

    The residual is added to the query's own item; in cross attention it is an item of its own.
    """
    if site.stack == "cross":
        return np.concatenate([added, before[:, None]], axis=1)
    here = np.arange(len(before))
    items = added.copy()
    items[here, here] += before
    return items


@torch.no_grad()
def _normalised(
    example: Example, site: Site, items: np.ndarray, whole: np.ndarray
) -> tuple[Float[np.ndarray, "query item d_model"], Float[np.ndarray, "query d_model"]]:
    """Map the vectors through the layer's norm, which is linear once its scale is frozen."""
    norm = hooks.post_norm(example.model.bridge, site)
    clean = torch.as_tensor(whole, device=example.model.device).to(norm.weight)[:, None]
    frozen = FrozenNorm(norm, clean)
    shift = frozen(torch.zeros_like(clean))
    linear = frozen(torch.as_tensor(items, device=clean.device).to(clean)) - shift
    return linear.double().cpu().numpy(), frozen(clean)[:, 0].double().cpu().numpy()


def _refused(example: Example, reason: str) -> RequestError:
    name = example.model.name
    remedy = f"the terms of {name}'s attention do not sum to its residual stream ({reason}); leave out alti"
    return RequestError("attribution.methods", "alti", remedy)
