"""A batch of prompts, run clean once, on which any number of interventions is measured."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.ablation import Check, Intervention, InterventionFailed
from harness.metrics import Metric
from harness.models import Model
from harness.models.checks import not_finite
from harness.prompts import Prompts
from harness.sweep import engine, memory
from harness.sweep.direct import direct_effects
from harness.sweep.engine import Clean
from harness.sweep.kv_cache import CachedPrefixes, first_place, from_there

#: Interventions in one forward, at most, however short the rows are.
_MOST = 1024


class Batch:
    """The clean run of some prompts, its metrics, and what interventions make of them.

    Of `some` of the rows, the metrics are what these give to each prompt's mean. Where it is `positionwise`, what
    z becomes at a position depends on nothing but the position and z there. Then a decoder's rows begin at the first
    position that is changed (if all that it knows of earlier ones is keys and values), and the last block runs where
    it is read.
    """

    def __init__(
        self,
        model: Model,
        prompts: Prompts,
        metrics: Sequence[Metric],
        check: Check,
        some: range,
        positionwise: bool,
    ):
        self.model, self.metrics, self.check = model, metrics, check
        self.late = positionwise and model.kind == "decoder" and not hooks.has_mixer(model.bridge)
        self.whole = engine.run_clean(model, prompts, metrics, some, narrow=positionwise)
        self._suffixes = CachedPrefixes(model, self.whole)
        self._unharmed = engine.by_target(model, self.whole, self.whole.end, metrics)

    @property
    def clean(self) -> Float[np.ndarray, "metric prompt"]:
        """The metrics without an intervention."""
        return plain(self.whole.targets.mean_by_prompt(self._unharmed))[:, 0]

    def ablated(self, todo: Sequence[Intervention], size: int) -> Float[np.ndarray, "metric prompt intervention"]:
        """The metrics under each intervention, `size` of them in one forward, more where the rows are shorter."""
        values = np.empty((len(self.metrics), self.whole.targets.n_prompts, len(todo)))
        starts = [first_place([one]) if self.late else 0 for one in todo]
        for start in sorted(set(starts)):
            part, width = self._suffixes.part(start), self.whole.given.token_id.shape[1]
            at_once = min(_MOST, size * width // (width - start))
            chosen = [at for at, begins in enumerate(starts) if begins == start]
            chosen.sort(key=lambda at: todo[at].first_block(self.model.shape))
            for chunk, measured in self._in_chunks(part, [from_there(todo[at], start) for at in chosen], at_once):
                values[:, :, chosen[chunk]] = measured
        return values

    def direct(self, todo: Sequence[Intervention], size: int) -> Float[np.ndarray, "metric prompt intervention"]:
        """What the heads of each intervention write straight to the metrics."""
        return plain(direct_effects(self.model, self.whole, todo, self.metrics, size))

    def _in_chunks(self, part: Clean, todo: Sequence[Intervention], at_once: int) -> Iterator[tuple[slice, np.ndarray]]:
        """The metrics of some interventions after others; where memory runs out, of half as many from there on."""
        first = 0
        while first < len(todo):
            chunk = todo[first : first + at_once]
            try:
                end = engine.run_ablated(self.model, part, chunk, self.check)
                measured = self._by_prompt(part, end, len(chunk)).transpose(0, 2, 1)
            except (MemoryError, RuntimeError) as error:
                if len(chunk) == 1 or not memory.ran_out(error):
                    raise
                self.check.pending.clear()
                at_once = len(chunk) // 2
                continue
            yield slice(first, first + len(chunk)), measured
            first += len(chunk)

    def _by_prompt(self, part: Clean, end: Tensor, n: int) -> Float[np.ndarray, "metric intervention prompt"]:
        """The metrics from the ends of the residual stream, the mean over each prompt's targets; those before the part
        are as they were."""
        measured = self._unharmed.expand(-1, n, -1).clone()
        if part.read is None:
            measured = engine.by_target(self.model, part, end, self.metrics)
        elif len(part.read):
            measured[:, :, part.read] = engine.by_target(self.model, part, end, self.metrics)
        return plain(self.whole.targets.mean_by_prompt(measured))

    def spot_check(self, one: Intervention, ablated: Float[np.ndarray, "metric prompt"]) -> None:
        """The intervention again the plain way, by a whole hooked forward, which must agree: the mean over the targets
        that are here, by prompt."""
        targets, end = self.whole.targets, engine.run_plainly(self.model, self.whole, one)
        here = plain(torch.bincount(targets.prompt, minlength=targets.n_prompts) / targets.count)
        off = np.abs(plain(engine.measure(self.model, self.whole, end, self.metrics))[:, 0] - ablated)
        largest = float((off[:, here > 0] / here[here > 0]).max())
        if not largest <= engine.tolerance(self.model):
            raise InterventionFailed(
                f"{' '.join(map(str, one.heads))}: the sweep is off a plain hooked forward by {largest:.3g}; "
                f"{self.model.name} cannot be swept faithfully"
            )
        self.check.spot_checks.append(largest)


def plain(values: Tensor) -> np.ndarray:
    """As numbers of this machine's memory, in double precision."""
    return values.double().cpu().numpy()


def check_finite(
    model: Model, metrics: Sequence[str], prompts: Sequence[int], values: np.ndarray, ablated: Sequence[str] = ()
) -> None:
    """Raises `RequestError` for the first of these values [metric, prompt] (clean) or [metric, prompt, intervention]
    that is no number, with the prompt's own number and the name of what was ablated."""
    for at in np.argwhere(~np.isfinite(values)):
        metric = metrics[at[0]]
        what = f"{metric} without {ablated[at[2]]}" if len(ablated) else f"the clean {metric}"
        raise not_finite(model, prompts[at[1]], what, values[tuple(at)])
