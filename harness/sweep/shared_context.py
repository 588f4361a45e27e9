"""Run the context of an item once for all of its completions, in each ablation.

The completions of an item follow the same tokens. So an ablation runs on the contexts first, keeping their keys and
values, and then on the completions, which read these. Both grow in the same order: in each block the copies of the
contexts are those of the interventions that have begun.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from harness import hooks
from harness.ablation import Ablation, Check, Intervention
from harness.models import Inputs, Model
from harness.prompts import Prompts
from harness.prompts.batching import first_scored
from harness.sweep import engine
from harness.sweep.engine import Clean, Resid
from harness.sweep.kv_cache import shift


def shares_context(model: Model, prompts: Prompts, ablation: Ablation, positions: Any) -> bool:
    """Whether an item's completions can share one run of its context.

    They can in a decoder without recurrent mixers, if z is replaced at all positions and in all rows alike.
    """
    causal = model.kind == "decoder" and not hooks.has_mixer(model.bridge)
    return prompts.has_choices and causal and positions == "all" and ablation.alike_in_rows


@dataclass(frozen=True)
class SharedContext:
    """The clean runs of some items' contexts (of one length) and of what follows: the last token of each context and
    the completion, up to the last token from which one is predicted. `owner` is the context of each row of the latter.
    """

    model: Model
    context: Clean
    rest: Clean
    owner: Int[Tensor, " row"]
    keys: Cache

    @classmethod
    @torch.no_grad()
    def of(cls, model: Model, prompts: Prompts, whole: Clean) -> "SharedContext | None":
        """Run the contexts and the completions of a batch, of which `whole` is the clean run; None for contexts of one
        token or of different lengths."""
        lengths = first_scored(prompts)
        start = int(lengths[0])
        if not start or (lengths != start).any() or prompts.choices is None:
            return None
        owner = torch.as_tensor(prompts.choices.owner, device=model.device)
        first = torch.searchsorted(owner, torch.arange(len(prompts), device=model.device))
        inputs, keys = whole.inputs, Cache(layer_class_to_replicate=DynamicLayer)
        before = Inputs(inputs.token_id[first, :start], inputs.mask[first, :start], past=keys)
        context = engine.clean_run(model, before, whole.targets.take(slice(0)), narrow=False)
        # A completion's last token predicts nothing that is scored. Without it, completions that differ only there are
        # one row: of completions of one token, the context's last token is all that runs.
        end = int(whole.targets.position.max()) + 1
        after = [owner[:, None], inputs.token_id[:, start:end], inputs.mask[:, start:end]]
        _, kept, one = np.unique(torch.cat(after, dim=1).cpu().numpy(), axis=0, return_index=True, return_inverse=True)
        owner = owner[kept]
        after = Inputs(inputs.token_id[kept, start:end], inputs.mask[kept, :end], past=_read(keys, keys, owner))
        row = torch.as_tensor(one, device=model.device)[whole.targets.row]
        targets = replace(whole.targets, row=row, position=whole.targets.position - start)
        rest = replace(engine.clean_run(model, after, targets, whole.narrow), logits=whole.logits)
        return cls(model, context, rest, owner, keys)

    @torch.no_grad()
    def run_ablated(self, chunk: list[Intervention], check: Check) -> Resid:
        """Run a chunk of interventions (`engine.run_ablated`), in order of their first block."""
        keys = Cache(layer_class_to_replicate=DynamicLayer)
        engine.run_ablated(self.model, _reading(self.context, keys), chunk, check)
        start = self.context.inputs.token_id.shape[1]
        rest = _reading(self.rest, _read(keys, self.keys, self.owner))
        return engine.run_ablated(self.model, rest, [shift(one, start) for one in chunk], check)


def _reading(clean: Clean, past: Cache) -> Clean:
    return replace(clean, inputs=replace(clean.inputs, past=past))


def _read(keys: Cache, clean: Cache, owner: Int[Tensor, " row"]) -> Cache:
    """Return the keys and values of contexts as the cache of the rows that follow; those of a block that did not run
    are the clean ones."""
    ran = {at: layer for at, layer in enumerate(keys.layers) if getattr(layer, "is_initialized", False)}
    return Cache(layers=[_Context(ran.get(at, layer), owner) for at, layer in enumerate(clean.layers)])


class _Context(DynamicLayer):
    """The keys and values of contexts, each read by the rows that it owns, in as many copies as there are."""

    def __init__(self, contexts: Any, owner: Int[Tensor, " row"]):
        super().__init__()
        self.keys, self.values = contexts.keys, contexts.values
        self.owner, self.is_initialized = owner, True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return self._after(self.keys, key_states), self._after(self.values, value_states)

    def _after(self, before: Any, states: Tensor) -> Tensor:
        copies = len(states) // len(self.owner)
        each = before.unflatten(0, (copies, -1))[:, self.owner].flatten(0, 1)
        return torch.cat([each, states], dim=-2)
