"""Occlusion: replace a token by an uninformative one and measure what the prediction loses.

Zeiler & Fergus 2014 (arXiv:1311.2901) for pictures; Li, Monroe & Jurafsky 2016 (arXiv:1612.08220) for words.
"""

from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from harness import hooks
from harness.attribution.example import Example, clean_values, ends, values
from harness.attribution.masking import Parts, chunks, members, of_rows
from harness.hooks.forward import removing
from harness.models import Inputs, Model

#: The replacement: a token at each node, or an embedding for each stack.
Fill = Int[np.ndarray, " node"] | dict[str, Tensor]


@torch.no_grad()
def occlude(example: Example, parts: Parts, fill: Fill) -> Float[np.ndarray, "part target"]:
    """Return the increase of the explained number when each part's tokens are replaced; positive: the part helped."""
    inside, chunked = members(example, parts), []
    for some in chunks(example, len(parts)):
        source, own = of_rows(example, inside[some])
        inputs = example.clean.inputs.repeated(some.stop - some.start)
        where = np.tile(example.position, (some.stop - some.start, 1))
        with ExitStack() as stack:
            if isinstance(fill, dict):
                stack.enter_context(_embedded(example.model, {"encoder": source, "": own}, fill))
            else:
                inputs = _replaced(inputs, source, own, torch.as_tensor(fill, device=source.device))
            end = ends(example, inputs, where)
        chunked.append(values(example, end).double().cpu().numpy().reshape(-1, example.n_targets))
    return np.concatenate(chunked) - clean_values(example)


def _replaced(inputs: Inputs, source: Tensor, own: Tensor, fill: Tensor) -> Inputs:
    """Return the rows with other tokens at these places."""
    n_source = source.shape[1]
    changed: dict[str, Tensor] = {"token_id": torch.where(own, fill[n_source:], inputs.token_id)}
    if inputs.source_id is not None:
        changed["source_id"] = torch.where(source, fill[:n_source], inputs.source_id)
    return replace(inputs, **changed)


def _embedded(model: Model, places: dict[str, Tensor], fill: dict[str, Tensor]) -> AbstractContextManager[None]:
    """Within this context, the embeddings at these places are `fill`."""

    def put(stack: str) -> Any:
        return lambda _, args, out: torch.where(places[stack][..., None], fill[stack].to(out), out)

    modules = hooks.embeddings(model.bridge)
    return removing([module.register_forward_hook(put(stack)) for stack, module in modules.items()])


@torch.no_grad()
def mean_embedding(model: Model) -> dict[str, Tensor]:
    """Return the mean embedding over the vocabulary, by stack."""
    ids = torch.arange(model.shape.d_vocab, device=model.device)
    modules = hooks.embeddings(model.bridge)
    return {stack: module(ids[: module.num_embeddings]).float().mean(0) for stack, module in modules.items()}


def same_token(example: Example, token_id: int) -> Fill:
    """Return one token (unk or mask) for every node."""
    return np.full(len(example.nodes), token_id)


def drawn_tokens(example: Example, ordinary: Int[np.ndarray, " token"], seed: list[int]) -> Fill:
    """Draw another token for each node from the `ordinary` ones, by their frequency there."""
    rng, prompt = np.random.default_rng(seed), example.prompt
    source = [] if prompt.source is None else prompt.source.token_id[0].tolist()
    there = [*source, *prompt.token_id[0].tolist()]
    return np.array([rng.choice(ordinary[ordinary != own]) for own in there])
