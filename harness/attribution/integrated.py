"""Integrated gradients along the straight path from a baseline embedding.

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

#: The path is refined until the errors of its panels sum to this share of the total difference, or to this much.
TOLERANCE, MIN_ERROR = 0.03, 1e-3
#: … or until there are so many times the points that it began with.
MAX_REFINEMENT = 16


class Integrated(NamedTuple):
    """Scores, positive where the token helped, and their completeness error by target.

    `error` is |Σ scores − (explained at the baseline − explained)|, in the unit of the explained number.
    """

    scores: Float[np.ndarray, "target node"]
    error: Float[np.ndarray, " target"]


class Path(NamedTuple):
    """The explained number at points `at` (0: the baseline, 1: the text), and each node's part of the slope there.

    Points are in order: even ones are the ends of panels, odd ones their middles.
    """

    at: Float[np.ndarray, " point"]
    explained: Float[np.ndarray, " point"]
    part: Float[np.ndarray, "point node"]


def integrated_gradients(example: Example, baseline: Mapping[str, Tensor], steps: int) -> Integrated:
    """Integrate minus the gradient along the line from `baseline` b (one vector per stack) to the embeddings x.

    The scores (x − b) · ∫ are computed by Simpson's rule on panels of the path, from `steps` points on. They sum to the
    difference between baseline and text (completeness, the paper's proposition 1). The same holds for each panel, which
    shows where the rule is off: a deep model may lose nats within a thousandth of the path. Those panels are halved
    until the error is small (`TOLERANCE`); what is left is reported.
    """
    paths = [_refined_path(example.of_target(target), baseline, steps) for target in range(example.n_targets)]
    scores = -np.stack([_by_panel(path).sum(0) for path in paths])
    lost = np.array([path.explained[0] - path.explained[-1] for path in paths])
    return Integrated(scores, np.abs(scores.sum(-1) - lost))


def _refined_path(example: Example, baseline: Mapping[str, Tensor], steps: int) -> Path:
    """Evaluate the path of an example's only target, refined where the integrand is rough."""
    path = _evaluate(example, baseline, np.linspace(0, 1, 2 * max(1, steps // 2) + 1))
    most = MAX_REFINEMENT * len(path.at)
    while len(chosen := _rough(path)[: (most - len(path.at)) // 2]):
        quarters = np.concatenate(
            [(path.at[side] + path.at[2 * chosen + 1]) / 2 for side in (2 * chosen, 2 * chosen + 2)]
        )
        path = _merged(path, _evaluate(example, baseline, quarters))
    return path


def _rough(path: Path) -> Int[np.ndarray, " panel"]:
    """Return the fewest panels without which the errors of the others sum to little, the worst first."""
    off = np.abs(_by_panel(path).sum(-1) - np.diff(path.explained[::2]))
    enough = max(MIN_ERROR, TOLERANCE * abs(path.explained[-1] - path.explained[0]))
    order = np.argsort(-off, kind="stable")
    left = off.sum() - np.cumsum(off[order])
    return order[: np.searchsorted(-left, -enough / 2) + 1] if off.sum() > enough else order[:0]


def _by_panel(path: Path) -> Float[np.ndarray, "panel node"]:
    """Return each node's part of the difference between a panel's ends, by Simpson's rule."""
    whole = path.part[:-1:2] + 4 * path.part[1::2] + path.part[2::2]
    return whole * (np.diff(path.at[::2]) / 6)[:, None]


def _merged(path: Path, more: Path) -> Path:
    order = np.argsort(np.concatenate([path.at, more.at]), kind="stable")
    return Path(*(np.concatenate(pair)[order] for pair in zip(path, more, strict=True)))


def _evaluate(example: Example, baseline: Mapping[str, Tensor], at: Float[np.ndarray, " point"]) -> Path:
    """Run the model at some points of the path."""
    inputs = target_rows(example)
    end = embedded(example.model, inputs)
    step = {stack: vectors - baseline[stack].to(vectors) for stack, vectors in end.items()}
    explained, part = [], []
    for some in np.array_split(at, -(-len(at) * len(example.nodes) // CHUNK_TOKENS)):
        back = torch.as_tensor(1 - some, device=example.model.device)[:, None, None]
        gradient = slopes(
            example,
            inputs.repeated(len(some)),
            {stack: end[stack] - (back * step[stack].double()).to(end[stack]) for stack in end},
        )
        explained.append(gradient.explained.double().cpu().numpy())
        along = by_node(example, gradient.at_embedding).double() * by_node(example, step).double()
        part.append(along.sum(-1).cpu().numpy())
    return Path(at, np.concatenate(explained), np.concatenate(part))
