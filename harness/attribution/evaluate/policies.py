"""Which tokens count: all that a target could draw on, or those that say something by what they are.

A first token that every head rests on and special tokens score high by most methods and matter little or much for
reasons of their own; a token at which the prediction is made is read by itself. ``drop`` leaves all three out.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from harness.attribution.example import Example


def counted(example: Example, policies: Sequence[str]) -> Bool[np.ndarray, "policy target node"]:
    """Under each policy, which tokens of each target count."""
    visible = example.visible
    return np.stack([visible if policy == "keep" else visible & _ordinary(example) for policy in policies])


def _ordinary(example: Example) -> Bool[np.ndarray, "target node"]:
    """Neither special, nor the first of what is written, nor where the target is predicted."""
    prompt, nodes = example.prompt, example.nodes
    special = prompt.special[0] if prompt.source is None else np.append(prompt.source.special[0], prompt.special[0])
    ordinary = np.tile(~special, (example.n_targets, 1))
    ordinary[:, nodes.source] = False
    own = example.own
    targets = np.flatnonzero(own >= 0)
    ordinary[targets, own[targets]] = False
    return ordinary
