"""How fast a sweep is, beside what it replaces: a loop of whole hooked TransformerLens forwards, alternating in one
process.

The loop computes the effects that the sweep computes, one head after the other, on the same batches: logits of every
position, and the metric from them. (The sweep verifies every edit and measures direct effects besides.) Times are
medians over rounds with their range; ratios are taken round by round, so that what disturbs the machine disturbs both
sides. The floor is the time that the multiply-adds alone would take, at the rate that this machine reaches on matrix
products of the model's own shape.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness import ablation, hooks
from harness.config import BenchmarkSpec, RequestError
from harness.hooks import Head
from harness.metrics import METRICS, Targets
from harness.models import Model, load_model
from harness.prompts import Prompts, batches, load_prompts
from harness.results import manifest
from harness.sweep import SweepStage, groups

Effects = np.ndarray


@dataclass(frozen=True)
class Side:
    """One way to sweep: seconds of each round, its time as a share of the loop's round by round, and how far its
    effects are from the loop's."""

    name: str
    seconds: tuple[float, ...]
    ratio: tuple[float, ...]
    error: float
    peak_gb: float

    def row(self, work: "Work", floor: float) -> str:
        time_, speed = statistics.median(self.seconds), statistics.median(self.ratio)
        rate = work.tokens * work.n_heads / time_
        return (
            f"{self.name:<24} {time_:8.1f} s ({min(self.seconds):.1f}–{max(self.seconds):.1f})  {speed:5.2f}× "
            f"({min(self.ratio):.2f}–{max(self.ratio):.2f})  {rate:10.0f} tokens × heads/s  "
            f"{time_ / floor:5.2f} × floor  off {self.error:.1e}  {self.peak_gb:.1f} GB"
        )


@dataclass(frozen=True)
class Work:
    """What all sides do: heads ablated on prompts, by a metric."""

    model: Model
    prompts: Prompts
    metric: str
    heads: tuple[Head, ...]
    positions: str

    @property
    def tokens(self) -> int:
        return int(self.prompts.length.sum())

    @property
    def n_heads(self) -> int:
        return len(self.heads)


def benchmark(spec: BenchmarkSpec, say: Callable[[str], None]) -> dict[str, Any]:
    """Every side of every round, as plain values; `say` is told a line for each side when all rounds are done."""
    model = load_model(spec.model)
    if model.kind != "decoder":
        raise RequestError("model", model.name, "the loops are those of a decoder; benchmark one of those")
    prompts = load_prompts(spec.prompts, model)
    work = Work(model, prompts, spec.metric, model.heads()[:: spec.every], spec.positions)
    sides = {"transformer_lens loop": lens_loop, "sweep, exact": sweep}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    effects: dict[str, Effects] = {}
    peaks: dict[str, float] = {}
    for _ in range(spec.rounds):
        for name, run in sides.items():
            started = time.perf_counter()
            effects[name] = run(work)
            seconds[name].append(time.perf_counter() - started)
            peaks[name] = manifest.peak_memory_gb()
    floor, first = _floor(work), "transformer_lens loop"
    made = [
        Side(
            name,
            tuple(took),
            tuple(loop / mine for loop, mine in zip(seconds[first], took, strict=True)),
            float(np.abs(effects[name] - effects[first]).max()),
            peaks[name],
        )
        for name, took in seconds.items()
    ]
    for side in made:
        say(side.row(work, floor))
    shape = {"model": model.name, "prompts": len(prompts), "tokens": work.tokens, "heads": work.n_heads}
    return {
        **shape,
        "metric": work.metric,
        "positions": work.positions,
        "threads": torch.get_num_threads(),
        "device": model.device,
        "floor_seconds": floor,
        **manifest.environment(),
        "sides": [asdict(side) for side in made],
    }


# --- the sides --------------------------------------------------------------------------------------------------


def sweep(work: Work) -> Effects:
    """The harness."""
    made, positions = ablation.build({"name": "zero", "positions": work.positions}, work.model, work.prompts)
    chosen = groups(work.model, list(work.heads))
    stage = SweepStage(work.model, work.prompts, chosen, (work.metric,), made, positions)
    plan = stage.plan()
    data = stage.assemble(plan, [stage.compute(plan, unit) for unit in range(len(plan["batches"]))])
    effect = data["effect"].values[0]
    return np.stack([effect[:, head.layer, head.head] for head in work.heads], axis=1)


@torch.no_grad()
def lens_loop(work: Work) -> Effects:
    """A clean forward of each batch, and a whole hooked TransformerLens forward for each head."""
    found = np.empty((len(work.prompts), work.n_heads))
    for numbers in batches(work.prompts):
        batch = work.prompts.take(numbers)
        given = batch.inputs(work.model.device)
        targets = Targets.of(batch, np.arange(len(batch)), work.model.device)
        clean = _measured(work, targets, work.model.forward(given))
        for at, head in enumerate(work.heads):
            zero = [(hooks.hook_name("z", head.site), _zeroing(work, batch, head))]
            with work.model.bridge.hooks(fwd_hooks=zero):
                logits = work.model.forward(given)
            found[numbers, at] = (_measured(work, targets, logits) - clean).cpu().numpy()
    return found


def _zeroing(work: Work, batch: Prompts, head: Head) -> Callable[[Tensor, Any], Tensor]:
    """A hook that zeroes the head, everywhere or at each prompt's last position."""
    rows, last = torch.arange(len(batch)), torch.as_tensor(batch.length - 1)

    def zeroed(z: Tensor, hook: Any) -> Tensor:
        edited = z.clone()
        if work.positions == "all":
            edited[:, :, head.head] = 0
        else:
            edited[rows, last, head.head] = 0
        return edited

    return zeroed


def _measured(work: Work, targets: Targets, logits: Tensor) -> Tensor:
    """The metric of each prompt, from the logits of all positions."""
    read = targets.read(slice(None), logits[targets.row, targets.position], None)
    return targets.mean_by_prompt(METRICS[work.metric].compute(read)[None])[0]


# --- the floor --------------------------------------------------------------------------------------------------


def _floor(work: Work) -> float:
    """Seconds that the multiply-adds of an exact sweep take at the rate of this machine's matrix products.

    Counted are the matrices of the blocks that follow each head, on the tokens that can change, and the unembedding at
    the scored positions; not counted are the products of queries and keys and everything that is no matrix product.
    """
    shape, plain = work.model.shape, hooks.plain_model(work.model.bridge)
    inside = sum(parameter.numel() for parameter in plain.base_model.parameters() if parameter.ndim == 2)
    embeddings = sum(module.weight.numel() for module in plain.modules() if isinstance(module, torch.nn.Embedding))
    per_block = (inside - embeddings) / shape.n_layers
    changed = work.tokens if work.positions == "all" else len(work.prompts)
    blocks = sum(shape.n_layers - head.layer for head in work.heads) * changed * per_block
    read = work.n_heads * int(work.prompts.target.sum()) * shape.d_model * shape.d_vocab
    return (blocks + read) / _rate(shape.d_model, work.model.device)


def _rate(width: int, device: str) -> float:
    """Multiply-adds per second of a matrix product of the model's shape, the best of a few."""
    a, b = torch.randn(4096, width, device=device), torch.randn(width, 4 * width, device=device)
    best = 0.0
    for _ in range(8):
        started = time.perf_counter()
        torch.mm(a, b)
        if device != "cpu":
            torch.cuda.synchronize()
        best = max(best, 4096 * width * 4 * width / (time.perf_counter() - started))
    return best
