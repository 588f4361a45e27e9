"""Prompts that share a template, passage or donor are not independent: they count, and are drawn, together."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from harness.config import RequestError


@dataclass(frozen=True)
class Clusters:
    """Which cluster each prompt is in, and how many prompts each has. Clusters are in the order of their labels."""

    code: Int[np.ndarray, " prompt"]
    size: Float[np.ndarray, " cluster"]

    def __len__(self) -> int:
        return len(self.size)

    def sums(self, values: Float[np.ndarray, "prompt *rest"]) -> Float[np.ndarray, "cluster *rest"]:
        """The sum over the prompts of each cluster."""
        order = np.argsort(self.code, kind="stable")
        starts = np.concatenate([[0], np.cumsum(self.size[:-1])]).astype(int)
        return np.add.reduceat(values[order], starts, axis=0)


def group(clusters: Shaped[np.ndarray, " prompt"] | None, n_prompts: int) -> Clusters:
    """Labels of any kind (numbers, names), one per prompt, to `Clusters`; ``None``: each prompt is its own."""
    if clusters is None:
        return Clusters(np.arange(n_prompts), np.ones(n_prompts))
    labels = np.asarray(clusters)
    if labels.shape != (n_prompts,):
        raise RequestError("clusters", f"shape {labels.shape}", f"one label for each of the {n_prompts} prompts")
    _, code, size = np.unique(labels, return_inverse=True, return_counts=True)
    return Clusters(code, size.astype(np.float64))
