"""Gradients of the explained number by the embeddings and by the attention weights.

They are taken at the output of the embedding module, before positions are added; with each target in a row of its own
one backward pass serves all. The loss is explained; for a model that gives one vector per text, whose distance to
itself has gradient 0, minus the vector's length along its clean direction.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.attribution.activations import run_order
from harness.attribution.example import Example, ends, values
from harness.hooks import Site
from harness.hooks.forward import removing
from harness.models import Inputs, Model

#: Vectors [row, position, d_model] in place of embeddings, by stack as in `hooks.embeddings`.
Embedded = dict[str, Tensor]


@dataclass(frozen=True)
class Slopes:
    """The explained number of each row, and its gradient at the embeddings and at each attention's z."""

    explained: Float[Tensor, " row"]
    at_embedding: Embedded
    at_z: dict[Site, Float[Tensor, "row position head d_head"]]


def target_rows(example: Example) -> Inputs:
    """Return one row of inputs for each target."""
    fields = {name: each for name, each in vars(example.clean.inputs).items() if each is not None}
    return Inputs(**{name: each[example.clean.targets.row] for name, each in fields.items()})


@torch.no_grad()
def embedded(model: Model, inputs: Inputs) -> Embedded:
    """Return the outputs of the embedding modules for these rows."""
    ids = {"": inputs.token_id, "encoder": inputs.source_id}
    return {stack: module(ids[stack]).clone() for stack, module in hooks.embeddings(model.bridge).items()}


@torch.enable_grad()
def slopes(example: Example, inputs: Inputs, start: Mapping[str, Tensor], with_z: bool = False) -> Slopes:
    """Compute the gradients at these embeddings of rows that are copies of `target_rows`, each for its own target."""
    leaves = {stack: vectors.detach().requires_grad_(True) for stack, vectors in start.items()}
    zs: dict[Site, Tensor] = {}
    sites = run_order(example.model.shape.sites) if with_z else []
    with _replace_embeddings(example.model, leaves), _keep_z(example.model, sites, zs):
        end = _own_ends(example, inputs)
    explained = _objective(example, end)
    at = [*leaves.values(), *zs.values()]
    gradients = torch.autograd.grad(explained.sum(), at)
    n_heads = example.model.shape.n_heads
    by_site = dict(zip(zs, gradients[len(leaves) :], strict=True))
    return Slopes(
        explained.detach(),
        dict(zip(leaves, gradients, strict=False)),
        {site: each.unflatten(2, (n_heads, -1)) for site, each in by_site.items()},
    )


def _own_ends(example: Example, inputs: Inputs) -> Float[Tensor, "row d_model"]:
    """Return the end of the residual stream at each row's own target."""
    position = np.resize(example.position, len(inputs.token_id))
    return ends(example, inputs, position[:, None], row=np.zeros(1, dtype=int))


def _objective(example: Example, end: Float[Tensor, "row d_model"]) -> Float[Tensor, " row"]:
    if example.model.kind != "embedding":
        return values(example, end)
    clean = example.clean.end
    return -(end @ (clean / clean.norm(dim=-1, keepdim=True)).T)[:, 0]


def _replace_embeddings(model: Model, leaves: Mapping[str, Tensor]) -> AbstractContextManager[None]:
    """Within this context, the embeddings are `leaves`."""

    def constant(stack: str) -> Any:
        return lambda _, args, out: leaves[stack]

    modules = hooks.embeddings(model.bridge)
    return removing([module.register_forward_hook(constant(stack)) for stack, module in modules.items()])


def _keep_z(model: Model, sites: list[Site], kept: dict[Site, Tensor]) -> AbstractContextManager[None]:
    """Keep the input of W_O as a node of the autograd graph."""

    def keep(site: Site) -> Any:
        return lambda _, args: kept.__setitem__(site, args[0])

    return removing(
        [hooks.output_projection(model.bridge, site).register_forward_pre_hook(keep(site)) for site in sites]
    )


def by_node(example: Example, by_stack: Mapping[str, Tensor]) -> Float[Tensor, "row node d_model"]:
    """Concatenate the source's and the prompt's own tokens."""
    return torch.cat([by_stack["encoder"], by_stack[""]], dim=1) if example.nodes.source else by_stack[""]


# --- the methods ------------------------------------------------------------------------------------------------


def gradient_norm(gradient: Slopes, example: Example) -> Float[np.ndarray, "target node"]:
    """Return the L2 norm of the loss's gradient at each embedding (Li et al. 2016, arXiv:1506.01066; used so by
    PromptRobust, Zhu et al. 2023, arXiv:2306.04528)."""
    return by_node(example, gradient.at_embedding).double().norm(dim=-1).cpu().numpy()


@torch.enable_grad()
def norms_in_turn(example: Example) -> Float[np.ndarray, "target node"]:
    """Compute `gradient_norm` in the memory of a single forward, by one backward pass for each target."""
    leaves = {
        stack: vectors.requires_grad_(True) for stack, vectors in embedded(example.model, example.clean.inputs).items()
    }
    with _replace_embeddings(example.model, leaves):
        end = ends(example, example.clean.inputs, example.position[None])
    explained = _objective(example, end)
    norms = []
    for target, row in enumerate(example.row.tolist()):
        slope = torch.autograd.grad(explained[target], list(leaves.values()), retain_graph=True)
        by_stack = dict(zip(leaves, slope, strict=True))
        norms.append(by_node(example, by_stack)[row].double().norm(dim=-1).cpu().numpy())
    return np.stack(norms)


def gradient_times_input(
    gradient: Slopes, start: Mapping[str, Tensor], example: Example
) -> Float[np.ndarray, "target node"]:
    """Return minus gradient · embedding: the first-order cost of a zero embedding (Shrikumar et al. 2016,
    arXiv:1605.01713). Positive: the token helped."""
    slope, vector = by_node(example, gradient.at_embedding).double(), by_node(example, start).double()
    return -(slope * vector).sum(-1).cpu().numpy()


def weight_gradients(
    gradient: Slopes, value: Mapping[Site, Float[np.ndarray, "row kv_head key d_head"]], example: Example
) -> dict[Site, Float[np.ndarray, "target head query key"]]:
    """Return the gradient of minus the loss (larger: predicted better) by each attention weight.

    Since z_i = Σ_j A_ij v_j, it is ⟨∂/∂z_i, v_j⟩, however the model computes its weights.
    """
    n_heads = example.model.shape.n_heads
    made = {}
    for site, slope in gradient.at_z.items():
        by_head = value[site][example.row].repeat(n_heads // value[site].shape[1], axis=1)
        made[site] = -np.einsum("rqhd,rhkd->rhqk", slope.double().cpu().numpy(), by_head, optimize=True)
    return made
