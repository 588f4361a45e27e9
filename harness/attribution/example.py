"""An example: one prompt and the predictions in it that are to be explained.

A prompt is run alone, without padding; the rows that go through the model together are changed copies of it. All
methods and causes score its *nodes*, the tokens of the source (if there is one) and then its own, and explain the same
number for each target: the loss at it (nats), or for a model that gives one vector per text, how far the vector moves.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from harness import hooks
from harness.ablation import model_rows
from harness.ablation.rows import CHUNK_TOKENS
from harness.attribution.token_graph import Nodes
from harness.hooks.forward import StopForward, run_until_stop
from harness.metrics import METRICS, Metric
from harness.models import Inputs, Model
from harness.models.pooling import pooled, shares
from harness.prompts import Prompts
from harness.sweep import engine
from harness.sweep.blocks import first_of


@dataclass(frozen=True)
class Example:
    """One prompt, the rows that the model runs on for it, and their clean run.

    A masked LM has one row for each target, which is masked in it; all others have one row in all.
    """

    model: Model
    prompt: Prompts
    rows: Prompts
    clean: engine.Clean

    @property
    def nodes(self) -> Nodes:
        source = 0 if self.prompt.source is None else int(self.prompt.source.length[0])
        return Nodes(source, int(self.prompt.length[0]))

    @property
    def row(self) -> Int[np.ndarray, " target"]:
        """The row of each target."""
        return self.clean.targets.row.cpu().numpy()

    @property
    def position(self) -> Int[np.ndarray, " target"]:
        """The position of each target in its row; 0 for the vector of a text."""
        return self.clean.targets.position.cpu().numpy()

    @property
    def n_targets(self) -> int:
        return len(self.clean.targets)

    @property
    def metric(self) -> Metric:
        """The metric that is explained."""
        return _explained(self.model)

    @property
    def causal(self) -> bool:
        """Whether a target depends only on the tokens up to its position."""
        return self.model.kind in ("decoder", "encoder_decoder")

    @property
    def visible(self) -> Bool[np.ndarray, "target node"]:
        """The tokens that a target can depend on: all, or without those after it in a causal model."""
        visible = np.ones((self.n_targets, len(self.nodes)), dtype=bool)
        if self.causal:
            visible[:, self.nodes.source :] = np.arange(self.nodes.written) <= self.position[:, None]
        return visible

    @property
    def own(self) -> Int[np.ndarray, " target"]:
        """The node at which each target is predicted; −1 for the vector of a text, which pools all of them."""
        if self.model.kind == "embedding":
            return np.full(self.n_targets, -1)
        return self.nodes.source + self.position

    @property
    def vector_share(self) -> Float[np.ndarray, "row position"]:
        """The share of each token in the pooled vector of a text."""
        hidden = first_of(self.clean.outputs[-1])
        return shares(hidden, self.clean.inputs.mask.bool(), self.model.pooling).cpu().numpy()

    def of_target(self, target: int) -> "Example":
        """Return the same example with one of its targets."""
        clean, one = self.clean, slice(target, target + 1)
        logits = None if clean.logits is None else clean.logits[one]
        return replace(self, clean=replace(clean, targets=clean.targets.take(one), end=clean.end[one], logits=logits))

    def at_once(self) -> int:
        """Return how many copies of the rows go through the model together."""
        return max(1, CHUNK_TOKENS // (len(self.rows) * len(self.nodes)))


def example_of(model: Model, prompt: Prompts) -> Example:
    """Run one prompt (a batch of one) clean and return it as an example; of a choice, with the right completion."""
    prompt = replace(prompt, choices=None)
    rows, _ = model_rows(model, prompt)
    return Example(model, prompt, rows, engine.run_clean(model, prompt, [_explained(model)]))


def _explained(model: Model) -> Metric:
    """Return the metric whose value at a target is attributed to tokens."""
    return METRICS["embedding" if model.kind == "embedding" else "loss"]


def limit_targets(prompts: Prompts, at_most: int) -> Prompts:
    """Return the prompts with at most so many scored positions each: evenly spread, the last among them."""
    correct = prompts.correct.copy()
    for row in correct:
        scored = np.flatnonzero(row >= 0)
        if len(scored) > at_most:
            chosen = scored[np.rint(np.linspace(-1, len(scored) - 1, at_most + 1)[1:]).astype(int)]
            row[np.setdiff1d(scored, chosen)] = -1
    return replace(prompts, correct=correct)


def ends(
    example: Example,
    inputs: Inputs,
    position: Int[np.ndarray, "copy target"],
    row: Int[np.ndarray, " target"] | None = None,
) -> Float[Tensor, "read d_model"]:
    """Return the end of the residual stream at the targets of copies of the rows, copy by copy, target by target.

    `position` is where each target is in each copy, `row` in which of a copy's rows (by default as in the example).
    Gradients flow if they are on.
    """
    outputs: list[Tensor] = []

    def leave(_: Any, args: tuple, output: Any) -> None:
        outputs.append(first_of(output))
        raise StopForward

    last = hooks.blocks(example.model.bridge)[-1]
    run_until_stop(example.model.forward, inputs, [last.register_forward_hook(leave)])
    hidden = outputs[0].unflatten(0, (len(position), -1))
    if example.model.kind == "embedding":  # a prompt runs alone: no row has padding, whatever its mask
        everything = hidden.new_ones(hidden.shape[1:3], dtype=torch.bool)
        return pooled(hidden, everything, example.model.pooling).flatten(0, 1)
    copy = torch.arange(len(position), device=hidden.device)[:, None]
    at = torch.as_tensor(position, device=hidden.device)
    which = torch.as_tensor(example.row if row is None else row, device=hidden.device)
    return hidden[copy, which, at].flatten(0, 1)


def values(example: Example, end: Float[Tensor, "read d_model"]) -> Float[Tensor, " read"]:
    """Compute the explained number, one for each end of the stream: `loss` or `embedding` (cosine distance)."""
    chunks = []
    for at, logits in engine.logits_of(example.model, example.clean, end):
        which = torch.arange(at.start, at.stop, device=end.device) % example.n_targets
        clean = None if example.clean.logits is None else example.clean.logits[which]
        chunks.append(example.metric.compute(example.clean.targets.read(which, logits, clean)))
    return torch.cat(chunks)


@torch.no_grad()
def clean_values(example: Example) -> Float[np.ndarray, " target"]:
    """Compute the explained number of the clean run."""
    return values(example, example.clean.end).double().cpu().numpy()
