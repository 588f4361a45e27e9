"""Mean-ablation: z becomes its mean over a reference set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from harness.ablation.capture import Captured, capture
from harness.ablation.edits import Baseline
from harness.ablation.rows import asked
from harness.hooks import Head
from harness.models import Model
from harness.prompts import Prompts, batches

BY_POSITION, FIRST_APART = "position by position", "the first token apart from all others"


@dataclass(frozen=True)
class Mean:
    """z becomes its mean over a reference set.

    Where all prompts, swept and reference, have one length, each position has a mean of its own. Otherwise the first
    token, which many heads use as a place to rest, has its own, and all other positions share one.
    """

    model: Model
    prompts: Prompts
    reference: Prompts
    named: str
    name: str = "mean"
    draws: int = 1
    _means: dict[tuple[Any, ...], Captured] = field(default_factory=dict, compare=False, repr=False)

    def plan(self) -> dict[str, Any]:
        lengths = {*self.prompts.length.tolist(), *self.reference.length.tolist()}
        return {
            "reference": {"name": self.named, "n": len(self.reference), "sha256": self.reference.sha256},
            "means": BY_POSITION if len(lengths) == 1 else FIRST_APART,
        }

    def note(self, plan: Mapping[str, Any]) -> str:
        over = plan["reference"]
        return f"z becomes its mean over {over['n']} prompts ({over['name']}), {plan['means']}"

    def prepare(self, plan: Mapping[str, Any], batch: Sequence[int], layers: Sequence[int], draw: int) -> Baseline:
        aligned = plan["means"] == BY_POSITION
        key = (aligned, *layers)
        if key not in self._means:
            self._means[key] = self._mean(aligned, layers)
        means = self._means[key]
        rows, _ = asked(self.model, self.prompts.take(batch))
        slot = torch.as_tensor(self._slot(rows, aligned))[:, None]

        def mean(z: Float[Tensor, "row position d_head"], head: Head) -> Float[Tensor, "row position d_head"]:
            of = means[head.layer]
            return of[slot, torch.arange(z.shape[1]).clamp(max=of.shape[1] - 1), head.head].to(z)

        return mean

    def _slot(self, rows: Prompts, aligned: bool) -> Int[np.ndarray, " row"]:
        """Rows of a masked-LM that mask the same position have means of their own, where positions align."""
        return rows.target.argmax(axis=1) * int(aligned and self.model.kind == "masked_lm")

    def _mean(self, aligned: bool, layers: Sequence[int]) -> Captured:
        """The means by layer, [slot, position, head, d_head]: of each position, or of the first and of all others.

        A slot of which the reference set has no row gets the mean of all slots.
        """
        shape, device = self.model.shape, self.model.device
        n = int(self.reference.length.max()) if aligned else 2
        slots = n if aligned and self.model.kind == "masked_lm" else 1
        empty = torch.zeros((slots * n, shape.n_heads, shape.d_head), dtype=torch.float64, device=device)
        total, count = {layer: empty.clone() for layer in layers}, empty.new_zeros(slots * n)
        for numbers in batches(self.reference):
            rows, _ = asked(self.model, self.reference.take(numbers))
            row, position = (rows.token_id >= 0).nonzero()
            which = torch.as_tensor(self._slot(rows, aligned)[row] * n + np.minimum(position, n - 1), device=device)
            count.index_add_(0, which, torch.ones_like(which, dtype=count.dtype))
            for layer, z in capture(self.model, rows, layers).items():
                total[layer].index_add_(0, which, z[row, position].double())
        count = count.view(slots, n, 1, 1)
        return {layer: _shares(value.view(slots, n, *value.shape[1:]), count) for layer, value in total.items()}


def _shares(total: Tensor, count: Tensor) -> Tensor:
    return torch.where(count > 0, total / count.clamp(min=1), total.sum(0) / count.sum(0))
