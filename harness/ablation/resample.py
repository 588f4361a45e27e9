"""Resample-ablation: z becomes that of another prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from harness.ablation import donors
from harness.ablation.clean_z import capture, in_place
from harness.ablation.edits import Baseline
from harness.ablation.rows import Share, model_rows, unmasked_rows
from harness.hooks import Site
from harness.models import Model
from harness.prompts import Prompts


@dataclass(frozen=True)
class Resample:
    """Resample-ablation (Chan et al. 2022, "Causal scrubbing"): z of prompts from other clusters, averaged over draws.

    A donor of another length, where there is none of the same, has its positions spread evenly over the prompt's.
    """

    model: Model
    prompts: Prompts
    draws: int = 1
    seed: int = 0
    name: str = "resample"

    @property
    def positionwise(self) -> bool:
        return True

    @property
    def alike_in_rows(self) -> bool:
        return False

    def plan(self) -> dict[str, Any]:
        lengths = self.prompts.lengths
        chosen = donors.choose(self.prompts, self.draws, self.seed)
        spread = [np.flatnonzero((lengths[:, row] != lengths).any(axis=0)).tolist() for row in chosen]
        return {"donors": chosen, "spread": spread}

    def note(self, plan: Mapping[str, Any]) -> str:
        spread, n = sum(map(len, plan["spread"])), len(self.prompts) * self.draws
        other = f", {spread} of {n} of another length, their positions spread evenly" if spread else ""
        fewest = int(donors.distinct(plan["donors"]).min())
        again = "" if fewest == self.draws else f" (some again: there are as few as {fewest} possible donors)"
        return f"z becomes that of a prompt from another cluster, {self.draws} for each{again}, seed {self.seed}{other}"

    def prepare(self, plan: Mapping[str, Any], share: Share, sites: Sequence[Site], draw: int) -> Baseline:
        swept = self.prompts.take(share.numbers)
        rows, owner = model_rows(self.model, swept, share.some)
        others = self.prompts.take([plan["donors"][draw][number] for number in share.numbers])
        donor = replace(others, choices=None).take(owner)
        if self.model.kind == "masked_lm":
            donor = _masked_alike(donor, rows, unmasked_rows(swept, share.some))
        inputs = donor.inputs(self.model.device)
        captured = capture(self.model, inputs, sites)
        row = torch.arange(len(rows))[:, None]
        places = {stack: torch.as_tensor(_places(rows, donor, stack)) for stack in {site.text_stack for site in sites}}
        return in_place({site: z[row, places[site.text_stack]] for site, z in captured.items()})


def _places(rows: Prompts, donor: Prompts, stack: str) -> donors.Index:
    """Return the donor's position for each position at which the heads of a stack have a z."""
    own, other = rows.queries(stack), donor.queries(stack)
    return donors.corresponding(_lengths(own), _lengths(other), own.shape[1])


def _lengths(token_id: donors.Index) -> list[int]:
    return (token_id >= 0).sum(axis=1).tolist()


def _masked_alike(donor: Prompts, rows: Prompts, unmasked: Prompts) -> Prompts:
    """Mask the donors at the positions that correspond to the rows' masks."""
    place = _places(rows, donor, "")
    row, position = np.nonzero(rows.token_id != unmasked.token_id)
    token_id = donor.token_id.copy()
    token_id[row, place[row, position]] = rows.token_id[row, position]
    return replace(donor, token_id=token_id)
