"""Heads, alone or together, are ablated; what that does to the metrics is measured.

`engine` runs many interventions in one forward; this file says which interventions a request means, cuts the work
into units with a frozen plan, and labels what comes out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from harness import ablation as ablations
from harness.ablation import ZERO, Ablation, Asked, Check, Intervention, InterventionFailed, asked, positions
from harness.config import RequestError
from harness.hooks import Head
from harness.metrics import Function, choose, described, metric, name_of
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

    `groups` are the interventions by name: each head by itself, each layer, or named sets; `positions` says where
    (see `harness.ablation.positions`). Raises `RequestError` for positions that the prompts or the kind do not allow.
    """

    model: Model
    prompts: Prompts
    groups: Mapping[str, tuple[Head, ...]]
    metrics: tuple[str | Function, ...]
    ablation: Ablation = ZERO
    positions: str | tuple[int, ...] = "all"
    kind: str = "single"
    memory: float = 2.0
    name: str = "sweep"
    check: Check = field(default_factory=Check)

    def __post_init__(self) -> None:
        positions.check(self.positions, self.prompts)
        if self.positions == "each" and self.kind != "single":
            remedy = f"sweep.kind={self.kind} takes all, last, target or a list such as [3]; or say sweep.kind=single"
            raise RequestError("ablation.positions", "each", remedy)

    @property
    def metric_names(self) -> list[str]:
        return [name_of(one) for one in self.metrics]

    def plan(self) -> dict[str, Any]:
        cut = batches(self.prompts)
        return {
            "batches": cut,
            "chunks": [self._chunk(batch) for batch in cut],
            "groups": {name: [str(head) for head in heads] for name, heads in self.groups.items()},
            "metrics": self.metric_names,
            "ablation": self.ablation.name,
            "positions": self.positions if isinstance(self.positions, str) else list(self.positions),
            **self.ablation.plan(),
        }

    def _chunk(self, batch: list[int]) -> int:
        """How many interventions go through together for this batch of prompts."""
        length = int(self.prompts.length[batch].max())
        shape = self.model.shape
        bytes_per_token = 4 * _WIDTHS * shape.d_model + 12 * shape.n_heads * length
        tokens = min(CHUNK_TOKENS, int(self.memory * 1e9 / bytes_per_token))
        rows = int(self.prompts.target[batch].sum()) if self.model.kind == "masked_lm" else len(batch)
        return max(1, tokens // (rows * length))

    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]:
        """One batch: `clean` [metric, prompt] and `ablated` [metric, prompt, group, turn], the mean over draws, with
        the number of edits verified and what plain forwards were off where they were tried.

        There is one turn, or with ``positions=each`` one for each position of the longest prompt.
        """
        numbers, size = plan["batches"][unit], plan["chunks"][unit]
        before, tried = self.check.fired, len(self.check.spot_checks)
        batch = self.prompts.take(numbers)
        turns = positions.turns(self.positions, asked(self.model, batch)[0])
        layers = sorted({head.layer for heads in self.groups.values() for head in heads})
        clean = engine.run_clean(self.model, batch, self.metrics)
        ablated = np.zeros((len(self.metrics), len(batch), len(self.groups) * len(turns)))
        for draw in range(self.ablation.draws):
            baseline = self.ablation.prepare(plan, numbers, layers, draw)
            todo = [Intervention(heads, baseline, where) for heads in self.groups.values() for where in turns]
            values = self._ablated(clean, todo, size)
            if unit == draw == 0:
                self._spot_check(clean, todo, values)
            ablated += values / self.ablation.draws
        unharmed = engine.measure(self.model, clean, clean.end, self.metrics)[:, 0]
        shape = (*ablated.shape[:2], len(self.groups), len(turns))
        return {
            "clean": unharmed.double().cpu().numpy(),
            "ablated": ablated.reshape(shape),
            "fired": np.array(self.check.fired - before),
            "off": np.array(self.check.spot_checks[tried:]),
        }

    def _ablated(self, clean: engine.Clean, todo: list[Intervention], size: int) -> np.ndarray:
        """The metrics under each intervention, [metric, prompt, intervention], `size` of them in one forward."""
        order = sorted(range(len(todo)), key=lambda at: todo[at].first_layer)
        values = np.empty((len(self.metrics), clean.targets.n_prompts, len(todo)))
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            end = engine.run_ablated(self.model, clean, [todo[at] for at in chosen], self.check)
            measured = engine.measure(self.model, clean, end, self.metrics)
            values[:, :, chosen] = measured.double().cpu().numpy().transpose(0, 2, 1)
        return values

    def _spot_check(self, clean: engine.Clean, todo: list[Intervention], ablated: np.ndarray) -> None:
        """Two interventions again the plain way, a whole hooked forward for each, which must agree."""
        for at in sorted({0, len(todo) // 2}):
            plain = engine.measure(self.model, clean, engine.run_plainly(self.model, clean, todo[at]), self.metrics)
            off = float(np.abs(plain[:, 0].double().cpu().numpy() - ablated[:, :, at]).max())
            if not off <= engine.tolerance(self.model):
                raise InterventionFailed(
                    f"{' '.join(map(str, todo[at].heads))}: the sweep is off a plain hooked forward by {off:.3g}; "
                    f"{self.model.name} cannot be swept faithfully"
                )
            self.check.spot_checks.append(off)

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """All units as labelled arrays: `clean`, and `ablated` and `effect` by head, layer or set; or, position by
        position, `position_effect`."""
        n, end = self.prompts.token_id.shape
        turns = end if self.positions == "each" else 1
        clean = np.empty((len(self.metrics), n))
        by_turn = np.full((*clean.shape, len(self.groups), turns), np.nan)
        for rows, unit in zip(plan["batches"], units, strict=True):
            clean[:, rows], by_turn[:, rows, :, : unit["ablated"].shape[3]] = unit["clean"], unit["ablated"]
        ablated = by_turn[..., 0]
        effect = ablated - clean[:, :, None]
        arrays = xr.Dataset({"clean": (("metric", "prompt"), clean)}, coords={"metric": self.metric_names})
        match self.kind:
            case "single" if self.positions == "each":
                real = (np.arange(end) < self.prompts.length[:, None])[None, :, None]
                difference = np.where(real, by_turn - clean[:, :, None, None], np.nan)
                arrays["position_effect"] = self._by_head(difference)
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
        attributes = {
            "units": str({name_of(one): metric(one).units for one in self.metrics}),
            "metrics": described(self.metrics),
            "ablation": self.ablation.name,
            "baseline": self.ablation.note(plan),
            "positions": str(plan["positions"]),
            "method": "exact",
        }
        for name in arrays.data_vars:
            arrays[name].attrs = attributes
        arrays["clean"].attrs = {
            **attributes,
            "edits_verified": sum(int(unit["fired"]) for unit in units),
            "plain_forward_difference": float(np.concatenate([unit["off"] for unit in units]).max(initial=0)),
        }
        return arrays

    def _by_head(self, values: np.ndarray) -> xr.DataArray:
        """Values [metric, prompt, group] or [metric, prompt, group, position] with layer and head in place of group."""
        shape = self.model.shape
        full = np.full((*values.shape[:2], shape.n_layers, shape.n_heads, *values.shape[3:]), np.nan)
        heads = [heads[0] for heads in self.groups.values()]
        full[:, :, [head.layer for head in heads], [head.head for head in heads]] = values
        coords = {"layer": np.arange(shape.n_layers), "head": np.arange(shape.n_heads)}
        dims = ("metric", "prompt", "layer", "head", "position")
        return xr.DataArray(full, dims=dims[: full.ndim], coords=coords)


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
    ablation: Asked = "zero",
    metrics: str | Function | Iterable[str | Function] = "auto",
    heads: Any = "all",
    method: str = "exact",
    kind: str = "single",
    sets: Mapping[str, Iterable[Any]] | None = None,
    positions: str | int | Iterable[int] | None = None,
) -> xr.Dataset:
    """Ablate heads and measure what that costs, prompt by prompt.

    `ablation` is ``zero``, ``mean``, ``resample`` or ``patch``, one of these with its keys (``{"name": "mean",
    "reference": "ioi"}``, or a spec), or a function of z [prompt, position, d_head] and the `Head` that gives the new
    z. `positions` is ``all``, ``last``, ``target``, ``each`` or a list (negative: from each prompt's end), and takes
    the place of the ablation's own. A metric is a name or a function of a `harness.metrics.Readout` that gives
    a number for each target; it is named as the function, and nobody knows which way is better.

    Returns a dataset with `clean` [metric, prompt], `ablated` and `effect` [metric, prompt, layer, head] (NaN for
    heads not asked for), or `layer_effect` or `set_effect` for the other kinds, and the prompts' own variables. With
    ``positions="each"`` it has `position_effect` [metric, prompt, layer, head, position] instead, NaN in padding.
    effect = metric(ablated) − metric(clean) on the same prompt. Raises `RequestError` for what cannot be asked and
    `InterventionFailed` if an ablation did not reach W_O as intended.
    """
    if method != "exact":
        raise RequestError("method", method, "known: exact")
    made, where = ablations.build(ablation, model, prompts)
    if positions is not None:
        where = ablations.asked_positions(positions)
    stage = SweepStage(
        model, prompts, groups(model, heads, kind, sets), choose(metrics, prompts), made, where, kind=kind
    )
    plan = stage.plan()
    units = [stage.compute(plan, unit) for unit in range(len(plan["batches"]))]
    return xr.merge([prompts.dataset(), stage.assemble(plan, units)])
