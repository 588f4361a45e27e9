"""Heads, alone or together, are ablated; what that does to the metrics is measured.

`engine` runs many interventions in one forward; this file says which interventions a request means, cuts the work
into units with a frozen plan, and labels what comes out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from harness.ablation import Baseline, Check, Intervention, InterventionFailed, baseline, zeros
from harness.config import RequestError
from harness.hooks import Head
from harness.metrics import METRICS, choose
from harness.models import Model
from harness.prompts import Prompts, batches
from harness.sweep import engine

#: Tokens that go through a block together. More rows are not faster on a CPU, and cost page faults (see LOG.md).
CHUNK_TOKENS = 4096
#: Activations that live at once for one token of one row, in multiples of d_model and of n_heads × keys.
_WIDTHS = 24


@dataclass(frozen=True)
class SweepStage:
    """The stage that ablates: one unit is a batch of prompts, all interventions on it.

    `groups` are the interventions by name: each head by itself, each layer, or named sets.
    """

    model: Model
    prompts: Prompts
    groups: Mapping[str, tuple[Head, ...]]
    metrics: tuple[str, ...]
    baseline: Baseline = zeros
    ablation_name: str = "zero"
    kind: str = "single"
    memory: float = 2.0
    name: str = "sweep"
    check: Check = field(default_factory=Check)

    def plan(self) -> dict[str, Any]:
        cut = batches(self.prompts)
        return {
            "batches": cut,
            "chunks": [self._chunk(batch) for batch in cut],
            "groups": {name: [str(head) for head in heads] for name, heads in self.groups.items()},
            "metrics": list(self.metrics),
            "ablation": self.ablation_name,
        }

    def _chunk(self, batch: list[int]) -> int:
        """How many interventions go through together for this batch of prompts."""
        length = int(self.prompts.length[batch].max())
        shape = self.model.shape
        bytes_per_token = 4 * _WIDTHS * shape.d_model + 12 * shape.n_heads * length
        tokens = min(CHUNK_TOKENS, int(self.memory * 1e9 / bytes_per_token))
        return max(1, tokens // (len(batch) * length))

    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]:
        """One batch: `clean` [metric, prompt] and `ablated` [metric, prompt, group]."""
        batch = self.prompts.take(plan["batches"][unit])
        todo = [Intervention(heads, self.baseline) for heads in self.groups.values()]
        order = sorted(range(len(todo)), key=lambda at: todo[at].first_layer)
        clean = engine.run_clean(self.model, batch, self.metrics)
        ablated = np.empty((len(self.metrics), len(batch), len(todo)))
        size = plan["chunks"][unit]
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            end = engine.run_ablated(self.model, clean, [todo[at] for at in chosen], self.check)
            values = engine.measure(self.model, clean, end, self.metrics)
            ablated[:, :, chosen] = values.double().cpu().numpy().transpose(0, 2, 1)
        if unit == 0:
            self._spot_check(batch, clean, todo, ablated)
        unharmed = engine.measure(self.model, clean, clean.end, self.metrics)[:, 0]
        return {"clean": unharmed.double().cpu().numpy(), "ablated": ablated}

    def _spot_check(self, batch: Prompts, clean: engine.Clean, todo: list[Intervention], ablated: np.ndarray) -> None:
        """Two interventions again the plain way, a whole hooked forward for each, which must agree."""
        for at in sorted({0, len(todo) // 2}):
            plain = engine.measure(self.model, clean, engine.run_plainly(self.model, clean, todo[at]), self.metrics)
            off = float(np.abs(plain[:, 0].double().cpu().numpy() - ablated[:, :, at]).max())
            if not off <= engine.tolerance(self.model):
                raise InterventionFailed(
                    f"{list(self.groups)[at]}: the sweep is off a plain hooked forward by {off:.3g}; "
                    f"{self.model.name} cannot be swept faithfully"
                )
            self.check.spot_checks.append(off)

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """All units as labelled arrays: `clean`, and `ablated` and `effect` by head, layer or set."""
        n = len(self.prompts)
        clean, ablated = np.empty((len(self.metrics), n)), np.empty((len(self.metrics), n, len(self.groups)))
        for rows, unit in zip(plan["batches"], units, strict=True):
            clean[:, rows], ablated[:, rows] = unit["clean"], unit["ablated"]
        effect = ablated - clean[:, :, None]
        arrays = xr.Dataset({"clean": (("metric", "prompt"), clean)}, coords={"metric": list(self.metrics)})
        match self.kind:
            case "single":
                arrays["ablated"], arrays["effect"] = self._by_head(ablated), self._by_head(effect)
            case "layer":
                layers = [heads[0].layer for heads in self.groups.values()]
                arrays["layer_effect"] = xr.DataArray(effect, dims=("metric", "prompt", "layer")).assign_coords(
                    layer=layers
                )
            case "set":
                names = list(self.groups)
                arrays["set_effect"] = xr.DataArray(effect, dims=("metric", "prompt", "set")).assign_coords(set=names)
        units_of = {name: METRICS[name].units for name in self.metrics}
        for name in arrays.data_vars:
            arrays[name].attrs = {"units": str(units_of), "ablation": self.ablation_name, "method": "exact"}
        return arrays

    def _by_head(self, values: np.ndarray) -> xr.DataArray:
        shape = self.model.shape
        full = np.full((*values.shape[:2], shape.n_layers, shape.n_heads), np.nan)
        heads = [heads[0] for heads in self.groups.values()]
        full[:, :, [head.layer for head in heads], [head.head for head in heads]] = values
        coords = {"layer": np.arange(shape.n_layers), "head": np.arange(shape.n_heads)}
        return xr.DataArray(full, dims=("metric", "prompt", "layer", "head"), coords=coords)


def groups(
    model: Model, heads: Any = "all", kind: str = "single", sets: Mapping[str, Iterable[Any]] | None = None
) -> dict[str, tuple[Head, ...]]:
    """The interventions that a request means, by name. Raises `RequestError` for heads the model does not have."""
    chosen = model.heads(heads)
    match kind:
        case "single":
            return {str(head): (head,) for head in chosen}
        case "layer":
            layers = sorted({head.layer for head in chosen})
            return {f"L{layer}": tuple(head for head in chosen if head.layer == layer) for layer in layers}
        case "set":
            if not sets:
                raise RequestError("sweep.sets", "{}", "name at least one set, such as sweep.sets={early: [L0H1, L1]}")
            return {name: model.heads(list(members)) for name, members in sets.items()}
    raise RequestError("sweep.kind", kind, "known: single, layer, set")


def ablate_heads(
    model: Model,
    prompts: Prompts,
    ablation: str | Baseline = "zero",
    metrics: Iterable[str] = ("auto",),
    heads: Any = "all",
    method: str = "exact",
    kind: str = "single",
    sets: Mapping[str, Iterable[Any]] | None = None,
) -> xr.Dataset:
    """Ablate heads and measure what that costs, prompt by prompt.

    Returns a dataset with `clean` [metric, prompt], `ablated` and `effect` [metric, prompt, layer, head] (NaN for
    heads not asked for), or `layer_effect` or `set_effect` for the other kinds, and the prompts' own variables.
    effect = metric(ablated) − metric(clean) on the same prompt. Raises `RequestError` for what cannot be asked and
    `InterventionFailed` if an ablation did not reach W_O as intended.
    """
    if method != "exact":
        raise RequestError("method", method, "known: exact")
    stage = SweepStage(
        model,
        prompts,
        groups(model, heads, kind, sets),
        choose(metrics, prompts),
        baseline=baseline(ablation),
        ablation_name=ablation if isinstance(ablation, str) else getattr(ablation, "__name__", "function"),
        kind=kind,
    )
    plan = stage.plan()
    units = [stage.compute(plan, unit) for unit in range(len(plan["batches"]))]
    return xr.merge([prompts.dataset(), stage.assemble(plan, units)])
