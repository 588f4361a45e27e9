"""What a head writes to the logits at the scored positions, token by token.

The head's own write goes through the final norm at its clean scale and the unembedding: its direct logit attribution to
every token of the vocabulary (Elhage et al. 2021, "A mathematical framework for transformer circuits").
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.ablation import Intervention
from harness.hooks import Head
from harness.models import Model
from harness.sweep.direct import change_of_writes, frozen_final_norm
from harness.sweep.engine import Clean, logits_of


@torch.no_grad()
def logit_writes(model: Model, clean: Clean, heads: Sequence[Head]) -> Float[Tensor, "head vocab"]:
    """Return what each head's write adds to the logits, in mean over each prompt's targets, summed over prompts.

    Logits are those before a soft cap. What a bias of W_O adds is no head's.
    """
    removed = change_of_writes(model, clean, [Intervention((head,)) for head in heads])
    share = clean.targets.share
    with hooks.uncapped(model.bridge):
        without = torch.stack([_weighed(model, clean, clean.end + each, share) for each in removed])
        return _weighed(model, clean, clean.end, share) - without


def _weighed(
    model: Model, clean: Clean, end: Float[Tensor, "target d_model"], share: Float[Tensor, " target"]
) -> Float[Tensor, " vocab"]:
    """Return the logits under the frozen final norm, summed over the targets with their share of a prompt's mean."""
    with frozen_final_norm(model, clean):
        return sum((share[rows, None] * logits).sum(dim=0) for rows, logits in logits_of(model, clean, end))  # pyright: ignore[reportReturnType]
