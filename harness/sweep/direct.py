"""Direct effects: the part of a head's effect that passes through no later layer (direct logit attribution).

The logits are computed from the clean residual stream with only the head's own write changed, and with the norms on the
way (the final one, and Gemma's after W_O) frozen at their clean scale, so that heads' writes add up (Elhage et al.
2021, "A mathematical framework for transformer circuits"; Wang et al. 2022, arXiv:2211.00593, §3.1). One clean forward
serves all heads.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.ablation import Intervention, by_site, capture
from harness.ablation.clean_z import Captured
from harness.ablation.edits import Edit
from harness.hooks import Head, Site
from harness.hooks.forward import removing
from harness.hooks.frozen_norm import FrozenNorm
from harness.metrics import Metric
from harness.models import Model
from harness.sweep.engine import Clean, Resid, measure


def has_direct(model: Model, heads: Sequence[Any]) -> bool:
    """Whether these heads have direct effects: they write to the final residual stream at a known scale.

    In a post-norm model (BERT) every later layer rescales the stream, so there are none; `Traits.no_direct` says why.
    """
    return bool(model.traits.write_scale) and any(_writes(head) for head in heads)


def _writes(part: Any) -> bool:
    return isinstance(part, Head) and part.stack != "encoder"


@torch.no_grad()
def direct_effects(
    model: Model, clean: Clean, todo: Sequence[Intervention], metrics: Sequence[Metric], at_once: int
) -> Float[Tensor, "metric prompt intervention"]:
    """Return metric(the head's own write ablated, all else clean) − metric(clean).

    NaN for heads of an encoder, which do not write to the decoder's stream. `at_once` interventions go through the
    unembedding together.
    """
    writing = [at for at, one in enumerate(todo) if any(_writes(head) for head in one.heads)]
    changes = change_of_writes(model, clean, [todo[at] for at in writing])
    with frozen_final_norm(model, clean):  # through the same frozen norm, so that an unchanged write gives exactly 0
        unchanged = measure(model, clean, clean.end, metrics)
    effect = unchanged.new_full((len(metrics), clean.targets.n_prompts, len(todo)), torch.nan)
    for start in range(0, len(writing), at_once):
        chosen, moved = writing[start : start + at_once], changes[start : start + at_once]
        with frozen_final_norm(model, clean):
            values = measure(model, clean, (clean.end + moved).flatten(0, 1), metrics)
        effect[:, :, chosen] = (values - unchanged).transpose(1, 2)
    return effect


def change_of_writes(
    model: Model, clean: Clean, todo: Sequence[Intervention]
) -> Float[Tensor, "intervention target d_model"]:
    """Return the change of what each intervention's heads write to the stream at the targets, all else clean; norms
    after W_O have their clean scale."""
    captured = capture(model, clean.inputs, {head.site for one in todo for head in one.heads if _writes(head)})
    written = [_written(model, clean, captured, one) for one in todo]
    return torch.stack(written) if written else clean.end.new_empty(0, *clean.end.shape)


def _written(model: Model, clean: Clean, captured: Captured, one: Intervention) -> Resid:
    """Return the change of what an intervention's heads write to the stream at the targets."""
    moved = torch.zeros_like(clean.end)
    for site, edits in by_site(edit for edit in one.edits(slice(None)) if _writes(edit.head)).items():
        moved += _write_of(model, clean, captured[site], site, edits)
    return moved


def _write_of(model: Model, clean: Clean, z: Tensor, site: Site, edits: Sequence[Edit]) -> Resid:
    """Return the change of one attention's write, from its clean z."""
    edited = z.clone()
    for edit in edits:
        edit.make(z, edited)
    row, position = clean.targets.row, clean.targets.position
    before, after = (each[row, position].flatten(1)[None] for each in (z, edited))
    # Its forward, past the hooks of an ablation in force: this is the map alone, not a run of the model.
    write, norm = hooks.output_projection(model.bridge, site).forward, hooks.norm_of_write(model.bridge, site)
    scale = model.traits.write_scale[site]
    if norm is None:
        moved = (write(after - before) - write(torch.zeros_like(before)))[0]
        return moved if scale == 1 else scale * moved
    frozen = FrozenNorm(norm, write(before))
    return scale * (frozen(write(after)) - frozen(write(before)))[0]


def frozen_final_norm(model: Model, clean: Clean) -> AbstractContextManager[None]:
    """Within this context, the final norm scales each row by the clean scale of its target.

    Rows come in the order of the targets, which repeats for each intervention.
    """
    final, seen = hooks.final_norm(model.bridge), 0

    def freeze(_: Any, args: tuple[Any, ...], out: Tensor) -> Tensor:
        nonlocal seen
        resid = args[0]  # [row, 1, d_model]
        rows = torch.arange(seen, seen + len(resid), device=out.device) % len(clean.end)
        seen += len(resid)
        return FrozenNorm(final.original_component, clean.end[rows][:, None])(resid)

    return removing([final.register_forward_hook(freeze)])
