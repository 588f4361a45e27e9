"""Activation patching: z becomes that of the prompt's counterfactual (corrupted prompt), or the other way round.

Into the clean run (noising) it shows what the behaviour needs; into the corrupted one (denoising), what is enough for
it (Heimersheim & Nanda 2024, arXiv:2404.15255).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from harness.ablation.ablation import Ablation
from harness.ablation.clean_z import capture, in_place
from harness.ablation.edits import Baseline
from harness.ablation.rows import Share, model_rows
from harness.config import RequestError
from harness.hooks import Site
from harness.models import Model
from harness.prompts import Prompts
from harness.prompts.needs import COUNTERFACTUALS


@dataclass(frozen=True)
class Patch:
    """Activation patching from the prompt's counterfactual, position by position.

    `prompts` read the text that is patched: of a patch `into` the corrupted run their counterfactuals are the clean
    texts (`Patch.of`).
    """

    model: Model
    prompts: Prompts
    into: Literal["clean", "corrupted"] = "clean"
    name: str = "patch"
    draws: int = 1

    @classmethod
    def of(cls, model: Model, prompts: Prompts, into: Literal["clean", "corrupted"]) -> "Patch":
        """Return the patch of clean prompts. Raises `RequestError` where one has no counterfactual of its length."""
        clean = cls(model, prompts)
        return clean if into == "clean" else cls(model, prompts.swapped(), into)

    def __post_init__(self) -> None:
        other, own = ((ids >= 0).sum(axis=1).tolist() for ids in (self.prompts.counterfactual, self.prompts.read))
        for number, (n, length) in enumerate(zip(other, own, strict=True)):
            if n != length:
                has = f"has a counterfactual of {n} tokens and {length} itself" if n else "has no counterfactual"
                raise RequestError(
                    "ablation",
                    "patch",
                    f"prompt {number} of {self.prompts.name} {has}; {COUNTERFACTUALS}",
                )

    @property
    def positionwise(self) -> bool:
        return True

    @property
    def alike_in_rows(self) -> bool:
        return False

    def begins(self, rows: Prompts) -> list[int] | None:
        """Return the first position of each row at which a decoder's z can differ from the one that is put in: that of
        the first other token, or the row's end. None for models that also read what comes after."""
        if self.model.kind != "decoder":
            return None
        other = rows.token_id != rows.counterfactual
        return np.where(other.any(axis=1), other.argmax(axis=1), rows.length).tolist()

    def plan(self) -> dict[str, Any]:
        return {"into": self.into}

    def note(self, plan: Mapping[str, Any]) -> str:
        whose = (
            "the prompt's counterfactual" if self.into == "clean" else "the clean prompt, in the counterfactual's run"
        )
        return f"z becomes that of {whose}"

    def prepare(self, plan: Mapping[str, Any], share: Share, sites: Sequence[Site], draw: int) -> Baseline:
        swept = self.prompts.take(share.numbers)
        other, _ = model_rows(self.model, swept.swapped(), share.some)
        return in_place(capture(self.model, other.inputs(self.model.device), sites))


def as_patch(ablated: Ablation) -> Patch | None:
    """Return the patch that an ablation is, or is made of (`HeadInputAblation`); None of others."""
    inner = getattr(ablated, "inner", ablated)
    return inner if isinstance(inner, Patch) else None


def prompts_to_patch(ablated: Ablation, prompts: Prompts) -> Prompts:
    """Return the prompts that an ablation's forwards read: of a patch into the corrupted run the counterfactuals."""
    patch = as_patch(ablated)
    return prompts if patch is None else patch.prompts
