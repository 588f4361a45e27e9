"""Attention context: the keys that each query of a pattern may attend to, and their tokens."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from harness.hooks import variable_name

if TYPE_CHECKING:
    from harness.models import Model
    from harness.prompts import Prompts

Mask = Bool[np.ndarray, "query key"]


@dataclass(frozen=True)
class AttentionContext:
    """The keys and queries of one text in a stack.

    `token_id` and `special` are those of the keys; `allowed` is the mask; `ordinary` are the queries that are no
    special tokens, which alone count. In cross attention the keys are `another` text's.
    """

    token_id: Int[np.ndarray, " key"]
    special: Bool[np.ndarray, " key"]
    allowed: Mask
    ordinary: Bool[np.ndarray, " query"]
    another: bool = False

    @classmethod
    def of_text(
        cls, token_id: Int[np.ndarray, " key"], special: Bool[np.ndarray, " key"] | None = None, causal: bool = True
    ) -> "AttentionContext":
        """Return the context of self-attention, a decoder's (`causal`) or an encoder's."""
        marks = np.zeros(len(token_id), bool) if special is None else special
        allowed = np.ones((len(token_id), len(token_id)), bool)
        return cls(np.asarray(token_id), marks, np.tril(allowed) if causal else allowed, ~marks)

    @property
    def offset(self) -> Int[np.ndarray, "query key"]:
        """The position of each key less that of the query."""
        n_queries, n_keys = self.allowed.shape
        return np.arange(n_keys)[None, :] - np.arange(n_queries)[:, None]

    @property
    def rows(self) -> Bool[np.ndarray, " query"]:
        """The queries that count: ordinary tokens with more than one allowed key."""
        return self.ordinary & (self.allowed.sum(axis=1) > 1)

    def shuffled(self, rng: np.random.Generator) -> "AttentionContext":
        """Return the context with the keys' tokens permuted; in self-attention the queries' go with them."""
        order = rng.permutation(len(self.token_id))
        special = self.special[order]
        return replace(
            self,
            token_id=self.token_id[order],
            special=special,
            ordinary=self.ordinary if self.another else ~special,
        )


def read_by_mask(
    batch: "Prompts", row: int, arrays: Mapping[str, np.ndarray], stack: str, model: "Model"
) -> Iterator[tuple[Int[np.ndarray, " layer"], Float[np.ndarray, "head query key"], AttentionContext]]:
    """Yield the layers of a stack that share a mask, their patterns and context: a sliding window is its own group."""
    pattern, context = read(batch, row, arrays, stack, model)
    layers = pattern.reshape(model.shape.stacks[stack], -1, *pattern.shape[1:])
    allowed = _allowed(arrays, row, stack, layers)
    for mask in {each.tobytes(): each for each in allowed}.values():
        which = np.flatnonzero((allowed == mask).all(axis=(1, 2)))
        yield which, layers[which].reshape(-1, *pattern.shape[1:]), replace(context, allowed=mask)


def _allowed(
    arrays: Mapping[str, np.ndarray], row: int, stack: str, pattern: Float[np.ndarray, "layer head query key"]
) -> Bool[np.ndarray, "layer query key"]:
    """Return the mask of each layer; where no scores were captured, the keys with any weight in some head."""
    name = variable_name("allowed", stack)
    if name not in arrays:
        return np.asarray((pattern > 0).any(axis=1))
    n_layers, _, n_queries, n_keys = pattern.shape
    return arrays[name][row, :n_layers, :n_queries, :n_keys] > 0


def read(
    batch: "Prompts", row: int, arrays: Mapping[str, np.ndarray], stack: str, model: "Model"
) -> tuple[Float[np.ndarray, "head query key"], AttentionContext]:
    """Return the patterns of a stack's heads in one text, without padding, and their context without windows."""
    queries = batch.source if stack == "encoder" and batch.source else batch
    keys = batch.source if stack in ("encoder", "cross") and batch.source else batch
    n_queries, n_keys = int(queries.length[row]), int(keys.length[row])
    pattern = arrays[variable_name("pattern", stack)][row, : model.shape.stacks[stack], :, :n_queries, :n_keys]
    causal = stack == "decoder" or model.kind == "decoder"
    allowed = np.ones((n_queries, n_keys), bool)
    context = AttentionContext(
        token_id=keys.token_id[row, :n_keys],
        special=keys.special[row, :n_keys],
        allowed=np.tril(allowed) if causal else allowed,
        ordinary=~queries.special[row, :n_queries],
        another=stack == "cross",
    )
    if model.traits.learnt_sink:  # renormalise over tokens: roles are about tokens, not the sink
        pattern = pattern / np.maximum(pattern.sum(axis=-1, keepdims=True), 1e-12)
    return pattern.reshape(-1, n_queries, n_keys), context
