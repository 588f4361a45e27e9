"""The sweep stage: a frozen plan of units, the computation of each, and the labelled arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import xarray as xr

from harness.ablation import ZERO, Ablation, Check, Intervention, MatchedNull, Share, model_rows, positions, together
from harness.ablation.patch import as_patch
from harness.ablation.positions import Places
from harness.config import RequestError
from harness.execute import Stage
from harness.execute.cost import Trial, duration, gigabytes
from harness.hooks import Head, Part, Site
from harness.metrics import Metric, described
from harness.models import Model, alone
from harness.prompts import Prompts, batches
from harness.sweep.account import components
from harness.sweep.attention_kernel import kernel_for
from harness.sweep.batch import Batch, check_finite
from harness.sweep.direct import has_direct
from harness.sweep.division import UNITS_EACH, SplitStage
from harness.sweep.interventions import AT_EACH_POSITION, EFFECT, TOGETHER, Groups
from harness.sweep.labels import Layout, gathered
from harness.sweep.memory import Fit
from harness.sweep.next_token import NEXT_TOKEN, split_off, written
from harness.sweep.shared_context import shares_context

#: Draws of random edits of the same norm, the null distribution of distances.
_NULL_DRAWS = 1


@dataclass(frozen=True)
class SweepStage:
    """The stage that ablates: one unit is a batch of prompts, all interventions on it.

    `groups` are the interventions by name: each head by itself, each layer, MLP or residual stream, or named sets and
    then `n_random` random ones for each; `positions` are those of `harness.ablation.positions`. Raises `RequestError`
    for positions that the prompts or the kind do not allow.
    """

    model: Model
    prompts: Prompts
    groups: Groups
    metrics: tuple[Metric, ...]
    ablation: Ablation = ZERO
    positions: str | tuple[int, ...] = "all"
    kind: str = "single"
    memory: float | None = None
    attention: Literal["auto", "eager"] = "auto"
    with_direct: bool = True
    with_sources: bool = False
    with_account: bool = False
    seed: int = 0
    n_random: int = 0
    check: Check = field(default_factory=Check)

    def __post_init__(self) -> None:
        causal = self.model.kind in ("decoder", "encoder_decoder")
        positions.check(self.positions, self.prompts, self._parts, causal)
        if self.positions == "each" and self.kind not in AT_EACH_POSITION:
            known = " or ".join(AT_EACH_POSITION)
            remedy = f"sweep.kind={self.kind} takes all, last, target or a list such as [3]; or set sweep.kind={known}"
            raise RequestError("ablation.positions", "each", remedy)

    @property
    def name(self) -> str:
        return "sweep" if self.kind == "single" else f"sweep_{self.kind}"

    @property
    def metric_names(self) -> list[str]:
        return [metric.name for metric in self.metrics]

    @property
    def _parts(self) -> list[Part]:
        return [part for parts in self.groups.values() for part in parts]

    @property
    def sites(self) -> list[Site]:
        """Return the attentions (and MLPs) at which z is replaced."""
        return list(dict.fromkeys(part.site for part in self._parts))

    @property
    def _has_direct(self) -> bool:
        """Whether direct effects are measured beside the effects."""
        wanted = self.with_direct and self.kind == "single" and self.positions != "each"
        return wanted and has_direct(self.model, self._parts)

    @property
    def _direct_refused(self) -> bool:
        """Whether direct effects are left out because this decoder's writes do not sum to its stream."""
        wanted = self.with_direct and self.kind == "single" and self.positions != "each"
        return wanted and self.model.kind == "decoder" and not self.model.traits.write_scale

    @property
    def _has_null(self) -> bool:
        """Whether a metric is a distance, whose effects are tested against those of random edits."""
        distances = any(metric.distance for metric in self.metrics)
        return self.kind == "single" and self.positions != "each" and distances

    @property
    def _names_tokens(self) -> bool:
        """Whether the most likely next token is kept: in maps by position, of models that write."""
        mapped = self.positions == "each" and self.kind != "single" and self.ablation.draws == 1
        return mapped and self.model.kind in ("decoder", "encoder_decoder") and not self.prompts.has_choices

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]:
        cut = batches(self.prompts)
        return {
            "batches": cut,
            "chunks": [self.fit.interventions_at_once(batch) for batch in cut],
            "rows": [self.fit.rows_at_once(batch) for batch in cut],
            "groups": {name: [str(part) for part in parts] for name, parts in self.groups.items()},
            "metrics": self.metric_names,
            "ablation": self.ablation.name,
            "positions": self.positions if isinstance(self.positions, str) else list(self.positions),
            "attention": kernel_for(self.model, self.prompts) if self.attention == "auto" else "eager",
            "direct": self._has_direct,
            "source_direct": self.with_sources and self.kind == "single",
            "account": self.with_account and self.kind == "single",
            "null": {"draws": _NULL_DRAWS, "seed": self.seed} if self._has_null else None,
            **self.ablation.plan(),
        }

    @property
    def fit(self) -> Fit:
        """Return how its batches fit in memory."""
        return Fit(self.model, self.prompts, self.memory, self._shares_context)

    @property
    def _shares_context(self) -> bool:
        return shares_context(self.model, self.prompts, self.ablation, self.positions)

    @property
    def layout(self) -> Layout:
        """Return the layout of its labelled arrays."""
        lengths = self.prompts.length if self.positions == "each" else None
        parts = components(self.model) if self.with_account else ()
        return Layout(self.kind, self.groups, self.model.shape, self.metrics, lengths, self.n_random, parts)

    @property
    def heads(self) -> list[Head]:
        """Return the heads, where each group is a single one."""
        return [head for (head,) in self.groups.values() if isinstance(head, Head)]

    def of(self, groups: Groups) -> "SweepStage":
        """Return the same sweep of other interventions."""
        return replace(self, groups=groups)

    def planned(self, plan: Mapping[str, Any]) -> "SweepStage":
        """Return the same sweep of the heads in a frozen plan."""
        return self.of({name: tuple(map(Head.parse, heads)) for name, heads in plan["groups"].items()})

    def divided(self, n_workers: int) -> "Stage":
        """Return the sweep with its batches split by interventions, where they are too few for so many workers."""
        few = self.positions == "all" and n_workers > 1 and len(batches(self.prompts)) < UNITS_EACH * n_workers
        return SplitStage(self, n_workers) if few else self

    def as_planned(self, plan: Mapping[str, Any]) -> "Stage":
        return SplitStage(self) if "parts" in plan else self

    def work(self, plan: Mapping[str, Any]) -> tuple[int, float]:
        """Return the number of clean rows, and the whole forwards of those rows that the sweep amounts to.

        Blocks that are skipped do not count, and a shared context counts once.
        """
        rows = sum(self.fit.n_rows(batch) for batch in plan["batches"])
        n_blocks = len(self.model.shape.sites)
        firsts = [min(self.model.shape.block(part.site) for part in parts) for parts in self.groups.values()]
        share = sum(max(0.0, 1 - first / n_blocks) for first in firsts)
        begins = min(self._begins(self.prompts) or [0])
        turns = int(self.prompts.length.max()) - begins if self.positions == "each" else 1
        draws = self.ablation.draws + (plan["null"] or {"draws": 0})["draws"]
        return rows, share * turns * draws * self.fit.share_that_runs

    def seconds(self, trial: Trial, plan: Mapping[str, Any] | None = None) -> float:
        """Forecast the seconds of the work in one process."""
        rows, sweeps = self.work(self.plan() if plan is None else plan)
        return rows * (1 + sweeps) * trial(self.model, self.prompts)

    def cost(self, trial: Trial) -> str:
        """Describe the work: rows and forwards, the time they take, and the memory."""
        plan = self.plan()
        rows, sweeps = self.work(plan)
        forwards = rows * (1 + sweeps)
        seconds = duration(self.seconds(trial, plan))
        masked = ", each scored token masked in a row of its own" if self.model.kind == "masked_lm" else ""
        weights = sum(each.numel() * each.element_size() for each in self.model.bridge.parameters())
        memory = gigabytes(weights + self.fit.chunk_bytes(plan["batches"], len(self.groups)))
        return (
            f"{len(self.prompts)} prompts ({rows} rows{masked}) × {len(plan['groups'])} interventions, the work of "
            f"{forwards:.0f} forwards of one row: about {seconds}; units of work: {len(plan['batches'])}; memory for "
            f"each worker: up to {memory}"
        )

    def as_sweep(self) -> "SweepStage":
        return self

    @alone
    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]:
        """Compute one batch: `clean` [metric, prompt] and `ablated` [metric, prompt, group, turn], mean over draws.

        Of a patch `donor` [metric, prompt] is that of the texts whose z is put in.

        `fired` is the number of edits verified, `off` the differences to plain forwards where these were tried. There
        is one turn, or with ``positions=each`` one for each position of the longest prompt. If in the plan, `direct`
        [metric, prompt, group] is the mean over draws too, `source_direct` [metric, prompt, group, key] splits it by
        key, `account` [metric, prompt, group, component] splits the effect over later components, and `null` [draw,
        metric, prompt, group] has the effects of random edits.
        """
        before, tried = self.check.fired, len(self.check.spot_checks)
        rows, _ = model_rows(self.model, self.prompts.take(plan["batches"][unit]))
        turns = positions.turns(self.positions, rows, self._begins(rows))
        parts = []
        for some in together(len(rows), plan["rows"][unit]):
            parts.append(self._measured(plan, unit, some, turns))
        arrays = {name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]}
        arrays = split_off(arrays) if self._names_tokens else arrays
        shape = (*arrays["ablated"].shape[:2], len(self.groups), len(turns))
        checks = {"fired": np.array(self.check.fired - before), "off": np.array(self.check.spot_checks[tried:])}
        if self._names_tokens:
            arrays["next_token"] = arrays["next_token"].reshape(shape[1:])
        return arrays | {"ablated": arrays["ablated"].reshape(shape)} | checks

    def _measured(
        self, plan: Mapping[str, Any], unit: int, some: range, turns: Sequence[Places | None]
    ) -> dict[str, np.ndarray]:
        """Compute the share of some of a batch's rows in each of its arrays."""
        numbers, size = plan["batches"][unit], plan["chunks"][unit]
        share = Share(numbers, some)
        how = {"positionwise": self.ablation.positionwise, "shares_context": self._shares_context}
        how |= {"with_account": plan["account"], "fused": plan.get("attention") == "sdpa"}
        metrics = [*self.metrics, NEXT_TOKEN] if self._names_tokens else self.metrics
        batch = Batch(self.model, self.prompts.take(numbers), metrics, self.check, some, **how)
        check_finite(self.model, self.metric_names, numbers, batch.clean)
        draws = [self._of_draw(plan, unit, batch, some, turns, draw) for draw in range(self.ablation.draws)]
        arrays = {"clean": batch.clean, **{name: np.mean([each[name] for each in draws], axis=0) for name in draws[0]}}
        if self.prompts.has_choices:
            arrays["choice_log_prob"] = batch.choice_log_prob
        if as_patch(self.ablation) is not None:
            arrays["donor"] = batch.reading(self.prompts.take(numbers).swapped())
        if plan["null"]:
            null = MatchedNull(self.ablation, self.model, self.prompts, plan["null"]["seed"])
            edits = (null.prepare(plan, share, self.sites, draw) for draw in range(plan["null"]["draws"]))
            nulled = [batch.ablated(self._interventions(edit, turns, some), size, alike=False) for edit in edits]
            arrays["null"] = np.stack(nulled) - batch.clean[..., None]
        return arrays

    def _of_draw(
        self,
        plan: Mapping[str, Any],
        unit: int,
        batch: Batch,
        some: range,
        turns: Sequence[Places | None],
        draw: int,
    ) -> dict[str, np.ndarray]:
        """Measure a batch under one draw of the replacement."""
        numbers, size = plan["batches"][unit], plan["chunks"][unit]
        todo = self._interventions(self.ablation.prepare(plan, Share(numbers, some), self.sites, draw), turns, some)
        account = batch.new_account(len(todo)) if plan["account"] else None
        live = [at for at, one in enumerate(todo) if self.positions != "each" or any(one.positions or ())]
        arrays = {"ablated": np.repeat(batch.clean[:, :, None], len(todo), axis=2)}
        arrays["ablated"][:, :, live] = batch.ablated([todo[at] for at in live], size, account=account)
        names = [name for name in self.groups for _ in turns]
        check_finite(self.model, self.metric_names, numbers, arrays["ablated"], names)
        if unit == draw == some.start == 0:  # two interventions of the run are checked against plain forwards
            for at in sorted({*live[:1], *live[len(live) // 2 :][:1]}):
                batch.spot_check(todo[at], arrays["ablated"][:, :, at])
        if account is not None:
            arrays["account"] = account
        if plan["direct"]:
            arrays["direct"] = batch.direct(todo, size)
        if plan["source_direct"]:
            arrays["source_direct"] = batch.source_direct(todo, int(self.prompts.length[numbers].max()))
        return arrays

    def _begins(self, rows: Prompts) -> list[int] | None:
        """Return the first position of each row at which a replacement changes anything, if that is known."""
        patch = as_patch(self.ablation)
        return None if patch is None else patch.begins(rows)

    def _interventions(self, baseline: Any, turns: Sequence[Places | None], some: range) -> list[Intervention]:
        """Return each group's interventions, turn after turn, on some of the rows."""
        of_rows = [where and where[some.start : some.stop] for where in turns]
        return [Intervention(parts, baseline, where) for parts in self.groups.values() for where in of_rows]

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """Return all units as labelled arrays (`Layout.assembled`); of a map by position with `next_token` [prompt] and
        `resid_next_token` and its kin, as the effects."""
        arrays = self.layout.assembled(plan, units, self.attributes(plan))
        if not self._names_tokens:
            return arrays
        cut, effect = plan["batches"], arrays[EFFECT[self.kind]].isel(metric=0, drop=True)
        ids = self.layout.labelled(gathered(cut, [unit["next_token"][None] for unit in units]))
        patched = written(self.model, ids.isel(metric=0).where(effect.notnull()))
        clean = gathered(cut, [unit["clean_next_token"][None, :, None] for unit in units])[0, :, 0]
        own = written(self.model, xr.DataArray(clean, dims="prompt"))
        return arrays.assign({f"{self.kind}_next_token": patched, "next_token": own})

    def attributes(self, plan: Mapping[str, Any]) -> dict[str, Any]:
        """Return the attributes of a plan's arrays."""
        return {
            "units": str({metric.name: metric.units for metric in self.metrics}),
            "metrics": described(self.metrics),
            "ablation": self.ablation.name,
            "together": TOGETHER[self.kind],
            "baseline": self.ablation.note(plan),
            "positions": str(plan["positions"]),
            "method": "exact",
            **({"into": plan["into"]} if "into" in plan else {}),
            **self.model.inside,
            **({"no_direct": self.model.traits.no_direct} if self._direct_refused else {}),
        }
