"""Token policies: which tokens count in the comparison.

The first token (an attention sink) and special tokens score high by most methods, whatever their cause; the token at
which the prediction is made attends to itself. ``drop`` leaves all three out, ``keep`` keeps all visible tokens.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from harness.attribution.example import Example


def count_tokens(example: Example, policies: Sequence[str]) -> Bool[np.ndarray, "policy target node"]:
    """Return which tokens of each target count under each policy."""
    visible = example.visible
    return np.stack([visible if policy == "keep" else visible & _ordinary(example) for policy in policies])


def _ordinary(example: Example) -> Bool[np.ndarray, "target node"]:
    """Return the tokens that are neither special, nor the text's first, nor where the target is predicted."""
    prompt, nodes = example.prompt, example.nodes
    special = prompt.special[0] if prompt.source is None else np.append(prompt.source.special[0], prompt.special[0])
    ordinary = np.tile(~special, (example.n_targets, 1))
    ordinary[:, nodes.source] = False
    own = example.own
    targets = np.flatnonzero(own >= 0)
    ordinary[targets, own[targets]] = False
    return ordinary
