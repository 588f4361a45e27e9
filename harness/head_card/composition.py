"""Composition of heads by their weights alone: whether one reads what another writes, by query, key or value.

Elhage et al. 2021, "A mathematical framework for transformer circuits": the score of a sender and a later receiver is
‖W_OV W‖ / (‖W_OV‖ ‖W‖) in Frobenius norms, W being W_Q W_Kᵀ for the query, its transpose for the key, and the
receiver's W_OV for the value (`circuits` has what is folded in). No d_model × d_model product is made: all of these
have rank d_head, and a factor on the outer side is only seen through its Gram matrix.

By chance: the same two matrices with the stream between them turned at random. The mean square of their score is
1 / d_model whatever the matrices are, and so it is for random matrices of the same shape. How far the largest over all
partners gets is drawn, with a Gaussian matrix G of mean square 1 / d_model in place of a rotation, which spreads a
little more: the square of the score is then Σ s_i² G_ij² t_j² over the singular values s and t of the two, both of
length 1.
"""

from collections.abc import Sequence
from operator import gt, lt
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from harness.head_card.circuits import Circuits, circuits
from harness.hooks import Head
from harness.hooks.weights import INPUTS
from harness.models import Model

#: How a head takes part: as the later head that reads, or as the earlier one that is read.
WAYS = ("is fed by", "feeds")
#: Added to the diagonal of a Gram matrix, relative to its mean, for weights that have a smaller rank.
_RIDGE = 1e-12


class Compositions(NamedTuple):
    """Scores of some heads with every other (NaN where that does not come before or after), and by chance.

    `chance` is, for each draw, the largest score over all partners.
    """

    score: Float[Tensor, "card way input layer head"]
    chance: Float[Tensor, "card way input draw"]


class _Factors(NamedTuple):
    """Matrices with the norms of W_OV (`out`) and of what reads (`into`), divided by these norms, and the squares of
    their singular values."""

    out: Float[Tensor, "head rank d_model"]
    into: Float[Tensor, "head input d_model rank"]
    out_squares: Float[Tensor, "head rank"]
    into_squares: Float[Tensor, "head input rank"]


@torch.no_grad()
def compositions(model: Model, heads: Sequence[Head], draws: int, seed: int) -> Compositions:
    """Return how each of these heads composes with all others, and how far that goes by chance."""
    shape, generator = model.shape, torch.Generator().manual_seed(seed)
    size = (len(heads), len(WAYS), len(INPUTS))
    score, chance = torch.full((*size, shape.n_layers, shape.n_heads), torch.nan), torch.zeros((*size, draws))
    layers = {layer: _factors(circuits(model, layer)) for layer in {head.layer for head in heads}}
    each = [(layers[head.layer], head.head) for head in heads]
    cards = _Factors(*(torch.stack([own[part][at] for own, at in each]) for part in range(4)))
    for layer in range(shape.n_layers):
        other = layers.get(layer) or _factors(circuits(model, layer))
        later, earlier = ([at for at, head in enumerate(heads) if way(head.layer, layer)] for way in (gt, lt))
        score[later, 0, :, layer] = _lengths(other.out, cards.into[later]).permute(1, 2, 0).cpu()
        score[earlier, 1, :, layer] = _lengths(cards.out[earlier], other.into).mT.cpu()
        size, rank = (draws, shape.n_heads), other.out_squares.shape[-1]
        turn = torch.randn(*size, rank, rank, generator=generator).to(other.out).square() / shape.d_model
        read = torch.einsum("hr,dhrs,cis->cidh", other.out_squares, turn, cards.into_squares[later])
        sent = torch.einsum("cr,dhrs,his->cidh", cards.out_squares[earlier], turn, other.into_squares)
        for some, way, squares in ((later, 0, read), (earlier, 1, sent)):
            chance[some, way] = torch.maximum(chance[some, way], squares.amax(dim=-1).sqrt().cpu())
    return Compositions(score, chance)


def _factors(of: Circuits) -> _Factors:
    """Return the factors of a layer's heads. W_Q W_Kᵀ and its transpose have the same singular values."""
    q, k, v, o = (matrix.double().mT @ matrix.double() for matrix in (of.q, of.k, of.v, of.o.mT))
    of_q, of_k, of_v, of_o = map(_root, (q, k, v, o))
    (qk_size, qk), (ov_size, ov) = _spectrum(of_k, q), _spectrum(of_v, o)
    inputs = [of.q @ (of_k / qk_size).float(), of.k @ (of_q / qk_size).float(), of.v @ (of_o / ov_size).float()]
    out = (of_v / ov_size).float().mT @ of.o
    return _Factors(out, torch.stack(inputs, dim=1), ov, torch.stack([qk, qk, ov], dim=1))


def _root(gram: Float[Tensor, "head rank rank"]) -> Float[Tensor, "head rank rank"]:
    """Return a matrix with the same product with its transpose: M @ root is as long as M @ Wᵀ, whatever M is."""
    scale = gram.diagonal(dim1=-2, dim2=-1).mean(dim=-1)[..., None, None]
    ridge = _RIDGE * torch.eye(gram.shape[-1]).to(gram)
    return torch.linalg.cholesky(gram / scale.clamp(min=1e-30) + ridge) * scale.sqrt()


def _spectrum(
    root: Float[Tensor, "head rank rank"], gram: Float[Tensor, "head rank rank"]
) -> tuple[Float[Tensor, "head 1 1"], Float[Tensor, "head rank"]]:
    """Return the length of the product of two matrices, and the squares of its singular values divided by its own."""
    squares = torch.linalg.eigvalsh(root.mT @ gram @ root).clamp(min=0)
    total = squares.sum(dim=-1, keepdim=True).clamp(min=1e-30)
    return total.sqrt()[..., None], (squares / total).float()


def _lengths(
    left: Float[Tensor, "a row d_model"], right: Float[Tensor, "b input d_model column"]
) -> Float[Tensor, "a b input"]:
    """Return the Frobenius norm of each left matrix times each right one, by one product of them all."""
    (a, row, inner), (b, n, _, column) = left.shape, right.shape
    product = left.reshape(-1, inner) @ right.permute(2, 0, 1, 3).reshape(inner, -1)
    return product.view(a, row, b, n, column).square().sum(dim=(1, 4)).sqrt()
