"""Measure any number of interventions on a batch of prompts that is run clean once."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.ablation import Check, Intervention, InterventionFailed
from harness.hooks.fused_attention import fused_attention
from harness.metrics import LOG_PROB, Metric
from harness.models import Model
from harness.models.checks import not_finite
from harness.prompts import Prompts
from harness.sweep import engine, memory
from harness.sweep.account import Accountant, Entry, components
from harness.sweep.direct import direct_effects
from harness.sweep.engine import Clean
from harness.sweep.kv_cache import CachedPrefixes, first_position, shift
from harness.sweep.next_token import NEXT_TOKEN
from harness.sweep.shared_context import SharedContext
from harness.sweep.source_direct import direct_by_source

#: The most interventions in one forward, however short the rows are.
_MOST = 1024


class Batch:
    """The clean run of some prompts, and the metrics under interventions.

    With `some` of the rows, a metric is the share of these rows in each prompt's mean. `positionwise`: the new z at a
    position depends only on that position and the z there. Then a decoder without recurrent mixers starts at the first
    edited position from the clean key–value cache, and the last block runs at scored positions only. With
    `shares_context` the completions of an item share the run of its context. `with_account`: effects are split over
    later components (`account`). If `fused`, the kernel of `harness.hooks.fused_attention` computes attention in what
    runs here, but not in the plain forwards of `spot_check`.
    """

    def __init__(
        self,
        model: Model,
        prompts: Prompts,
        metrics: Sequence[Metric],
        check: Check,
        some: range,
        positionwise: bool,
        shares_context: bool = False,
        with_account: bool = False,
        fused: bool = False,
    ):
        self.model, self.prompts, self.metrics, self.check = model, prompts, metrics, check
        self._some = some
        self.uses_cache = positionwise and model.kind == "decoder" and not hooks.has_mixer(model.bridge)
        self._attention = partial(fused_attention, model.bridge, model.shape.sites) if fused else nullcontext
        self._linear = [at for at, metric in enumerate(metrics) if metric.linear]
        linear = [metrics[at] for at in self._linear]
        with self._attention():
            self.whole = engine.run_clean(model, prompts, metrics, some, narrow=positionwise)
            self._prefixes = CachedPrefixes(model, self.whole)
            self._shared = SharedContext.of(model, prompts, self.whole) if shares_context else None
            self._accountant = Accountant.of(model, self.whole, linear) if with_account else None
        self._clean_values = engine.by_target(model, self.whole, self.whole.end, metrics)

    @property
    def clean(self) -> Float[np.ndarray, "metric prompt"]:
        """Return the metrics without an intervention."""
        return plain(engine.by_prompt(self.whole.targets, self.metrics, self._clean_values))[:, 0]

    def reading(self, prompts: Prompts) -> Float[np.ndarray, "metric prompt"]:
        """Return the metrics, without an intervention, of other texts with the same targets."""
        with self._attention():
            read = engine.run_clean(self.model, prompts, [], self._some, self.whole.narrow)
        return plain(engine.measure(self.model, self.whole, read.end, self.metrics))[:, 0]

    @property
    def choice_log_prob(self) -> Float[np.ndarray, "prompt choice"]:
        """Return the log-probability of each completion without an intervention; NaN where an item has fewer."""
        targets, of = self.whole.targets, self.prompts.choices
        assert of is not None
        values = engine.by_target(self.model, self.whole, self.whole.end, [LOG_PROB])[0, 0]
        by_item = np.full((targets.n_prompts, int(of.number.max()) + 1), np.nan)
        by_item[of.owner, of.number] = plain(targets.sum_by_completion(values))
        return by_item

    def ablated(
        self, todo: Sequence[Intervention], size: int, alike: bool = True, account: np.ndarray | None = None
    ) -> Float[np.ndarray, "metric prompt intervention"]:
        """Measure the metrics under each intervention, `size` of them in one forward, more where rows are shorter.

        Interventions are grouped by their first position (one cached prefix each) and sorted by their first block, so
        that no block runs on rows that are still clean. Unless they are `alike` in all rows, none share a context. The
        accounts of their effects are written into `account` (`new_account`).
        """
        values = np.empty((len(self.metrics), self.whole.targets.n_prompts, len(todo)))
        if self._shared is not None and alike:
            order = sorted(range(len(todo)), key=lambda at: todo[at].first_block(self.model.shape))
            for chunk, measured, _ in self._in_chunks(self._shared.rest, [todo[at] for at in order], size):
                values[:, :, order[chunk]] = measured
            return values
        starts = [first_position([one]) if self.uses_cache else 0 for one in todo]
        for start in sorted(set(starts)):
            with self._attention():
                part, width = self._prefixes.part(start), self.whole.inputs.token_id.shape[1]
            at_once = min(_MOST, size * width // (width - start))
            chosen = [at for at, begins in enumerate(starts) if begins == start]
            chosen.sort(key=lambda at: todo[at].first_block(self.model.shape))
            shifted, accountant = [shift(todo[at], start) for at in chosen], None
            if self._accountant is not None and account is not None:
                accountant = self._accountant.part(part)
            for chunk, measured, accounted in self._in_chunks(part, shifted, at_once, accountant):
                values[:, :, chosen[chunk]] = measured
                if account is not None:
                    account[:, :, chosen[chunk]] = accounted
        return values

    def new_account(self, n: int) -> Float[np.ndarray, "metric prompt intervention component"]:
        """Return an array for the accounts of `n` interventions; NaN for metrics that are not linear in the logits."""
        shape = (len(self.metrics), self.whole.targets.n_prompts, n, len(components(self.model)))
        return np.full(shape, np.nan, dtype=np.float32)

    def direct(self, todo: Sequence[Intervention], size: int) -> Float[np.ndarray, "metric prompt intervention"]:
        """Return the direct effects of each intervention's heads."""
        return plain(direct_effects(self.model, self.whole, todo, self.metrics, size))

    def source_direct(
        self, todo: Sequence[Intervention], n_keys: int
    ) -> Float[np.ndarray, "metric prompt intervention key"]:
        """Return the direct effect of each single head by the key it was read from, 0 in padding up to `n_keys`."""
        return plain(direct_by_source(self.model, self.whole, todo, self.metrics, n_keys))

    def _in_chunks(
        self, part: Clean, todo: Sequence[Intervention], at_once: int, accountant: Accountant | None = None
    ) -> Iterator[tuple[slice, np.ndarray, np.ndarray | None]]:
        """Measure the interventions chunk by chunk, with their accounts if there is an accountant; where memory runs
        out, halve the chunk from there on."""
        first = 0
        while first < len(todo):
            chunk = todo[first : first + at_once]
            entry = None if accountant is None else accountant.entry()
            try:
                end = self._run(part, chunk, entry)
                measured = self._by_prompt(part, end, len(chunk)).transpose(0, 2, 1)
                accounted = None if entry is None else self._accounted(entry, chunk, end, measured)
            except (MemoryError, RuntimeError) as error:
                if len(chunk) == 1 or not memory.is_out_of_memory(error):
                    raise
                self.check.pending.clear()
                at_once = len(chunk) // 2
                continue
            yield slice(first, first + len(chunk)), measured, accounted
            first += len(chunk)

    def _run(self, part: Clean, chunk: Sequence[Intervention], entry: Entry | None) -> Tensor:
        """Run a chunk of interventions; the end of the residual stream at the targets."""
        watch = tuple if entry is None else entry.hooked
        with self._attention():
            if self._shared is not None and part is self._shared.rest:
                return self._shared.run_ablated(list(chunk), self.check)
            return engine.run_ablated(self.model, part, chunk, self.check, watch)

    def _accounted(
        self, entry: Entry, chunk: Sequence[Intervention], end: Tensor, measured: np.ndarray
    ) -> Float[np.ndarray, "metric prompt intervention component"]:
        """Return the accounts of the chunk's effects, NaN for metrics that are not linear in the logits."""
        effect = torch.as_tensor((measured - self.clean[:, :, None])[self._linear].transpose(0, 2, 1))
        account = self.new_account(len(chunk))
        account[self._linear] = plain(entry.components(chunk, end, effect.to(end.device)))
        return account

    def _by_prompt(self, part: Clean, end: Tensor, n: int) -> Float[np.ndarray, "metric intervention prompt"]:
        """Make one number per prompt of each metric; targets before the part keep their clean values."""
        measured = self._clean_values.expand(-1, n, -1).clone()
        if part.read is None:
            measured = engine.by_target(self.model, part, end, self.metrics)
        elif len(part.read):
            measured[:, :, part.read] = engine.by_target(self.model, part, end, self.metrics)
        return plain(engine.by_prompt(self.whole.targets, self.metrics, measured))

    def spot_check(self, one: Intervention, ablated: Float[np.ndarray, "metric prompt"]) -> None:
        """Compare the intervention with a plain hooked forward of the whole model, mean over the targets by prompt.

        Raises `InterventionFailed` if the two differ by more than `engine.tolerance`.
        """
        targets, end = self.whole.targets, engine.run_plainly(self.model, self.whole, one)
        here = plain(targets.mean_by_prompt(targets.share.new_ones(len(targets))))
        off = np.abs(plain(engine.measure(self.model, self.whole, end, self.metrics))[:, 0] - ablated)
        off = off[[metric is not NEXT_TOKEN for metric in self.metrics]]
        largest = float((off[:, here > 0] / here[here > 0]).max())
        if not largest <= engine.tolerance(self.model):
            raise InterventionFailed(
                f"{' '.join(map(str, one.heads))}: the sweep is off a plain hooked forward by {largest:.3g}; "
                f"{self.model.name} cannot be swept faithfully"
            )
        self.check.spot_checks.append(largest)


def plain(values: Tensor) -> np.ndarray:
    """Return the tensor as a float64 array on the CPU."""
    return values.double().cpu().numpy()


def check_finite(
    model: Model, metrics: Sequence[str], prompts: Sequence[int], values: np.ndarray, ablated: Sequence[str] = ()
) -> None:
    """Raise `RequestError` for the first NaN or infinity of [metric, prompt] (clean) or [metric, prompt, intervention].

    The message has the prompt's own number (from `prompts`) and the name of what was ablated (from `ablated`).
    """
    for at in np.argwhere(~np.isfinite(values)):
        metric = metrics[at[0]]
        what = f"{metric} without {ablated[at[2]]}" if len(ablated) else f"the clean {metric}"
        raise not_finite(model, prompts[at[1]], what, values[tuple(at)])
