"""Forward cache: what the methods need of one example's forward, each computed once and only on demand."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from torch import Tensor

from harness.attribution import gradients, integrated
from harness.attribution.activations import Stacked, by_attention
from harness.attribution.example import Example
from harness.attribution.heads import head_effects
from harness.attribution.ov_contributions import alti_of, norms_of, through_output
from harness.attribution.token_graph import Nodes
from harness.config import AttributionSpec
from harness.hooks import Site

Scores = Float[np.ndarray, "target node"]


@dataclass(frozen=True)
class ForwardCache:
    """One example, and the arrays of its forward that methods share.

    Arrays over the graph of all nodes are [row, attention, …, node, node], attentions in run order; a masked LM has a
    row for each target.
    """

    example: Example
    spec: AttributionSpec
    baseline: Mapping[str, Tensor]
    #: The seed of the random order, another for each prompt.
    seed: tuple[int, ...] = (0,)

    @property
    def nodes(self) -> Nodes:
        return self.example.nodes

    @cached_property
    def _activations(self) -> tuple[Stacked, ...]:
        return by_attention(self.example, ("pattern", "v"))

    @property
    def sites(self) -> list[Site]:
        """Attentions in the order in which they run."""
        return list(self._activations[0])

    @cached_property
    def pattern(self) -> Float[np.ndarray, "row attention head node node"]:
        """All patterns in one graph; a token that takes no part in an attention has the identity's row."""
        return self._on_graph(self._activations[0])

    @cached_property
    def norms(self) -> Float[np.ndarray, "row attention node node"]:
        """Value-weighted norms."""
        return self._on_graph(norms_of(self._activations[0], self._carried), idle=0.0)

    @cached_property
    def alti(self) -> Float[np.ndarray, "row attention node node"]:
        """Contributions, the residual's being the token's own."""
        by_site = {}
        for site, each in alti_of(self.example, self._activations[0], self._carried).items():
            crossing = site.stack == "cross"
            matrix, own = (each[..., :-1], each[..., -1]) if crossing else (each, None)
            by_site[site] = self.nodes.place(matrix, site.stack, own=own)
        return np.stack(list(by_site.values()), axis=1)

    @cached_property
    def slopes(self) -> gradients.Slopes:
        """Gradients, in a row for each target."""
        return gradients.slopes(self.example, gradients.target_rows(self.example), self.embedded, with_z=True)

    @cached_property
    def embedded(self) -> gradients.Embedded:
        """Embeddings, in a row for each target."""
        return gradients.embedded(self.example.model, gradients.target_rows(self.example))

    @cached_property
    def weight_gradient(self) -> Float[np.ndarray, "target attention head node node"]:
        """By how much each attention weight helps; 0 for tokens that take no part in an attention."""
        return self._on_graph(gradients.weight_gradients(self.slopes, self._activations[1], self.example), idle=0.0)

    @cached_property
    def integrated(self) -> integrated.Integrated:
        """Integrated gradients from the mean embedding."""
        return integrated.integrated_gradients(self.example, self.baseline, self.spec.ig_steps)

    @cached_property
    def helps(self) -> Float[np.ndarray, "target attention head"]:
        """By how much each head helps each target."""
        return head_effects(self.example)

    @cached_property
    def _carried(self) -> dict[Site, Float[np.ndarray, "row key head d_model"]]:
        return {site: through_output(self.example, site, value) for site, value in self._activations[1].items()}

    def _on_graph(self, by_site: Mapping[Site, np.ndarray], idle: float = 1.0) -> np.ndarray:
        """Place [row, …, query, key] of each attention in one array over the graph of all nodes."""
        placed = [self.nodes.place(each, site.stack, idle) for site, each in by_site.items()]
        return np.stack(placed, axis=1)

    def from_rows(self, matrix: Callable[[int], Float[np.ndarray, "node node"]]) -> Scores:
        """Compute the matrix of each row of the model, and select each target's row of it."""
        made = {row: matrix(row) for row in np.unique(self.example.row).tolist()}
        return np.stack([self.read(made[row], target) for target, row in enumerate(self.example.row.tolist())])

    def read(self, matrix: Float[np.ndarray, "node node"], target: int) -> Float[np.ndarray, " node"]:
        """Select the row at which a target is predicted; for the vector of a text, average the rows that it pools."""
        own = int(self.example.own[target])
        return matrix[own] if own >= 0 else self.example.vector_share[self.example.row[target]] @ matrix

    def target_sites(self) -> Iterator[int]:
        """Yield the attentions of the scored tokens: in an encoder-decoder, the decoder's two."""
        return (at for at, site in enumerate(self.sites) if site.stack != "encoder")
