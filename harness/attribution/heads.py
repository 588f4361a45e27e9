"""Effects of each head on a prediction, target by target."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from harness.ablation import Check, Intervention
from harness.attribution.activations import run_order
from harness.attribution.example import Example, clean_values, values
from harness.attribution.masking import chunks
from harness.hooks import Head
from harness.sweep import engine


@torch.no_grad()
def head_effects(example: Example) -> Float[np.ndarray, "target attention head"]:
    """Return the increase of the explained number when a head is zero-ablated (positive: it helped), in run order."""
    shape = example.model.shape
    sites = run_order(shape.sites)
    heads = [Head(site.layer, head, site.stack) for site in sites for head in range(shape.n_heads)]
    effects = intervention_effects(example, [Intervention((head,)) for head in heads])
    return effects.T.reshape(example.n_targets, len(sites), shape.n_heads)


@torch.no_grad()
def intervention_effects(
    example: Example, interventions: Sequence[Intervention]
) -> Float[np.ndarray, "intervention target"]:
    """Return the increase of the explained number under each intervention; blocks before it do not run again."""
    order = sorted(range(len(interventions)), key=lambda at: interventions[at].first_block(example.model.shape))
    ablated, check = np.empty((len(order), example.n_targets)), Check()
    for some in chunks(example, len(order)):
        chosen = order[some]
        end = engine.run_ablated(example.model, example.clean, [interventions[at] for at in chosen], check)
        ablated[chosen] = values(example, end).double().cpu().numpy().reshape(-1, example.n_targets)
    return ablated - clean_values(example)
