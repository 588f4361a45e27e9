"""Sweep single heads' q, k, v or pattern: the same sweep as of z, with another replacement of z for each of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from harness.ablation.head_inputs import HeadInputAblation, build_inputs
from harness.config import Activation, RequestError, SweepSpec
from harness.execute.cost import Trial
from harness.hooks import Input
from harness.models import alone
from harness.sweep.interventions import EFFECT
from harness.sweep.stage import SweepStage

#: The variable of the effects.
VARIABLE = "activation_effect"
_KEY = "ablation.of"


def check_activations(spec: SweepSpec, of: Sequence[Activation], positions: str | tuple[int, ...]) -> None:
    """Raise `RequestError` for activations other than z in a sweep that replaces z alone."""
    if tuple(of) == ("z",):
        return
    shown = ",".join(of)
    if other := [kind for kind in spec.kind if kind != "single"]:
        raise RequestError(_KEY, shown, f"sweep.kind={other[0]} replaces z; set z, or sweep.kind=single")
    if spec.method != "exact":
        raise RequestError(_KEY, shown, f"sweep.method={spec.method} estimates z alone; set z, or sweep.method=exact")
    if positions == "each":
        remedy = "at each position in turn only z is replaced; set ablation.of=z, or all, last, target or a list"
        raise RequestError("ablation.positions", "each", remedy)
    read_z = [key for key in ("source_direct", "account") if getattr(spec, key)]
    if read_z and "z" not in of:
        raise RequestError(_KEY, shown, f"sweep.{read_z[0]} is of z; add z")


@dataclass(frozen=True)
class HeadInputsStage:
    """The stage that ablates other activations than z; one unit is a batch of prompts, all activations and heads on it.

    `sweep` holds model, prompts and ablation of z; its groups are single heads. Without `beside_z` the stage gives the
    metrics of the clean run too.
    """

    sweep: SweepStage
    inputs: tuple[HeadInputAblation, ...]
    beside_z: bool
    name: str = "sweep_activations"

    @classmethod
    def of(cls, sweep: SweepStage, of: Sequence[Activation]) -> "HeadInputsStage":
        """Return the stage of these activations. Raises `RequestError` for what model and prompts do not allow."""
        some: list[Input] = [each for each in of if each != "z"]
        made = build_inputs(sweep.model, sweep.prompts, sweep.ablation, some, sweep.positions, sweep.sites)
        return cls(sweep, tuple(made), beside_z="z" in of)

    @property
    def model(self) -> Any:
        return self.sweep.model

    def _sweep(self, one: HeadInputAblation) -> SweepStage:
        """Return the sweep of one activation. A changed key reaches z at later positions too."""
        positions = "all" if one.of in ("k", "v") else self.sweep.positions
        how = {"with_direct": False, "with_sources": False, "with_account": False, "attention": "eager"}
        return replace(self.sweep, ablation=one, positions=positions, **how)

    def cost(self, trial: Trial) -> str:
        return self.as_sweep().cost(trial)

    def as_sweep(self) -> SweepStage:
        groups = self.sweep.groups
        return self.sweep.of({f"{one.of} {name}": parts for one in self.inputs for name, parts in groups.items()})

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]:
        plan = self._sweep(self.inputs[0]).plan()
        positions = self.sweep.positions
        shown = positions if isinstance(positions, str) else list(positions)
        return {**plan, "positions": shown, "of": [one.of for one in self.inputs], "null": None}

    @alone
    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]:
        """Compute one batch: as of z (`SweepStage.compute`), `ablated` [metric, prompt, activation, group]."""
        each = [self._sweep(one).compute(plan, unit) for one in self.inputs]
        shared = {name: each[0][name] for name in ("clean", "donor") if name in each[0]}
        checks = {
            "fired": np.array(sum(int(one["fired"]) for one in each)),
            "off": np.concatenate([one["off"] for one in each]),
        }
        return {**shared, **checks, "ablated": np.stack([one["ablated"][..., 0] for one in each], axis=2)}

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """Return `activation_effect` [metric, prompt, activation, layer, head], and without z `clean`."""
        made = [
            self._sweep(one).assemble(plan, [{**unit, "ablated": unit["ablated"][:, :, at, :, None]} for unit in units])
            for at, one in enumerate(self.inputs)
        ]
        effects = [arrays[EFFECT["single"]] for arrays in made]
        index = xr.DataArray(plan["of"], dims="activation", name="activation")
        effect = xr.concat([each.drop_attrs() for each in effects], index)
        effect = effect.transpose("metric", "prompt", "activation", ...)
        own = {"baseline": "; ".join(str(each.attrs["baseline"]) for each in effects)}
        effect.attrs = {**effects[0].attrs, **own}
        beside = [] if self.beside_z else [name for name in ("clean", "corrupted") if name in made[0]]
        return xr.Dataset({VARIABLE: effect, **{name: made[0][name] for name in beside}})
