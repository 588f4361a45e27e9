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
from harness.ablation.rows import asked
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

    def prepare(self, plan: Mapping[str, Any], batch: Sequence[int], sites: Sequence[Site], draw: int) -> Baseline:
        """The random edits of one draw, for the rows that the model is run on for these prompts (by number)."""
        baseline = self.of.prepare(plan, batch, sites, draw % self.of.draws)
        _, owner = asked(self.model, self.prompts.take(batch))

        def moved(z: Float[Tensor, "row position d_head"], head: Part) -> Float[Tensor, "row position d_head"]:
            far = (baseline(z, head).expand_as(z) - z).float().norm(dim=-1, keepdim=True)
            noise = torch.cat([self._noise(z, head, number, draw, owner == at) for at, number in enumerate(batch)])
            return z + (far * noise / noise.norm(dim=-1, keepdim=True)).to(z)

        return moved

    def _noise(self, z: Tensor, head: Part, prompt: int, draw: int, rows: np.ndarray) -> Tensor:
        """Normal numbers [row, position, d_head] that depend on nothing but prompt, head, draw and seed."""
        who = [self.seed, draw, prompt, *map(ord, str(head))]
        drawn = np.random.default_rng(who).standard_normal((int(rows.sum()), *z.shape[1:]), dtype=np.float32)
        return torch.as_tensor(drawn, device=z.device)
