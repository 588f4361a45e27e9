"""Ablate a head's q, k, v or pattern: z becomes what attention makes of the replaced activation.

Heads are independent given their queries, keys and values. So one forward in which all q (or k, or v) of every layer
are replaced, and each layer's z is put back before W_O reads it, gives each head's z for *its* replaced activation, on
the clean stream. Of grouped heads only this query head reads the changed key or value. A sweep then puts that z in,
head by head.

q and k are those after the projection with its bias, before a rotary embedding and before a norm of queries and keys
(Qwen 3, Gemma 3), as at TransformerLens's `hook_q` and `hook_k`. Another text's at the same position is the same before
and after these; a mean or a multiple is not, and such a norm undoes a multiple. Where a norm spans all heads (OLMo 2),
it is that of all heads' replaced queries. Of a pattern z is made by hand, as pattern · v. Source: Heimersheim & Nanda
2024, arXiv:2404.15255; of TransformerLens `get_act_patch_attn_head_all_pos_every`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.ablation.ablation import Ablation
from harness.ablation.clean_z import Captured, capture, in_place
from harness.ablation.edits import Baseline, Edit
from harness.ablation.mean import BY_POSITION
from harness.ablation.positions import Places, turns
from harness.ablation.rows import Share, model_rows
from harness.config import RequestError
from harness.hooks import HeadInput, Input, Site
from harness.hooks.forward import StopForward, run_until_stop
from harness.models import Inputs, Model
from harness.prompts import Prompts

#: An activation in words.
IN_WORDS: dict[str, str] = {"z": "z", "q": "query", "k": "key", "v": "value", "pattern": "pattern"}
_KEY = "ablation.of"
#: How far z may be off, as a share of its largest entry, where all of q, k and v are another text's.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class HeadInputAblation:
    """The ablation `inner` of heads' q, k, v or pattern. `positions` are those of keys, for k and v; else all.

    Queries and patterns are replaced everywhere: a query's position has no part in another's z, so that an intervention
    at some positions takes z from there.
    """

    model: Model
    prompts: Prompts
    inner: Ablation
    of: Input
    positions: str | tuple[int, ...] = "all"

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def draws(self) -> int:
        return self.inner.draws

    @property
    def positionwise(self) -> bool:
        return True

    @property
    def alike_in_rows(self) -> bool:
        return False

    def plan(self) -> dict[str, Any]:
        return self.inner.plan()

    def note(self, plan: Mapping[str, Any]) -> str:
        return re.sub(r"^z\b", f"the {IN_WORDS[self.of]}", self.inner.note(plan))

    def prepare(self, plan: Mapping[str, Any], share: Share, sites: Sequence[Site], draw: int) -> Baseline:
        replaced = {site: site._replace(part=self.of) for site in sites}
        baseline = self.inner.prepare(plan, share, [*replaced.values()], draw)
        rows, _ = model_rows(self.model, self.prompts.take(share.numbers), share.some)
        (places,) = turns(self.positions, rows)
        inputs = rows.inputs(self.model.device)
        values = [site._replace(part="v") for site in sites] if self.of == "pattern" else []
        clean = capture(self.model, inputs, {*sites, *replaced.values(), *values})
        made = {site: _edited(clean[of], of, baseline, places) for site, of in replaced.items()}
        if self.of == "pattern":
            mixed = {site: _mixed(made[site], clean[site._replace(part="v")], clean[site]) for site in sites}
            return in_place(mixed)
        return in_place(z_with(self.model, inputs, {self.of: made}, {site: clean[site] for site in sites}))


def _edited(
    value: Float[Tensor, "row position head d"], site: Site, baseline: Baseline, places: Places | None
) -> Float[Tensor, "row position head d"]:
    """Return an activation with each head's replaced."""
    made = value.clone()
    assert site.part in hooks.INPUTS
    for head in range(value.shape[2]):
        Edit(slice(None), HeadInput(site.layer, head, site.stack, site.part), baseline, places).make(value, made)
    return made


def _mixed(pattern: Tensor, v: Tensor, like: Tensor) -> Float[Tensor, "row position head d_head"]:
    """Return z = pattern · v."""
    return torch.einsum("rqhk,rkhd->rqhd", pattern, v.to(pattern)).to(like)


