"""What the methods look at for one question, each computed once and only if some method asks for it."""

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
    """One question and what is known of its forward.

    Arrays over the graph of all nodes are [row, attention, …, node, node], attentions in run order: what a masked-LM
    is asked stands in a row for each target.
    """

    example: Example
    spec: AttributionSpec
    baseline: Mapping[str, Tensor]
    #: Draws the random order; its own for each prompt.
    seed: tuple[int, ...] = (0,)

    @property
    def nodes(self) -> Nodes:
        return self.example.nodes

    @cached_property
    def _seen(self) -> tuple[Stacked, ...]:
        return by_attention(self.example, ("pattern", "v"))

    @property
    def sites(self) -> list[Site]:
        """Attentions in the order in which they run."""
        return list(self._seen[0])

    @cached_property
    def pattern(self) -> Float[np.ndarray, "row attention head node node"]:
        """All patterns in one graph; a token that takes no part in an attention stays as it is."""
        return self._placed(self._seen[0])

    @cached_property
    def norms(self) -> Float[np.ndarray, "row attention node node"]:
        """Value-weighted norms."""
        return self._placed(norms_of(self._seen[0], self._carried), idle=0.0)

    @cached_property
    def alti(self) -> Float[np.ndarray, "row attention node node"]:
        """Contributions, the residual's being the token's own."""
        found = {}
        for site, each in alti_of(self.example, self._seen[0], self._carried).items():
            crossing = site.stack == "cross"
            matrix, own = (each[..., :-1], each[..., -1]) if crossing else (each, None)
            found[site] = self.nodes.place(matrix, site.stack, own=own)
        return np.stack(list(found.values()), axis=1)

    @cached_property
    def slopes(self) -> gradients.Slopes:
        """Gradients, in a row for each target."""
        given = gradients.target_rows(self.example)
        return gradients.slopes(self.example, given, self.embedded, with_z=True)

    @cached_property
    def embedded(self) -> gradients.Embedded:
        """Embeddings, in a row for each target."""
        return gradients.embedded(self.example.model, gradients.target_rows(self.example))

    @cached_property
    def weight_gradient(self) -> Float[np.ndarray, "target attention head node node"]:
        """By how much each attention weight helps; 0 for tokens that take no part in an attention."""
        return self._placed(gradients.weight_gradients(self.slopes, self._seen[1], self.example), idle=0.0)

    @cached_property
    def integrated(self) -> integrated.Integrated:
        """Integrated gradients from the mean embedding."""
        return integrated.integrated_gradients(self.example, self.baseline, self.spec.steps)

    @cached_property
    def helps(self) -> Float[np.ndarray, "target attention head"]:
        """By how much each head helps each target."""
        return head_effects(self.example)

    @cached_property
    def _carried(self) -> dict[Site, Float[np.ndarray, "row key head d_model"]]:
        return {site: through_output(self.example, site, value) for site, value in self._seen[1].items()}

    def _placed(self, by_site: Mapping[Site, np.ndarray], idle: float = 1.0) -> np.ndarray:
        """[row, …, query, key] of each attention, as one array over the graph of all nodes."""
        placed = [self.nodes.place(each, site.stack, idle) for site, each in by_site.items()]
        return np.stack(placed, axis=1)

    def from_rows(self, matrix: Callable[[int], Float[np.ndarray, "node node"]]) -> Scores:
        """Each target's row of the matrix that is computed for the row it is asked in."""
        made = {row: matrix(row) for row in np.unique(self.example.row).tolist()}
        return np.stack([self.read(made[row], target) for target, row in enumerate(self.example.row.tolist())])

    def read(self, matrix: Float[np.ndarray, "node node"], target: int) -> Float[np.ndarray, " node"]:
        """The row of the token at which a target is predicted; for the vector of a text, the mean over the rows of
        the tokens that it is pooled from."""
        own = int(self.example.own[target])
        return matrix[own] if own >= 0 else self.example.vector_share[self.example.row[target]] @ matrix

    def writing(self) -> Iterator[int]:
        """The attentions in which the tokens that are scored take part: in an encoder-decoder, the decoder's two."""
        return (at for at, site in enumerate(self.sites) if site.stack != "encoder")
