"""What a pattern's rows may look at: the keys that are allowed, and the tokens that stand there."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int

Mask = Bool[np.ndarray, "query key"]


@dataclass(frozen=True)
class Seen:
    """One text as the heads of a stack read it.

    `token_id` and `special` are those of the keys, `allowed` says which key a query may look at, and `ordinary` which
    queries are no special tokens; only these count. In cross attention the keys are `another` text's.
    """

    token_id: Int[np.ndarray, " key"]
    special: Bool[np.ndarray, " key"]
    allowed: Mask
    ordinary: Bool[np.ndarray, " query"]
    another: bool = False

    @classmethod
    def of_text(
        cls, token_id: Int[np.ndarray, " key"], special: Bool[np.ndarray, " key"] | None = None, causal: bool = True
    ) -> "Seen":
        """A text that reads itself: a decoder's (`causal`) or an encoder's."""
        marks = np.zeros(len(token_id), bool) if special is None else special
        allowed = np.ones((len(token_id), len(token_id)), bool)
        return cls(np.asarray(token_id), marks, np.tril(allowed) if causal else allowed, ~marks)

    @property
    def offset(self) -> Int[np.ndarray, "query key"]:
        """How far after the query each key stands."""
        n_queries, n_keys = self.allowed.shape
        return np.arange(n_keys)[None, :] - np.arange(n_queries)[:, None]

    @property
    def rows(self) -> Bool[np.ndarray, " query"]:
        """The queries that count: ordinary tokens that have a choice of keys."""
        return self.ordinary & (self.allowed.sum(axis=1) > 1)

    def shuffled(self, rng: np.random.Generator) -> "Seen":
        """The same places with the keys' tokens in another order; in self-attention the queries' go with them."""
        order = rng.permutation(len(self.token_id))
        special = self.special[order]
        return replace(
            self,
            token_id=self.token_id[order],
            special=special,
            ordinary=self.ordinary if self.another else ~special,
        )
