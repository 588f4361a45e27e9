"""The stage that makes head cards: it chooses heads by their effects, and computes why each of them matters."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from harness import sweep
from harness.ablation import Intervention, Share, model_rows, positions, together
from harness.config import RequestError, RunSpec, StatsSpec
from harness.execute import Part
from harness.execute.cost import Trial
from harness.head_card import weights
from harness.head_card.circuits import why_no_circuits
from harness.head_card.logit_lens import ablated_lens, clean_lens
from harness.head_card.logit_writes import logit_writes
from harness.head_card.scored_rows import EXTREMES, prompts_shown, scored_rows
from harness.hooks import Head
from harness.metrics import lead
from harness.models import Model, alone
from harness.prompts import Prompts
from harness.sweep import SweepStage
from harness.sweep.account import check_account
from harness.sweep.batch import plain
from harness.sweep.engine import run_clean
from harness.sweep.head_table import heads_table
from harness.sweep.importance import means
from harness.sweep.labels import gathered
from harness.sweep.source_direct import check_sources

#: Heads of a study that get a card: so many with the largest effects each way.
EACH_WAY = 3
#: Cards of `explain_heads` where no heads are named.
_MOST = 20
#: Tokens that are listed which a head raises or lowers most.
_TOKENS = 8


@dataclass(frozen=True)
class CardStage:
    """The stage that explains some heads of a sweep; one unit is a batch of prompts.

    `heads` are named ones. Without them the plan chooses `each_way` heads with the largest effects up and down by the
    leading metric, or those that are important (`stats`). What a model or the request does not allow is left out, for
    the reason that stands in the attribute `cards_left_out`.
    """

    sweep: SweepStage
    stats: StatsSpec
    heads: tuple[Head, ...] = ()
    each_way: int | None = None
    name: str = "cards"

    @property
    def model(self) -> Model:
        return self.sweep.model

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]:
        """Choose the heads; no units where single heads have no effects (as with each position in turn)."""
        if done is None or "effect" not in done:
            return {"batches": []}
        chosen = self._chosen(done)
        if not chosen:
            return {"batches": []}
        left_out = self._left_out
        how = {
            "with_sources": not left_out["source_direct"] and "source_direct" not in done,
            "with_account": not left_out["account"] and "account" not in done,
        }
        by = lead(self.sweep.metrics).name
        effects = {head: done["effect"].sel(metric=by, **head.place).values for head in chosen}
        cards = replace(self.sweep.of({str(head): (head,) for head in chosen}), **how)
        writes = bool(self.model.traits.write_scale) and all(head.stack != "encoder" for head in chosen)
        own = {
            "lens": self.model.kind != "embedding",
            "writes": writes,
            "weights": None if left_out["weights"] else {"draws": weights.DRAWS, "seed": self.sweep.seed},
            "shown": prompts_shown(effects),
            "left_out": {name: reason for name, reason in left_out.items() if reason},
        }
        return {**cards.plan(), "null": None, **own, **how}

    @property
    def _left_out(self) -> dict[str, str]:
        """Say why direct effects by source, accounts and weights are not given; empty where they are."""
        where = self.sweep.positions
        return {
            "source_direct": _refusal(
                check_sources, self.model, self.sweep.prompts, self.sweep.metrics, self.sweep.ablation, where
            ),
            "account": _refusal(check_account, self.model, self.sweep.prompts, self.sweep.metrics, where),
            "weights": why_no_circuits(self.model, self.sweep.prompts),
        }

    def _chosen(self, done: xr.Dataset) -> list[Head]:
        """Return the heads that get a card, in the order in which they run."""
        if self.heads:
            return list(self.heads)
        by = lead(self.sweep.metrics)
        mean = means(done, "effect", self.sweep.heads, by)
        ordered = sorted(mean, key=lambda head: mean[head])
        if self.each_way is not None:
            down, up = ordered[: self.each_way], ordered[-self.each_way :]
            some = [head for head in down if mean[head] < 0] + [head for head in up if mean[head] > 0]
        else:
            table = heads_table(done, self.stats)
            table = table[(table["metric"] == by.name) & (table["important"] == True)]  # noqa: E712
            important = {*zip(*(table[dim].tolist() for dim in self.sweep.heads[0].place), strict=True)}
            some = [head for head in mean if tuple(head.place.values()) in important]
            some = sorted(some, key=lambda head: -abs(mean[head]))[:_MOST]
        return [head for head in self.sweep.heads if head in {*some}]

    def _cards(self, plan: Mapping[str, Any]) -> SweepStage:
        """Return the sweep of the chosen heads."""
        how = {name: plan[name] for name in ("with_sources", "with_account")}
        return replace(self.sweep.planned(plan), **how)

    def cost(self, trial: Trial) -> str:
        n = len(self.heads) or (2 * self.each_way if self.each_way else min(_MOST, len(self.sweep.groups)))
        names = list(self.sweep.groups)
        some = self.sweep.of({name: self.sweep.groups[name] for name in names[:: max(1, len(names) // n)][:n]})
        return some.cost(trial)

    @alone
    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]:
        """Compute one batch: the sweep's arrays of the chosen heads, `lens` [metric, prompt, depth], `lens_ablated`
        [metric, prompt, head, depth] (mean over draws) and `writes` [head, token], summed over the prompts; of the
        prompts that are shown `shown_CARD_PROMPT` [key], and in the first unit what `weights` gives."""
        cards, numbers = self._cards(plan), plan["batches"][unit]
        rows, _ = model_rows(self.model, cards.prompts.take(numbers))
        some_each = together(len(rows), plan["rows"][unit])
        parts = [self._of_rows(cards, plan, unit, some) for some in some_each]
        arrays = cards.compute(plan, unit) | {name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]}
        if plan["weights"] and unit == 0:
            arrays |= weights.arrays(self.model, cards.heads, **plan["weights"])
        return arrays | self._rows_shown(plan, numbers)

    def _rows_shown(self, plan: Mapping[str, Any], numbers: Sequence[int]) -> dict[str, np.ndarray]:
        """Return the rows of patterns on those prompts of a batch that are shown."""
        arrays = {}
        for number in numbers:
            names = [name for name, prompts in plan["shown"].items() if number in prompts]
            if names:
                rows = scored_rows(self.model, self.sweep.prompts, number, [Head.parse(name) for name in names])
                arrays |= {f"shown_{name}_{number}": row for name, row in zip(names, rows, strict=True)}
        return arrays

    def _of_rows(self, cards: SweepStage, plan: Mapping[str, Any], unit: int, some: range) -> dict[str, np.ndarray]:
        """Compute the share of some of a batch's rows in the lens and the writes."""
        numbers, size, arrays = plan["batches"][unit], plan["chunks"][unit], dict[str, np.ndarray]()
        batch = cards.prompts.take(numbers)
        clean = run_clean(self.model, batch, self.sweep.metrics, some)
        if plan["lens"]:
            arrays["lens"] = plain(clean_lens(self.model, clean, self.sweep.metrics)).transpose(0, 2, 1)
            draws = []
            for draw in range(cards.ablation.draws):
                baseline = cards.ablation.prepare(plan, Share(numbers, some), cards.sites, draw)
                (places,) = positions.turns(cards.positions, model_rows(self.model, batch, some)[0])
                todo = [Intervention(heads, baseline, places) for heads in cards.groups.values()]
                chunks = [todo[start : start + size] for start in range(0, len(todo), size)]
                lenses = [ablated_lens(self.model, clean, each, self.sweep.metrics, cards.check) for each in chunks]
                draws.append(np.concatenate([plain(lens) for lens in lenses], axis=2))
            arrays["lens_ablated"] = np.mean(draws, axis=0).transpose(0, 3, 2, 1)
        if plan["writes"]:
            arrays["writes"] = plain(logit_writes(self.model, clean, cards.heads))
        return arrays

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """Return `account` and `source_direct` (NaN for heads without a card), `lens` and `lens_ablated`, the tokens
        that each head raises and lowers most, `written_token` and `written_logit` [card, side, rank], what the weights
        alone give (`weights`), and the prompts where each head matters most and least, with a row of its pattern:
        `shown_prompt` [card, extreme] and `shown_pattern` [card, extreme, key]."""
        if not units:
            return xr.Dataset()
        cards, cut = self._cards(plan), plan["batches"]
        swept = cards.assemble(plan, units)
        arrays = {name: swept[name] for name in ("account", "source_direct") if plan[name]}
        names = {"metric": [metric.name for metric in self.sweep.metrics], "card": [*cards.groups]}
        if plan["lens"]:
            by_depth = [gathered(cut, [unit[name] for unit in units]) for name in ("lens", "lens_ablated")]
            arrays["lens"] = xr.DataArray(by_depth[0], dims=("metric", "prompt", "depth"))
            arrays["lens_ablated"] = xr.DataArray(by_depth[1], dims=("metric", "prompt", "card", "depth"))
            names["depth"] = np.arange(by_depth[0].shape[-1])
        if plan["writes"]:
            arrays |= self._tokens(np.sum([unit["writes"] for unit in units], axis=0) / sum(map(len, cut)))
        if plan["weights"]:
            arrays |= weights.labelled(self.model, units[0])
        arrays |= self._shown(plan, {name: row for unit in units for name, row in unit.items()})
        reasons = json.dumps(plan["left_out"])
        for array in arrays.values():
            array.attrs["cards_left_out"] = reasons
        return xr.Dataset(arrays, names)

    def _shown(self, plan: Mapping[str, Any], rows: Mapping[str, np.ndarray]) -> dict[str, xr.DataArray]:
        """Return the prompts that are shown of each card (-1: none), and the row of the pattern there."""
        if not plan["shown"]:
            return {}
        n_keys = self.sweep.prompts.token_id.shape[1]
        number = np.full((len(plan["groups"]), len(EXTREMES)), -1)
        pattern = np.zeros((*number.shape, n_keys), dtype=np.float32)
        for at, name in enumerate(plan["groups"]):
            for side, prompt in enumerate(plan["shown"].get(name, ())):
                number[at, side], row = prompt, rows[f"shown_{name}_{prompt}"]
                pattern[at, side, : len(row)] = row
        sides = {"extreme": list(EXTREMES)}
        return {
            "shown_prompt": xr.DataArray(number, sides, ("card", "extreme")),
            "shown_pattern": xr.DataArray(pattern, sides, ("card", "extreme", "key"), attrs={"units": "weight"}),
        }

    def _tokens(self, writes: np.ndarray) -> dict[str, xr.DataArray]:
        """Return the tokens that each head's write raises and lowers most, the most first."""
        order = np.argsort(writes, axis=1)
        chosen = np.stack([order[:, ::-1][:, :_TOKENS], order[:, :_TOKENS]], axis=1)
        token = np.vectorize(self.model.tokens.string, otypes=[str])(chosen)
        logit = np.take_along_axis(writes[:, None], chosen, axis=2)
        dims, sides = ("card", "side", "rank"), {"side": ["raised", "lowered"]}
        return {
            "written_token": xr.DataArray(token, sides, dims),
            "written_logit": xr.DataArray(logit, sides, dims, attrs={"units": "logits"}),
        }


