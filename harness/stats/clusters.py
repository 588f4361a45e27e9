"""Clusters of prompts that are not independent (a shared template, passage or donor) and are resampled together."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from harness.config import RequestError


def effective(size: Float[np.ndarray, " cluster"]) -> float:
    """Return Kish's effective number of clusters, (sum of sizes)² / sum of squares."""
    return float(size.sum() ** 2 / (size**2).sum())


@dataclass(frozen=True)
class Clusters:
    """The cluster of each prompt, and the number of prompts of each cluster, in the order of the labels."""

    code: Int[np.ndarray, " prompt"]
    size: Float[np.ndarray, " cluster"]

    def __len__(self) -> int:
        return len(self.size)

    @property
    def effective(self) -> float:
        """The effective number of clusters: all of them where their sizes are equal, else fewer."""
        return effective(self.size)

    @property
    def effective_skew(self) -> float:
        """The number of equal clusters with the same skewness of the mean: n of them divide its square by n."""
        return float((self.size**2).sum() ** 3 / (self.size**3).sum() ** 2)

    def sums(self, values: Float[np.ndarray, "prompt *rest"]) -> Float[np.ndarray, "cluster *rest"]:
        """Return the sum over the prompts of each cluster."""
        order = np.argsort(self.code, kind="stable")
        starts = np.concatenate([[0], np.cumsum(self.size[:-1])]).astype(int)
        return np.add.reduceat(values[order], starts, axis=0)


def group(clusters: Shaped[np.ndarray, " prompt"] | None, n_prompts: int) -> Clusters:
    """Group prompts by labels of any type, one per prompt; ``None``: each prompt is its own cluster."""
    if clusters is None:
        return Clusters(np.arange(n_prompts), np.ones(n_prompts))
    labels = np.asarray(clusters)
    if labels.shape != (n_prompts,):
        raise RequestError("clusters", f"shape {labels.shape}", f"one label for each of the {n_prompts} prompts")
    _, code, size = np.unique(labels, return_inverse=True, return_counts=True)
    return Clusters(code, size.astype(np.float64))
