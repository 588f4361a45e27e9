"""Copying score: whether a head's OV circuit raises the logit of the token that it attends to.

Copying heads: Elhage et al. 2021, "A mathematical framework for transformer circuits". The output of a head that
attends to one token only goes through the unembedding, with the final norm's scale frozen. The score is the share of
tokens that raise themselves the most, against their mean over all attended tokens.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from harness import hooks
from harness.attention import activations
from harness.hooks import Site
from harness.hooks.frozen_norm import FrozenNorm
from harness.models import Model
from harness.prompts import Prompts
from harness.roles.role_measures import RoleScore

_ROUNDING = 1e-5  # differences of logits below this share of the vectors' lengths are rounding


def has_copying(model: Model) -> bool:
    """Whether a head's output can be read as logits: a decoder with direct effects, whose z is a sum of values."""
    return model.kind == "decoder" and bool(model.traits.write_scale) and not model.no_mixing


@torch.no_grad()
def raised(
    model: Model, prompts: Prompts, position: Int[np.ndarray, " key"]
) -> Float[np.ndarray, "prompt layer head key token"]:
    """Return how much each head, attending to one of these positions only, raises the logits of their tokens.

    In units of the length of the head's output times that of the token's unembedding vector.
    """
    cache = activations(model, prompts, ("v", "resid"))
    shared = model.shape.n_heads // model.shape.n_kv_heads
    unembed = hooks.plain_model(model.bridge).get_output_embeddings().weight
    final = hooks.final_norm(model.bridge).original_component
    rows = []
    for number, ids in enumerate(prompts.token_id):
        tokens = unembed[torch.as_tensor(ids[position], device=unembed.device)]
        scale = FrozenNorm(final, torch.as_tensor(cache["resid"][number, -1, position[-1]]).to(tokens)[None])
        of_layers = []
        for layer in range(model.shape.n_layers):
            v = torch.as_tensor(cache["v"][number, layer][:, position]).to(tokens).repeat_interleave(shared, dim=0)
            read = scale(_written(model, Site(layer), v)) - scale(torch.zeros_like(tokens[:1]))
            length = read.norm(dim=-1)[..., None] * tokens.norm(dim=-1)
            of_layers.append((read @ tokens.T / length.clamp(min=1e-20)).float().cpu().numpy())
        rows.append(np.stack(of_layers))
    return np.stack(rows)


def _written(model: Model, site: Site, v: Float[Tensor, "head key d_head"]) -> Float[Tensor, "head key d_model"]:
    """Return the output of each head alone when it attends to each key alone."""
    n_heads, n_keys, d_head = v.shape
    z = torch.zeros(n_heads, n_keys, n_heads, d_head, dtype=v.dtype, device=v.device)
    z[torch.arange(n_heads), :, torch.arange(n_heads)] = v
    write, norm = hooks.output_projection(model.bridge, site), hooks.norm_of_write(model.bridge, site)
    out = write(z.flatten(2)) - write(torch.zeros_like(z[:1, :1].flatten(2)))
    return out if norm is None else norm(out)


def copying(raised: Float[np.ndarray, "head key token"], draws: int, rng: np.random.Generator) -> RoleScore:
    """Score the share of tokens that raise themselves most, relative to their mean over attended tokens.

    The null distribution shuffles the tokens' places. The tokens must all be different.
    """
    beyond = raised - raised.mean(axis=1, keepdims=True)
    first, second = np.sort(beyond, axis=-1)[..., -1], np.sort(beyond, axis=-1)[..., -2]
    most = np.where(first - second > _ROUNDING, beyond.argmax(axis=-1), -1)
    places = np.stack([rng.permutation(most.shape[1]) for _ in range(draws)])
    null = np.stack([(most == order).mean(axis=-1) for order in places])
    return RoleScore((most == np.arange(most.shape[1])).mean(axis=-1), null)
