"""Deletion: remove a token, move later tokens up, and measure what the prediction loses."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from harness.attribution.example import Example, clean_values, ends, values
from harness.attribution.masking import Parts, chunks, members
from harness.models import Inputs


@torch.no_grad()
def delete(example: Example, parts: Parts) -> Float[np.ndarray, "part target"]:
    """Return the increase of the explained number without each part's tokens, later tokens moving up.

    So this is not the effect of the part alone: later tokens are at other positions. Where the token is deleted at
    which a causal model predicts, it predicts from the one before. NaN where no token is left to read or predict from.
    """
    gone = members(example, parts)
    lost = np.full((len(parts), example.n_targets), np.nan)
    position = np.stack([_moved(example, each) for each in gone])
    whole = example.nodes.source
    left = np.stack([(~gone[:, :whole]).sum(1), (~gone[:, whole:]).sum(1)], axis=1)
    possible = (left[:, 1] > 0) & ((left[:, 0] > 0) | (whole == 0)) & (position >= 0).any(axis=1)
    for size in np.unique(left[possible], axis=0):
        same_size = np.flatnonzero(possible & (left == size).all(axis=1))
        for some in chunks(example, len(same_size)):
            which = same_size[some]
            inputs = _without(example, gone[which])
            end = ends(example, inputs, position[which].clip(0))
            lost[which] = values(example, end).double().cpu().numpy().reshape(-1, example.n_targets)
    return np.where(position >= 0, lost, np.nan) - clean_values(example)


def _moved(example: Example, gone: Bool[np.ndarray, " node"]) -> Int[np.ndarray, " target"]:
    """Return the position of each target after the deletion; −1 if it has none."""
    kept = ~gone[example.nodes.source :]
    before = np.cumsum(kept) - 1  # the last kept token up to each position, at its new position
    if example.model.kind == "embedding":
        return np.zeros(example.n_targets, dtype=int)
    at = before[example.position]
    return at if example.causal else np.where(kept[example.position], at, -1)


def _without(example: Example, gone: Bool[np.ndarray, "part node"]) -> Inputs:
    """Return the rows without these tokens; each part must have as many."""
    inputs, n_source = example.clean.inputs, example.nodes.source
    rows = len(inputs.token_id)

    def kept(each: torch.Tensor | None, missing: np.ndarray) -> torch.Tensor | None:
        if each is None:
            return None
        there = torch.as_tensor(~missing, device=each.device).repeat_interleave(rows, 0)
        return each.repeat(len(missing), 1)[there].reshape(len(there), -1)

    own, read = gone[:, n_source:], gone[:, :n_source]
    parts = {"source_id": read, "source_mask": read}
    fields = {name: kept(each, parts.get(name, own)) for name, each in vars(inputs).items()}
    return Inputs(**fields)  # pyright: ignore[reportArgumentType]
