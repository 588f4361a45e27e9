"""Integrated gradients: the gradient all the way from an embedding that says nothing.

Sundararajan, Taly & Yan, "Axiomatic Attribution for Deep Networks" (ICML 2017), equation 1.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from harness.ablation.rows import CHUNK_TOKENS
from harness.attribution.example import Example
from harness.attribution.gradients import by_node, embedded, slopes, target_rows

#: The way is refined until the errors of its panels sum to this share of what there is to share out, or to this much.
TOLERANCE, LEAST = 0.03, 1e-3
#: … or until there are so many times the points that it began with.
MOST = 16


class Integrated(NamedTuple):
    """Scores, positive where the token helped, and how far their sum is from what they share out, by target.

    `error` is |Σ scores − (explained at the baseline − explained)|, in the unit of what is explained.
    """

    scores: Float[np.ndarray, "target node"]
    error: Float[np.ndarray, " target"]


class Way(NamedTuple):
    """What is explained at points of the way `at` (0: the baseline, 1: the text), in order, and each node's part of
    the slope there. Two points on are the ends of a panel, the one between them is its middle."""

    at: Float[np.ndarray, " point"]
    explained: Float[np.ndarray, " point"]
    part: Float[np.ndarray, "point node"]


def integrated_gradients(example: Example, baseline: Mapping[str, Tensor], steps: int) -> Integrated:
    """(x − b) · ∫ of minus the gradient along the straight line from `baseline` b (one vector for each stack, in every
    place) to the embeddings x, by Simpson's rule on panels of the way, from `steps` points on.

    The scores share out what is lost from the text to the baseline in every place (completeness, the paper's
    proposition 1). The same holds of each panel and so says where the rule is off: a deep model may lose nats within a
    thousandth of the way. Those panels are halved until little is left (`TOLERANCE`); what it is, is reported.
    """
    ways = [_walked(example.of_target(target), baseline, steps) for target in range(example.n_targets)]
    scores = -np.stack([_by_panel(way).sum(0) for way in ways])
    lost = np.array([way.explained[0] - way.explained[-1] for way in ways])
    return Integrated(scores, np.abs(scores.sum(-1) - lost))


def _walked(example: Example, baseline: Mapping[str, Tensor], steps: int) -> Way:
    """The way of a question's only target, fine enough where it is rough."""
    way = _seen(example, baseline, np.linspace(0, 1, 2 * max(1, steps // 2) + 1))
    most = MOST * len(way.at)
    while len(chosen := _rough(way)[: (most - len(way.at)) // 2]):
        quarters = np.concatenate(
            [(way.at[side] + way.at[2 * chosen + 1]) / 2 for side in (2 * chosen, 2 * chosen + 2)]
        )
        way = _merged(way, _seen(example, baseline, quarters))
    return way


def _rough(way: Way) -> Int[np.ndarray, " panel"]:
    """The fewest panels without which the errors of the others sum to little, the worst first."""
    off = np.abs(_by_panel(way).sum(-1) - np.diff(way.explained[::2]))
    enough = max(LEAST, TOLERANCE * abs(way.explained[-1] - way.explained[0]))
    order = np.argsort(-off, kind="stable")
    left = off.sum() - np.cumsum(off[order])
    return order[: np.searchsorted(-left, -enough / 2) + 1] if off.sum() > enough else order[:0]


def _by_panel(way: Way) -> Float[np.ndarray, "panel node"]:
    """Each node's part of what is explained more at the end of a panel than where it begins: Simpson's rule."""
    whole = way.part[:-1:2] + 4 * way.part[1::2] + way.part[2::2]
    return whole * (np.diff(way.at[::2]) / 6)[:, None]


def _merged(way: Way, more: Way) -> Way:
    order = np.argsort(np.concatenate([way.at, more.at]), kind="stable")
    return Way(*(np.concatenate(pair)[order] for pair in zip(way, more, strict=True)))


def _seen(example: Example, baseline: Mapping[str, Tensor], at: Float[np.ndarray, " point"]) -> Way:
    """The model asked at some points of the way."""
    given = target_rows(example)
    end = embedded(example.model, given)
    step = {stack: vectors - baseline[stack].to(vectors) for stack, vectors in end.items()}
    explained, part = [], []
    for some in np.array_split(at, -(-len(at) * len(example.nodes) // CHUNK_TOKENS)):
        back = torch.as_tensor(1 - some, device=example.model.device)[:, None, None]
        found = slopes(
            example,
            given.repeated(len(some)),
            {stack: end[stack] - (back * step[stack].double()).to(end[stack]) for stack in end},
        )
        explained.append(found.explained.double().cpu().numpy())
        along = by_node(example, found.at_embedding).double() * by_node(example, step).double()
        part.append(along.sum(-1).cpu().numpy())
    return Way(at, np.concatenate(explained), np.concatenate(part))