def _refusal(check: Callable[..., None], *about: Any) -> str:
    """Return why a check refuses what it is about; empty where it does not."""
    try:
        check(*about)
    except RequestError as error:
        return str(error)
    return ""


def part(spec: RunSpec, model: Model, prompts: Prompts) -> Part:
    """Return the head cards of a run that sweeps single heads: of the heads that it names, or of the important ones.

    Raises `RequestError` for a request that gives single heads no effect to explain.
    """
    if spec.ablation.positions == "each":
        remedy = "a card explains a head's effect over its positions together; set all, last, target or a list"
        raise RequestError("ablation.positions", "each", remedy)
    if "z" not in spec.ablation.of:
        raise RequestError("ablation.of", ",".join(spec.ablation.of), "a card explains the effect of z; add z")
    if "single" not in spec.sweep.kind:
        kinds = ",".join(spec.sweep.kind)
        raise RequestError("sweep.kind", kinds, f"a card is of a single head; set sweep.kind=[single,{kinds}]")
    return _part(spec, model, prompts, None)


def study_part(spec: RunSpec, model: Model, prompts: Prompts) -> Part:
    """Return the head cards of a study: of the heads with the largest effects each way; none where z has no effects."""
    if "z" not in spec.ablation.of:
        return Part([])
    return _part(spec, model, prompts, EACH_WAY)


def _part(spec: RunSpec, model: Model, prompts: Prompts, each_way: int | None) -> Part:
    swept = sweep.singles(spec, model, prompts)
    heads = () if spec.heads == ("all",) or each_way else tuple(swept.heads)
    return Part([CardStage(swept, spec.stats, heads, each_way)])
