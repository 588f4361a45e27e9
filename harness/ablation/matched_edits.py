"""Random edits of z as large as the ablation's: the null distribution of metrics that are distances (KL …)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from harness.ablation.ablation import Ablation
from harness.ablation.edits import Baseline
from harness.ablation.rows import Share, model_rows
from harness.hooks import Part, Site
from harness.models import Model
from harness.prompts import Prompts


@dataclass(frozen=True)
class MatchedNull:
    """Random edits that move z at each position as far as the ablation, in a direction drawn for each prompt, head and
    draw. Only a head whose ablation has a larger effect than these carries information."""

    of: Ablation
    model: Model
    prompts: Prompts
    seed: int = 0

    def prepare(self, plan: Mapping[str, Any], share: Share, sites: Sequence[Site], draw: int) -> Baseline:
        """Return the random edits of one draw for some of the model's rows."""
        baseline = self.of.prepare(plan, share, sites, draw % self.of.draws)
        _, owner = model_rows(self.model, self.prompts.take(share.numbers))
        first = np.searchsorted(owner, owner)  # the first row of each row's prompt
        rows = [(share.numbers[owner[row]], row - int(first[row])) for row in share.some or range(len(owner))]

        def moved(z: Float[Tensor, "row position d_head"], head: Part) -> Float[Tensor, "row position d_head"]:
            far = (baseline(z, head).expand_as(z) - z).float().norm(dim=-1, keepdim=True)
            noise = torch.stack([self._noise(z, head, prompt, row, draw) for prompt, row in rows])
            return z + (far * noise / noise.norm(dim=-1, keepdim=True)).to(z)

        return moved

    def _noise(self, z: Tensor, head: Part, prompt: int, row: int, draw: int) -> Tensor:
        """Draw normal numbers [position, d_head] that depend only on prompt, its row, head, draw and seed."""
        key = [self.seed, draw, prompt, *map(ord, str(head)), *([0, row] if row else [])]
        drawn = np.random.default_rng(key).standard_normal(z.shape[1:], dtype=np.float32)
        return torch.as_tensor(drawn, device=z.device)
