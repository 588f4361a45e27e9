"""The QK and OV circuits of heads as matrices: what each reads from the residual stream and writes to it.

Elhage et al. 2021, "A mathematical framework for transformer circuits": a head is W_Q W_Kᵀ, which says where it looks,
and W_V W_O, which says what it moves. Folded into them are the learned scales (and the centring) of the norm that the
head reads through, of a norm on queries and keys, and of a norm after W_O, and a factor on what is written. Left out
are the lengths that norms divide by, which are one number at each position, the biases, and rotary positions. A query
head has the key/value head that it shares.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.attention import activations
from harness.hooks import Site
from harness.hooks.frozen_norm import Gain
from harness.hooks.weights import (
    INPUTS,
    Input,
    has_projections,
    input_matrix,
    norm_of_projection,
    norm_of_read,
    output_matrix,
    projected,
)
from harness.models import Model
from harness.prompts import Prompts

#: How far projections may be from the model's own, relative to the largest: single precision, or half.
_TOLERANCE = 1e-3


class Circuits(NamedTuple):
    """The matrices of a layer's query heads."""

    q: Float[Tensor, "head d_model d_head"]
    k: Float[Tensor, "head d_model d_head"]
    v: Float[Tensor, "head d_model d_head"]
    o: Float[Tensor, "head d_head d_model"]


@torch.no_grad()
def circuits(model: Model, layer: int) -> Circuits:
    """Return the circuits of one layer, in single precision."""
    bridge, site, shape = model.bridge, Site(layer), model.shape
    norm = hooks.norm_of_write(bridge, site)
    out = output_matrix(bridge, site).unflatten(0, (shape.n_heads, -1))
    out = out if norm is None else Gain.of(norm, _stream(model)).applied(out)
    read = {name: _read(model, site, name) for name in INPUTS}
    return Circuits(**read, o=model.traits.write_scale[site] * out)


def _read(model: Model, site: Site, name: Input) -> Float[Tensor, "head d_model d_head"]:
    n_heads, n_kv = model.shape.n_heads, model.shape.n_kv_heads
    weight, norm = input_matrix(model.bridge, site, name), norm_of_read(model.bridge, site)
    weight = weight if norm is None else Gain.of(norm, _stream(model)).folded(weight)
    own = norm_of_projection(model.bridge, site, name)
    if own is not None and getattr(own, "weight", None) is not None:
        # A norm of each head, with one scale for all or one for each, or a norm over all heads together.
        shape = own.weight.shape
        rows = weight.unflatten(1, (-1, shape[-1]))
        weight = Gain.of(own, torch.zeros_like(own.weight)).applied(rows).flatten(1)
    by_head = weight.unflatten(1, (n_heads if name == "q" else n_kv, -1)).transpose(0, 1)
    return by_head.repeat_interleave(n_heads // len(by_head), dim=0)


def _stream(model: Model) -> Float[Tensor, " d_model"]:
    """Return zeros with the width, the type and the device of the residual stream."""
    return torch.zeros(model.shape.d_model, dtype=getattr(torch, model.spec.dtype), device=model.device)


def embedding(model: Model) -> Float[Tensor, "vocab d_model"]:
    """Return W_E, as the model stores it."""
    return hooks.embeddings(model.bridge)[""].weight.detach()


def unembedding(model: Model) -> Float[Tensor, "vocab d_model"]:
    """Return W_U, as the model stores it."""
    return hooks.plain_model(model.bridge).get_output_embeddings().weight.detach()


def final_gain(model: Model) -> Gain:
    """Return the final norm without its division."""
    return Gain.of(hooks.final_norm(model.bridge).original_component, _stream(model))


def why_no_circuits(model: Model, prompts: Prompts) -> str:
    """Describe why a model's heads are not read as these matrices; empty where they are.

    It is measured on the shortest prompt: the matrices must give the queries, keys and values that the model computes.
    """
    if model.kind != "decoder":
        return f"it is for decoders, and {model.name} is of kind {model.kind}"
    if not model.traits.write_scale:
        return f"what heads of {model.name} write does not sum to its stream: {model.traits.no_direct}"
    if model.no_mixing:
        return model.no_mixing
    if not all(has_projections(model.bridge, site) for site in model.shape.sites):
        return f"an attention of {model.name} has no linear W_Q, W_K, W_V and W_O"
    if hooks.plain_model(model.bridge).get_output_embeddings() is None:
        return f"{model.name} has no unembedding matrix"
    if {embedding(model).shape[1], unembedding(model).shape[1]} != {model.shape.d_model}:
        return f"the embedding of {model.name} is narrower than its stream"
    return _moved(model, prompts)


@torch.no_grad()
def _moved(model: Model, prompts: Prompts) -> str:
    """Describe the first layer whose projections are not those of the model; empty where all are."""
    shortest = int(np.argmin(prompts.length))
    arrays, n = activations(model, prompts.take([shortest]), (*INPUTS, "resid")), int(prompts.length[shortest])
    allowed = max(_TOLERANCE, 16 * torch.finfo(getattr(torch, model.spec.dtype)).eps)
    for site in model.shape.sites:
        x = torch.as_tensor(arrays["resid"][0, site.layer, :n]).to(_stream(model))
        for name in INPUTS:
            own = torch.as_tensor(arrays[name][0, site.layer][:, :n]).transpose(0, 1).flatten(1).to(x)
            mine = projected(model.bridge, site, name, x)
            if mine.shape != own.shape or not bool((mine - own).abs().max() <= allowed * own.abs().max()):
                return f"the {name} of {site} of {model.name} is not a projection of its stream"
    return ""