@torch.no_grad()
def z_with(model: Model, inputs: Inputs, replaced: Mapping[Input, Captured], z: Captured) -> Captured:
    """Return z [row, position, head, d_head] of each site with queries, keys or values [row, position, query head,
    d_head] replaced, on the stream that `z` leaves clean.

    Of a key or value that several query heads share, the first one's replaces it.
    """
    kept = Captured()

    def put(value: Tensor) -> Any:
        return lambda old, hook: value[:, :, :: model.shape.n_heads // old.shape[2]].to(old)

    def keep(site: Site, received: Tensor) -> Tensor:
        kept[site] = received.clone().unflatten(2, (model.shape.n_heads, -1))
        if kept.keys() == z.keys():
            raise StopForward
        return z[site].flatten(2)

    points = [(hooks.hook_name(kind, site), put(new)) for kind, of in replaced.items() for site, new in of.items()]
    with model.bridge.lock, model.bridge.hooks(fwd_hooks=points):
        handles = [
            hooks.output_projection(model.bridge, site).register_forward_pre_hook(
                lambda _, args, site=site: (keep(site, args[0]), *args[1:])
            )
            for site in z
        ]
        run_until_stop(model.forward, inputs, handles)
    return kept


# --- what a model and its prompts must allow --------------------------------------------------------------------------


def build_inputs(
    model: Model,
    prompts: Prompts,
    inner: Ablation,
    of: Sequence[Input],
    positions: str | tuple[int, ...],
    sites: Sequence[Site],
) -> list[HeadInputAblation]:
    """Return the ablations of these activations. Raises `RequestError` where prompts, positions or the model do not
    allow one."""
    if model.no_mixing:  # then heads are not independent given their queries, keys and values
        raise RequestError(_KEY, ",".join(of), f"{model.no_mixing}; set z")
    if "pattern" in of:
        _check_pattern(inner)
    some: list[Input] = [each for each in of if each != "pattern"]
    if some:
        check_follows(model, prompts, some, sites)
    if {"k", "v"} & {*of} and positions != "all" and any(site.stack == "cross" for site in sites):
        shown = positions if isinstance(positions, str) else list(positions)
        remedy = "cross attention's keys are at the source's positions; set heads=[decoder], or leave k and v out"
        raise RequestError("ablation.positions", shown, remedy)
    return [HeadInputAblation(model, prompts, inner, each, positions if each in ("k", "v") else "all") for each in of]


def _check_pattern(inner: Ablation) -> None:
    """Raise `RequestError` where patterns of other texts have other keys."""
    plan = inner.plan()
    if plan.get("means", BY_POSITION) != BY_POSITION:
        remedy = "a mean pattern is by position, of prompts of one length; take such prompts, or leave pattern out"
        raise RequestError(_KEY, "pattern", remedy)
    if any(plan.get("spread", ())):
        remedy = "some prompts have no donor of their own length, whose patterns have other keys; leave pattern out"
        raise RequestError(_KEY, "pattern", remedy)


@torch.no_grad()
def check_follows(model: Model, prompts: Prompts, of: Sequence[Input], sites: Sequence[Site]) -> None:
    """Verify on the first row that z follows replaced queries, keys and values: with all of them another text's, z is
    that text's too. Raises `RequestError` otherwise."""
    rows, _ = model_rows(model, prompts.take([0]), range(1))
    inputs = rows.inputs(model.device)
    other = replace(inputs, token_id=_shifted(model, inputs.token_id))
    if inputs.source_id is not None:
        other = replace(other, source_id=_shifted(model, inputs.source_id))
    parts: tuple[Input, ...] = ("q", "k", "v")
    captured = capture(model, other, [*sites, *(site._replace(part=part) for site in sites for part in parts)])
    replaced: dict[Input, Captured] = {
        part: {site: captured[site._replace(part=part)] for site in sites} for part in parts
    }
    made = z_with(model, inputs, replaced, capture(model, inputs, sites))
    allowed = max(_TOLERANCE, 16 * torch.finfo(getattr(torch, model.spec.dtype)).eps)
    for site, z in made.items():
        off = (z.double() - captured[site].double()).abs().max()
        if not off <= allowed * captured[site].double().abs().max().clamp(min=1e-6):
            remedy = f"in {site} of {model.name} z does not follow edited queries, keys and values; leave them out"
            raise RequestError(_KEY, ",".join(of), remedy)


def _shifted(model: Model, token_id: Tensor) -> Tensor:
    """Return other tokens in the same places."""
    return (token_id + 1) % model.shape.d_vocab
