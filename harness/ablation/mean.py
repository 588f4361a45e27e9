"""Mean-ablation: z becomes its mean over a reference set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from harness.ablation.clean_z import Captured, capture
from harness.ablation.edits import Baseline
from harness.ablation.rows import CHUNK_TOKENS, Share, model_rows, together
from harness.hooks import Part, Site
from harness.models import Model
from harness.prompts import Prompts, batches

BY_POSITION, FIRST_APART = "position by position", "the first token apart from all others"
POOLED = "pooled over all positions"
#: The number of means of a head that does not depend on the prompts.
_N_MEANS = {FIRST_APART: 2, POOLED: 1}


@dataclass(frozen=True)
class Mean:
    """Mean-ablation over a reference set.

    Where all prompts, swept and reference, have one length, each position has its own mean. Otherwise the first token,
    often an attention sink, has its own, and all other positions share one. `pooled`, a head has a single mean, over
    all positions of all prompts.
    """

    model: Model
    prompts: Prompts
    reference: Prompts
    named: str
    pooled: bool = False
    name: str = "mean"
    draws: int = 1
    _means: dict[tuple[Any, ...], Captured] = field(default_factory=dict, compare=False, repr=False)

    @property
    def positionwise(self) -> bool:
        return True

    @property
    def alike_in_rows(self) -> bool:
        return self.model.kind != "masked_lm"

    def plan(self) -> dict[str, Any]:
        swept, _ = self.prompts.by_choice()
        lengths = np.concatenate([swept.lengths, self.reference.lengths], axis=1)
        by_position = BY_POSITION if (lengths == lengths[:, :1]).all() else FIRST_APART
        return {
            "reference": {"name": self.named, "n": len(self.reference), "sha256": self.reference.sha256},
            "means": POOLED if self.pooled else by_position,
        }

    def note(self, plan: Mapping[str, Any]) -> str:
        over = plan["reference"]
        return f"z becomes its mean over {over['n']} prompts ({over['name']}), {plan['means']}"

    def prepare(self, plan: Mapping[str, Any], share: Share, sites: Sequence[Site], draw: int) -> Baseline:
        kind = plan["means"]
        key = (kind, *sites)
        if key not in self._means:
            self._means[key] = self.means(kind, sites)
        means = self._means[key]
        rows, _ = model_rows(self.model, self.prompts.take(share.numbers), share.some)
        slot = torch.as_tensor(self._slot(rows, kind))[:, None]

        def mean(z: Float[Tensor, "row position d_head"], head: Part) -> Float[Tensor, "row position d_head"]:
            here = means[head.site]
            return here[slot, torch.arange(z.shape[1]).clamp(max=here.shape[1] - 1), head.head].to(z).expand_as(z)

        return mean

    def _slot(self, rows: Prompts, kind: str) -> Int[np.ndarray, " row_or_one"]:
        """Return each row's slot, or one for all: rows of a masked-LM that mask one position share a mean, where
        positions align."""
        by_mask = kind == BY_POSITION and self.model.kind == "masked_lm"
        return rows.target.argmax(axis=1) if by_mask else np.zeros(1, dtype=int)

    def means(self, kind: str, sites: Sequence[Site]) -> Captured:
        """Return the means by site, [slot, position, head, d_head]; `kind` is `BY_POSITION`, `FIRST_APART` (the first
        position, and one for all others) or `POOLED` (one position, for all)."""
        ends = {site: _N_MEANS.get(kind) or self.reference.queries(site.text_stack).shape[1] for site in sites}
        slots = self.reference.token_id.shape[1] if kind == BY_POSITION and self.model.kind == "masked_lm" else 1
        sums: dict[Site, _Sums] = {}
        for numbers in batches(self.reference):
            of_batch = replace(self.reference.take(numbers), choices=None)
            n_rows, length = model_rows(self.model, of_batch)[0].token_id.shape
            for some in together(n_rows, max(1, CHUNK_TOKENS // length)):
                rows, _ = model_rows(self.model, of_batch, some)
                slot = self._slot(rows, kind)
                for site, z in capture(self.model, rows.inputs(self.model.device), sites).items():
                    of = sums.setdefault(site, _Sums.nothing(z, slots, ends[site]))
                    of.add(z, rows.queries(site.text_stack) >= 0, slot)
        return {site: of.mean() for site, of in sums.items()}


@dataclass(frozen=True)
class _Sums:
    """Sums of z [slot, position, head, d_head] and their counts [slot, position]; positions beyond the last are added
    to it."""

    total: Tensor
    count: Tensor

    @classmethod
    def nothing(cls, z: Tensor, slots: int, end: int) -> "_Sums":
        """Return empty sums for z [row, position, head, d_head]."""
        return cls(*(z.new_zeros((slots, end, *of), dtype=torch.float64) for of in (z.shape[2:], ())))

    def add(self, z: Tensor, real: Bool[np.ndarray, "row position"], slot: Int[np.ndarray, " row_or_one"]) -> None:
        row, position = (torch.as_tensor(index, device=z.device) for index in real.nonzero())
        where = (
            torch.as_tensor(slot, device=z.device).expand(len(z))[row],
            position.clamp(max=self.count.shape[1] - 1),
        )
        self.total.index_put_(where, z[row, position].double(), accumulate=True)
        self.count.index_put_(where, self.count.new_ones(len(row)), accumulate=True)

    def mean(self) -> Tensor:
        """Return the means; an empty slot gets the mean of all slots."""
        count = self.count[:, :, None, None]
        return torch.where(count > 0, self.total / count.clamp(min=1), self.total.sum(0) / count.sum(0))
