"""Integrated gradients: the gradient all the way from an embedding that says nothing.

Sundararajan, Taly & Yan, "Axiomatic Attribution for Deep Networks" (ICML 2017), equation 1.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from harness.attribution.gradients import by_node, embedded, slopes, target_rows
from harness.attribution.question import CHUNK_TOKENS, Question, repeated


class Integrated(NamedTuple):
    """Scores, positive where the token helped, and how far their sum is from what they share out, by target.

    `error` is |Σ scores − (explained at the baseline − explained)|, in the unit of what is explained.
    """

    scores: Float[np.ndarray, "target node"]
    error: Float[np.ndarray, " target"]


def integrated_gradients(question: Question, baseline: Mapping[str, Tensor], steps: int) -> Integrated:
    """(x − b) · ∫ of minus the gradient along the straight line from `baseline` b (one vector for each stack, in every
    place) to the embeddings x, by Gauss–Legendre quadrature with so many steps.

    The scores share out what is lost from the text to the baseline in every place (completeness, the paper's
    proposition 1); what the quadrature is off is reported.
    """
    given = target_rows(question)
    end = embedded(question.model, given)
    start = {stack: baseline[stack].to(vectors).expand_as(vectors) for stack, vectors in end.items()}
    point, weight = np.polynomial.legendre.leggauss(steps)
    point, weight = (point + 1) / 2, weight / 2
    total = {stack: torch.zeros_like(vectors, dtype=torch.float64) for stack, vectors in end.items()}
    at_once = max(1, CHUNK_TOKENS // (question.n_targets * len(question.nodes)))
    for first in range(0, steps, at_once):
        some = slice(first, first + at_once)
        way = {stack: _between(start[stack], end[stack], point[some]) for stack in end}
        found = slopes(question, repeated(given, len(point[some])), way)
        for stack, each in found.at_embedding.items():
            share = torch.as_tensor(weight[some], device=each.device)[:, None, None, None]
            total[stack] -= (each.double().unflatten(0, (len(point[some]), -1)) * share).sum(0)
    path = by_node(question, {stack: (end[stack] - start[stack]).double() for stack in end})
    scores = (path * by_node(question, total)).sum(-1).cpu().numpy()
    lost = slopes(question, given, start).explained - slopes(question, given, end).explained
    return Integrated(scores, np.abs(scores.sum(-1) - lost.double().cpu().numpy()))


def _between(start: Tensor, end: Tensor, point: Float[np.ndarray, " step"]) -> Float[Tensor, "row position d_model"]:
    """The rows at each point of the way, point after point."""
    at = torch.as_tensor(point, device=end.device).to(end)[:, None, None, None]
    return (start + at * (end - start)).flatten(0, 1)
