"""Attention knockout: block attention to a token and measure what the prediction loses.

Geva et al. 2023 (arXiv:2304.14767): before the softmax the scores of the token are set to minus infinity, so that the
other keys' weights take its share. A token may still attend to itself, and its own computation goes on.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from harness import hooks
from harness.ablation import Intervention, InterventionFailed
from harness.attribution.activations import of_site
from harness.attribution.example import Example, clean_values, ends, values
from harness.attribution.heads import intervention_effects
from harness.attribution.masking import Parts, chunks, members, of_rows
from harness.hooks import Head, Site
from harness.hooks.softmax import at_softmax
from harness.models import Inputs


@torch.no_grad()
def knock_out(example: Example, parts: Parts) -> Float[np.ndarray, "part target"]:
    """Return the increase of the explained number when, in all layers and heads, no token outside a part attends to it.

    Tokens of the part may attend to each other. A causal model's prediction *at* a token does not change when that
    token is knocked out.
    """
    inside, chunked = members(example, parts), []
    for some in chunks(example, len(parts)):
        inputs = example.clean.inputs.repeated(some.stop - some.start)
        source, own = of_rows(example, inside[some])
        where = np.tile(example.position, (some.stop - some.start, 1))
        if example.model.kind == "decoder":
            with _blocked_scores(example, own):
                end = ends(example, inputs, where)
        else:
            end = ends(example, _masked(example, inputs, source, own), where)
        chunked.append(values(example, end).double().cpu().numpy().reshape(-1, example.n_targets))
    return np.concatenate(chunked) - clean_values(example)


def _blocked(own: Tensor) -> Tensor:
    """Return the keys that a query may not attend to, [row, query, key]: those of the part it is not in."""
    return own[:, None, :] & ~own[:, :, None]


@contextmanager
def _blocked_scores(example: Example, own: Tensor) -> Iterator[None]:
    """Within this context, a decoder's scores are edited in all layers, and verified in the patterns.

    Its mask is not edited, since masks differ from layer to layer where there are sliding windows.
    """
    blocked, sites, fired = _blocked(own)[:, None], example.model.shape.sites, []

    def edit(scores: Tensor) -> Tensor:
        beside = scores.shape[-1] - blocked.shape[-1]  # the column of a learnt sink is not a token, and stays
        return scores.masked_fill(pad(blocked, (0, beside)), torch.finfo(scores.dtype).min)

    def verify(pattern: Tensor, hook: Any) -> None:
        if (pattern * blocked).any():
            raise InterventionFailed(f"{hook.name}: a token that was knocked out still gets attention")
        fired.append(hook.name)

    looks = [(hooks.hook_name("pattern", site), verify) for site in sites]
    with example.model.bridge.hooks(fwd_hooks=looks), at_softmax(example.model.bridge, dict.fromkeys(sites, edit)):
        yield
    if len(fired) < len(sites):
        raise InterventionFailed(f"{len(sites) - len(fired)} attentions of {example.model.name} ran unedited")


def _masked(example: Example, inputs: Inputs, source: Tensor, own: Tensor) -> Inputs:
    """Return an encoder's rows, or both sides of an encoder-decoder's, with masks that block attention to a part.

    In a source the token is masked for itself too: nothing of it reaches the decoder anyway.
    """
    dtype = getattr(torch, example.model.spec.dtype)
    blocked = _blocked(own)
    if example.causal:
        blocked = blocked | torch.ones_like(blocked).triu(1)
    added = torch.zeros(blocked.shape, dtype=dtype, device=blocked.device)
    mask = added.masked_fill(blocked, torch.finfo(dtype).min)[:, None]
    if inputs.source_mask is None:
        return replace(inputs, mask=mask)
    return replace(inputs, mask=mask, source_mask=inputs.source_mask.masked_fill(source, 0))


# --- one head, or the heads of one attention ----------------------------------------------------------------------


@torch.no_grad()
def knock_out_in(
    example: Example, todo: Sequence[tuple[Sequence[int], Sequence[Head]]]
) -> Float[np.ndarray, "pair target"]:
    """Return the increase of the explained number for each pair of a part and heads of one attention.

    In these heads only, no token outside the part attends to it. Their z follows from the clean run: the weights
    without the part's, renormalised (with a learnt sink, together with the sink's share), times the values. A query
    whose other weights vanish in the model's precision reads nothing. Blocks before the head do not run again. It needs
    a model whose z is pattern · v (`Traits.mixes_values`).
    """
    interventions = []
    activations = {site: of_site(example, site) for site in dict.fromkeys(heads[0].site for _, heads in todo)}
    for part, heads in todo:
        site = heads[0].site
        inside = members(example, [part])[0]
        z = without(*activations[site], *_sides(example, site, inside), example.model.traits.learnt_sink)
        made = torch.as_tensor(z, device=example.model.device)
        interventions.append(Intervention(tuple(heads), lambda clean, head, made=made: made[:, :, head.head].to(clean)))
    return intervention_effects(example, interventions)


def _sides(example: Example, site: Site, inside: Bool[np.ndarray, " node"]) -> tuple[np.ndarray, np.ndarray]:
    """Return which queries and which keys of an attention are in the part."""
    source, own = inside[: example.nodes.source], inside[example.nodes.source :]
    queries = source if site.stack == "encoder" else own
    return queries if site.stack != "cross" else np.zeros_like(own), source if site.stack == "cross" else queries


def without(
    pattern: Float[np.ndarray, "row head query key"],
    value: Float[np.ndarray, "row kv_head key d_head"],
    queries: Bool[np.ndarray, " query"],
    keys: Bool[np.ndarray, " key"],
    learnt_sink: bool = False,
) -> Float[np.ndarray, "row query head d_head"]:
    """Compute z of all heads when queries outside a part do not attend to its keys.

    A `learnt_sink` has what a row lacks of 1, and stays in the softmax.
    """
    kept = np.where(keys[None, :] & ~queries[:, None], 0, pattern)
    total = kept.sum(axis=-1, keepdims=True)
    if learnt_sink:
        total = total + np.clip(1 - pattern.sum(axis=-1, keepdims=True), 0, None)
    weights = kept / np.where(total > 0, total, 1)
    by_head = value.repeat(pattern.shape[1] // value.shape[1], axis=1)
    return np.einsum("rhqk,rhkd->rqhd", weights, by_head)
