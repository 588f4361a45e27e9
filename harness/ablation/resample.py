"""Resample-ablation: z becomes that of another prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from harness.ablation import donors
from harness.ablation.capture import capture, in_place
from harness.ablation.edits import Baseline
from harness.ablation.rows import asked
from harness.models import Model
from harness.prompts import Prompts


@dataclass(frozen=True)
class Resample:
    """z becomes that of a prompt from another cluster (Chan et al. 2022, "Causal scrubbing"), averaged over draws.

    A donor of another length, where there is none of the same, has its positions spread evenly over the prompt's.
    """

    model: Model
    prompts: Prompts
    draws: int = 1
    seed: int = 0
    name: str = "resample"

    def plan(self) -> dict[str, Any]:
        length = self.prompts.length
        chosen = donors.choose(self.prompts, self.draws, self.seed)
        return {"donors": chosen, "spread": [np.flatnonzero(length[row] != length).tolist() for row in chosen]}

    def note(self, plan: Mapping[str, Any]) -> str:
        spread, n = sum(map(len, plan["spread"])), len(self.prompts) * self.draws
        other = f", {spread} of {n} of another length, their positions spread evenly" if spread else ""
        return f"z becomes that of a prompt from another cluster, {self.draws} for each, seed {self.seed}{other}"

    def prepare(self, plan: Mapping[str, Any], batch: Sequence[int], layers: Sequence[int], draw: int) -> Baseline:
        swept = self.prompts.take(batch)
        rows, owner = asked(self.model, swept)
        donor = self.prompts.take([plan["donors"][draw][number] for number in batch]).take(owner)
        place = donors.corresponding(rows.length.tolist(), donor.length.tolist(), rows.token_id.shape[1])
        captured = capture(self.model, _masked_alike(donor, rows, swept.take(owner), place), layers)
        row, place = torch.arange(len(rows))[:, None], torch.as_tensor(place)
        return in_place({layer: z[row, place] for layer, z in captured.items()})


def _masked_alike(donor: Prompts, rows: Prompts, unmasked: Prompts, place: donors.Index) -> Prompts:
    """The donors with masks where those of the rows correspond."""
    row, position = np.nonzero(rows.token_id != unmasked.token_id)
    token_id = donor.token_id.copy()
    token_id[row, place[row, position]] = rows.token_id[row, position]
    return replace(donor, token_id=token_id)
