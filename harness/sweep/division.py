"""Split a sweep of few prompts into units: a batch of prompts times a block of the interventions.

The cuts lie between two forwards, so every intervention runs in the same chunk as without them, and the values are the
same to the bit. The cost is one more clean forward of the batch per unit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import xarray as xr

from harness.execute.protocols import Arrays

#: Units for each worker, so that one that is done early can take another.
UNITS_EACH = 2
#: The axis of the interventions in a unit's arrays.
_AXIS = {"ablated": 2, "direct": 2, "source_direct": 2, "account": 2, "null": 3}


@dataclass(frozen=True)
class SplitStage:
    """A sweep whose units are blocks of one batch's interventions.

    ``plan["parts"]`` holds for each unit its batch and its interventions (by place, in the order of their first block).
    """

    sweep: Any  # a SweepStage, which cuts itself by this class
    n_workers: int = 1

    @property
    def name(self) -> str:
        return self.sweep.name

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]:
        """Return the sweep's own plan, with its batches once for each part, the most expensive part last."""
        plan = self.sweep.plan(done)
        each = ceil(UNITS_EACH * self.n_workers / len(plan["batches"]))
        parts = [
            (unit, places)
            for unit in range(len(plan["batches"]))
            for places in reversed(self._blocks(plan["chunks"][unit], each))
        ]
        batches = [plan["batches"][unit] for unit, _ in parts]
        return {**plan, "batches": batches, "whole": plan["batches"], "parts": parts}

    def _blocks(self, chunk: int, n: int) -> list[list[int]]:
        """Cut the interventions into at most `n` blocks of whole chunks."""
        shape = self.sweep.model.shape
        first = [min(shape.block(part.site) for part in parts) for parts in self.sweep.groups.values()]
        order = np.argsort(first, kind="stable").tolist()
        chunks = [order[start : start + chunk] for start in range(0, len(order), chunk)]
        return [
            [place for each in block for place in chunks[each]]
            for block in np.array_split(np.arange(len(chunks)), min(n, len(chunks)))
        ]

    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]:
        batch, places = plan["parts"][unit]
        names = list(self.sweep.groups)
        part = self.sweep.of({names[place]: self.sweep.groups[names[place]] for place in places})
        return part.compute(self._whole(plan), batch)

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Arrays]) -> xr.Dataset:
        """Join the parts of each batch and return the sweep's own arrays."""
        whole = self._whole(plan)
        joined = [self._joined(plan, units, batch) for batch in range(len(whole["batches"]))]
        return self.sweep.assemble(whole, joined)

    def _whole(self, plan: Mapping[str, Any]) -> dict[str, Any]:
        return {**{key: plan[key] for key in plan if key not in ("whole", "parts")}, "batches": plan["whole"]}

    def _joined(self, plan: Mapping[str, Any], units: Sequence[Arrays], batch: int) -> dict[str, np.ndarray]:
        """Join the parts of one batch to its unit."""
        mine = [(places, unit) for (of, places), unit in zip(plan["parts"], units, strict=True) if of == batch]
        places = np.argsort(np.concatenate([places for places, _ in mine]))
        parts = [unit for _, unit in mine]
        joined = {
            "clean": parts[0]["clean"],
            "fired": np.array(sum(int(part["fired"]) for part in parts)),
            "off": np.concatenate([part["off"] for part in parts]),
        }
        joined |= {name: parts[0][name] for name in ("choice_log_prob", "donor") if name in parts[0]}
        for name in parts[0].keys() - joined.keys():
            joined[name] = np.concatenate([part[name] for part in parts], axis=_AXIS[name]).take(places, _AXIS[name])
        return joined
