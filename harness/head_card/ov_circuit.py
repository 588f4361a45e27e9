"""What a head's OV circuit moves, by its weights alone: singular directions as tokens, and whether it copies.

The singular value decomposition of W_V W_O (`circuits` has what is folded in) gives the directions that the head reads
and what it writes for each (Millidge & Black 2022, "The singular value decompositions of transformer weight matrices
are highly interpretable"). A read direction is named by the tokens whose embeddings, all of one length, lie most along
it; a written one by the tokens whose logits it raises most, through the final norm's scale and the unembedding.

The copying score (Elhage et al. 2021) is Σ λ / Σ |λ| over the eigenvalues λ of W_E W_V W_O W_U: 1 where every token
that is attended raises itself, −1 where it lowers itself. W_U is without its mean over tokens, which shifts all logits
alike.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from harness.head_card.circuits import circuits, embedding, final_gain, unembedding
from harness.hooks import Head, Site
from harness.hooks.frozen_norm import Gain
from harness.hooks.weights import norm_of_read
from harness.models import Model

#: Singular directions that are named by tokens, and tokens for each end of each.
N_DIRECTIONS, N_TOKENS = 4, 5
#: Rows of a vocabulary in memory at once, in single precision.
_AT_ONCE = 16384


class OVCircuits(NamedTuple):
    """Of each head its singular values, largest first; the tokens that each direction reads and writes, for the two
    signs of the direction; and its copying score."""

    singular: Float[Tensor, "card rank"]
    token: Int[Tensor, "card direction sign end token"]
    copying: Float[Tensor, " card"]


@torch.no_grad()
def ov_circuits(model: Model, heads: Sequence[Head]) -> OVCircuits:
    """Return the OV circuits of some heads."""
    final, overlap = final_gain(model), _overlap(model)
    by_layer = {layer: circuits(model, layer) for layer in {head.layer for head in heads}}
    parts, copying = [], []
    for head in heads:
        v, o = by_layer[head.layer].v[head.head], by_layer[head.layer].o[head.head]
        parts.append(_decomposed(v, o))
        eigenvalues = torch.linalg.eigvals((final.applied(o) @ overlap @ v).double())
        copying.append(eigenvalues.real.sum() / eigenvalues.abs().sum().clamp(min=1e-30))
    read, values, written = map(torch.stack, zip(*parts, strict=True))
    token = _tokens(model, read[..., :N_DIRECTIONS].mT, final.applied(written[:, :N_DIRECTIONS]))
    return OVCircuits(values.cpu(), token.cpu(), torch.stack(copying).float().cpu())


def _decomposed(
    v: Float[Tensor, "d_model d_head"], o: Float[Tensor, "d_head d_model"]
) -> tuple[Float[Tensor, "d_model rank"], Float[Tensor, " rank"], Float[Tensor, "rank d_model"]]:
    """Return the singular value decomposition of v @ o, from the small matrix between their orthonormal factors."""
    (left, inner), (right, outer) = torch.linalg.qr(v), torch.linalg.qr(o.mT)
    u, values, w = torch.linalg.svd(inner @ outer.mT)
    return left @ u[:, : len(values)], values, w[: len(values)] @ right.mT


def _tokens(
    model: Model, read: Float[Tensor, "card n d_model"], written: Float[Tensor, "card n d_model"]
) -> Int[Tensor, "card n sign end token"]:
    """Return the tokens of each direction, the most first; the first sign is that of the nearest token that is read."""
    norm = norm_of_read(model.bridge, Site(0))
    centres = norm is not None and Gain.of(norm, torch.zeros_like(embedding(model)[0])).centres
    along = []
    for rows in _chunks(embedding(model)):
        rows = rows - rows.mean(dim=1, keepdim=True) if centres else rows
        along.append((rows @ read.flatten(0, 1).mT) / rows.norm(dim=1, keepdim=True).clamp(min=1e-20))
    reads = torch.cat(along).mT
    writes = torch.cat([rows @ written.flatten(0, 1).mT for rows in _chunks(unembedding(model))]).mT
    sign = reads.gather(1, reads.abs().argmax(dim=1, keepdim=True)).sign()
    ends = [torch.stack([each * sign, -each * sign], dim=1).topk(N_TOKENS, dim=-1).indices for each in (reads, writes)]
    return torch.stack(ends, dim=2).unflatten(0, read.shape[:2])


def _overlap(model: Model) -> Float[Tensor, "d_model d_model"]:
    """Return W_U without its mean over tokens, times W_E, summed over tokens."""
    reads, writes = embedding(model), unembedding(model)
    n = min(len(reads), len(writes))  # an unembedding may be padded
    pairs = zip(_chunks(writes[:n]), _chunks(reads[:n]), strict=True)
    mean = torch.stack([rows.sum(dim=0) for rows in _chunks(writes[:n])]).sum(dim=0) / n
    total = torch.zeros_like(mean.outer(mean))
    for write, read in pairs:
        total += (write - mean).mT @ read
    return total


def _chunks(rows: Float[Tensor, "vocab d_model"]) -> Iterator[Float[Tensor, "row d_model"]]:
    for start in range(0, len(rows), _AT_ONCE):
        yield rows[start : start + _AT_ONCE].float()
