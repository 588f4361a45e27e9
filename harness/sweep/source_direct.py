"""Direct effects by source: a head's direct effect, split over the tokens that the head read from.

Where z = Σ_k pattern[k] · v[k], and the metric is linear in the logits, zero-ablation's direct effect is a sum over
keys: −pattern[k] · v[k] through W_O, the norms on the way with their scales frozen, and the unembedding (Elhage et al.
2021, "A mathematical framework for transformer circuits"; Wang et al. 2022, arXiv:2211.00593, §3.1). The path from z to
the metric (`linear_path`) is the same for all keys.
"""

from collections.abc import Sequence, Set
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from harness import hooks
from harness.ablation import ZERO, Ablation, Intervention
from harness.config import RequestError
from harness.hooks import Site
from harness.hooks.forward import StopForward, run_until_stop
from harness.metrics import Metric
from harness.models import Model
from harness.prompts import Prompts
from harness.sweep.engine import Clean
from harness.sweep.linear_path import read_at_end, through_output, why_not_linear

_KEY = "sweep.source_direct"


class Mix(NamedTuple):
    """What the heads of one attention mix at the targets: z is their sum over keys."""

    pattern: Float[Tensor, "target head key"]
    value: Float[Tensor, "target key head d_head"]

    @property
    def z(self) -> Float[Tensor, "target head d_head"]:
        return torch.einsum("thk,tkhd->thd", self.pattern, self.value)


def check_sources(
    model: Model, prompts: Prompts, metrics: Sequence[Metric], ablation: Ablation, positions: str | tuple[int, ...]
) -> None:
    """Raise `RequestError` where direct effects are not a sum over the tokens that a head read from."""
    if ablation != ZERO:
        raise RequestError(_KEY, "true", f"only zero-ablation takes away a sum over tokens, not {ablation.name}")
    if positions == "each":
        raise RequestError(_KEY, "true", "at each position in turn there is no direct effect to split; set all")
    if reason := why_not_linear(metrics):
        raise RequestError(_KEY, "true", reason)
    if reason := why_no_sources(model):
        raise RequestError(_KEY, "true", f"{reason}; leave it out")
    if prompts.has_choices:
        raise RequestError(_KEY, "true", f"the completions of {prompts.name} have tokens of their own; leave it out")


def why_no_sources(model: Model) -> str:
    """Describe why this model's direct effects are not a sum over tokens; empty where they are."""
    if model.kind != "decoder":
        return f"it is for decoders, and {model.name} is of kind {model.kind}"
    if not model.traits.write_scale:
        return f"{model.name} has no direct effects: {model.traits.no_direct}"
    if not model.traits.linear_uncapped_logits:
        return f"the logits of {model.name} are not linear in the end of its stream"
    return model.no_mixing


@torch.no_grad()
def direct_by_source(
    model: Model, clean: Clean, todo: Sequence[Intervention], metrics: Sequence[Metric], n_keys: int
) -> Float[Tensor, "metric prompt intervention key"]:
    """Return the direct effect of zero-ablating each single head by the key it was read from; 0 in padding.

    The sum over keys is `harness.sweep.direct.direct_effects`, of a model with a soft cap (Gemma 2) before the cap.
    Metrics that are not linear in the logits are 0.
    """
    linear = [at for at, metric in enumerate(metrics) if metric.linear]
    with hooks.uncapped(model.bridge):
        read = read_at_end(model, clean, [metrics[at] for at in linear])
    effect = read.new_zeros((len(metrics), clean.targets.n_prompts, len(todo), n_keys))
    mixes = _mixes(model, clean, {one.heads[0].site for one in todo})
    for site, mix in mixes.items():
        through = through_output(model, site, mix.z, read)
        by_key = torch.einsum("thk,tkhd,mthd->mhkt", mix.pattern, mix.value, through.to(mix.value))
        for at, one in enumerate(todo):
            if one.heads[0].site == site:
                removed = -by_key[:, one.heads[0].head] * _ablated(clean, one)
                effect[linear, :, at, : removed.shape[1]] = clean.targets.mean_by_prompt(removed).mT
    return effect


def _mixes(model: Model, clean: Clean, sites: Set[Site]) -> dict[Site, Mix]:
    """Record what each attention mixes at the targets, in one clean forward up to the last of them."""
    row, position, shared = clean.targets.row, clean.targets.position, model.shape.n_heads // model.shape.n_kv_heads
    kept: dict[tuple[Site, hooks.Kind], Tensor] = {}

    def keep(site: Site, kind: hooks.Kind, tensor: Tensor, hook: Any) -> None:
        at_targets = tensor[row, :, position] if kind == "pattern" else tensor[row].repeat_interleave(shared, dim=2)
        kept[site, kind] = at_targets.double()
        if len(kept) == 2 * len(sites):
            raise StopForward

    kinds: tuple[hooks.Kind, ...] = ("pattern", "v")
    watches = [(hooks.hook_name(kind, site), partial(keep, site, kind)) for site in sites for kind in kinds]
    with model.bridge.hooks(fwd_hooks=watches):
        run_until_stop(model.forward, clean.inputs, [])
    return {site: Mix(kept[site, "pattern"], kept[site, "v"]) for site in sites}


def _ablated(clean: Clean, one: Intervention) -> Bool[Tensor, " target"]:
    """Return at which targets the intervention replaces z."""
    places = zip(clean.targets.row.tolist(), clean.targets.position.tolist(), strict=True)
    ablated = [one.positions is None or position in one.positions[row] for row, position in places]
    return torch.tensor(ablated, dtype=torch.bool, device=clean.end.device)
