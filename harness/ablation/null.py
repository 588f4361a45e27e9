"""The null that a distance is held against: random edits of z, each as large as the ablation's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from harness.ablation.baselines import Ablation
from harness.ablation.edits import Baseline
from harness.ablation.rows import Share, model_rows
from harness.hooks import Part, Site
from harness.models import Model
from harness.prompts import Prompts


@dataclass(frozen=True)
class MatchedNull:
    """z moves at each position as far as the ablation moves it, in a direction drawn afresh for each prompt, head and
    draw. A head whose ablation does more than this carries something; one that does not was merely disturbed."""

    of: Ablation
    model: Model
    prompts: Prompts
    seed: int = 0

    def prepare(self, plan: Mapping[str, Any], share: Share, sites: Sequence[Site], draw: int) -> Baseline:
        """The random edits of one draw, for some of the rows that the model is run on."""
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
        """Normal numbers [position, d_head] that depend on nothing but prompt, which of its rows, head, draw, seed."""
        who = [self.seed, draw, prompt, *map(ord, str(head)), *([0, row] if row else [])]
        drawn = np.random.default_rng(who).standard_normal(z.shape[1:], dtype=np.float32)
        return torch.as_tensor(drawn, device=z.device)
