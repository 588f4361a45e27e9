"""The account of an effect: what each later head and MLP adds to a head's direct effect, or takes back.

With the final norm frozen at its clean scale, a metric that is linear in the logits is a sum over what attentions and
MLPs write to the residual stream (Elhage et al. 2021; Wang et al. 2022, arXiv:2211.00593, §3.1). So the effect of an
ablation is the direct effect plus the change of each later component's write, plus what is not linear: the change of a
norm's scale and a soft cap. Components that work against the direct effect are its self-repair (McGrath et al. 2023,
arXiv:2307.15771; Rushing & Nanda 2024, arXiv:2402.15390).

The changes are read in the forward that measures the effect: the stream as it enters each block, and z at each W_O.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.ablation import Intervention, capture
from harness.config import RequestError
from harness.hooks import Head, Site
from harness.hooks.block_stream import hidden_of, watch_input
from harness.metrics import Metric
from harness.models import Model
from harness.prompts import Prompts
from harness.sweep.blocks import stream_blocks
from harness.sweep.engine import Clean, Resid, by_target
from harness.sweep.linear_path import read_at_end, through_output, why_not_linear

_KEY = "sweep.account"
#: The components that are no head and no MLP.
DIRECT, FINAL_NORM, SOFT_CAP = "direct", "norm:final", "softcap"

#: One number for each linear metric, intervention and prompt.
ByCopy = Float[Tensor, "metric copy prompt"]


def check_account(model: Model, prompts: Prompts, metrics: Sequence[Metric], positions: str | tuple[int, ...]) -> None:
    """Raise `RequestError` where an effect is not a sum over components."""
    if reason := why_no_account(model):
        raise RequestError(_KEY, "true", f"{reason}; leave it out")
    if reason := why_not_linear(metrics):
        raise RequestError(_KEY, "true", reason)
    if positions == "each":
        raise RequestError(_KEY, "true", "at each position in turn effects have no account; set ablation.positions=all")
    if prompts.has_choices:
        raise RequestError(_KEY, "true", f"the completions of {prompts.name} have tokens of their own; leave it out")


def why_no_account(model: Model) -> str:
    """Describe why this model's effects are not a sum over components; empty where they are."""
    if model.kind not in ("decoder", "encoder_decoder"):
        return f"it is for decoders and encoder-decoders, and {model.name} is of kind {model.kind}"
    if not model.traits.write_scale:
        return f"the writes of {model.name} do not sum to its logits: {model.traits.no_direct}"
    if not model.traits.linear_uncapped_logits:
        return f"the logits of {model.name} are not linear in the end of its stream"
    return ""


def components(model: Model) -> list[str]:
    """Return the names of the components: ``direct``, each head, each MLP, and what is not linear.

    ``norm:L5`` is the change of scale of a norm after W_O (Gemma 2), ``norm:final`` of the final norm.
    """
    sites = [*model.traits.write_scale]
    heads = [str(Head(site.layer, head, site.stack)) for site in sites for head in range(model.shape.n_heads)]
    norms = [f"norm:{site}" for site in sites if hooks.norm_of_write(model.bridge, site) is not None]
    capped = [] if model.traits.linear_logits else [SOFT_CAP]
    return [DIRECT, *heads, *(_rest_name(model, at) for at in stream_blocks(model)), *norms, FINAL_NORM, *capped]


def _rest_name(model: Model, block: int) -> str:
    """Name what a block writes beside its attentions: its MLP; with a recurrent mixer beside it, the rest."""
    stack = "decoder" if model.shape.n_encoder_layers else ""
    name = str(Site(block - model.shape.n_encoder_layers, stack, "mlp"))
    return name.replace(".mlp", ".rest") if hooks.has_mixer(model.bridge) else name


@dataclass(frozen=True)
class Accountant:
    """The clean values of some targets that an account compares with, and each metric's derivative by them.

    `entered` is the stream as it enters each block, `z` the input of each W_O, `read` the derivative by the stream and
    `through` by z.
    """

    model: Model
    clean: Clean
    metrics: Sequence[Metric]
    read: Float[Tensor, "metric target d_model"]
    entered: Mapping[int, Float[Tensor, "target d_model"]]
    z: Mapping[Site, Float[Tensor, "target head d_head"]]
    through: Mapping[Site, Float[Tensor, "metric target head d_head"]]

    @classmethod
    def of(cls, model: Model, clean: Clean, metrics: Sequence[Metric]) -> "Accountant":
        """Read the clean values of a batch; `metrics` are linear ones."""
        row, position = clean.targets.row, clean.targets.position
        with hooks.uncapped(model.bridge):
            read = read_at_end(model, clean, metrics)
        captured = capture(model, clean.inputs, model.traits.write_scale)
        z = {site: captured[site][row, position] for site in model.traits.write_scale}
        through = {site: through_output(model, site, z[site], read) for site in z}
        entered = {at: hidden_of(*clean.entered[at])[row, position] for at in stream_blocks(model)}
        return cls(model, clean, metrics, read, entered, z, through)

    def part(self, part: Clean) -> "Accountant":
        """Return the same for the targets of a run from some position on."""
        if part.read is None:
            return self
        which = part.read
        entered = {at: value[which] for at, value in self.entered.items()}
        z = {site: value[which] for site, value in self.z.items()}
        through = {site: value[:, which] for site, value in self.through.items()}
        return Accountant(self.model, part, self.metrics, self.read[:, which], entered, z, through)

    def entry(self) -> "Entry":
        """Return an empty entry, to be filled by one forward."""
        return Entry(self)

    @cached_property
    def uncapped(self) -> Float[Tensor, "metric target"]:
        """The clean metrics without the soft cap."""
        with hooks.uncapped(self.model.bridge), torch.no_grad():
            return by_target(self.model, self.clean, self.clean.end, self.metrics)[:, 0]


@dataclass(frozen=True)
class Entry:
    """The changes of one forward's interventions, read by hooks: of the stream before each block, and of heads' writes.

    In each block the copies are those of the interventions that have begun.
    """

    of: Accountant
    stream: dict[int, ByCopy] = field(default_factory=dict)
    heads: dict[Site, Float[Tensor, "metric copy head prompt"]] = field(default_factory=dict)
    norms: dict[Site, ByCopy] = field(default_factory=dict)

    def hooked(self) -> list[Any]:
        """Hook the blocks and each W_O of the decoder, to read their inputs; return the handles."""
        model, handles = self.of.model, []
        blocks = hooks.blocks(model.bridge)
        for at in stream_blocks(model):
            handles.append(watch_input(blocks[at], partial(self._read_stream, at)))
        for site in self.of.z:
            projection = hooks.output_projection(model.bridge, site)
            handles.append(projection.register_forward_pre_hook(self._read_z(site)))
        return handles

    def _read_stream(self, at: int, hidden: Float[Tensor, "row position d_model"]) -> None:
        moved = self._at_targets(hidden) - self.of.entered[at]
        self.stream[at] = self._by_prompt(torch.einsum("mtd,ctd->mct", self.of.read, moved.double()))

    def _read_z(self, site: Site) -> Any:
        model = self.of.model
        write, norm = hooks.output_projection(model.bridge, site).forward, hooks.norm_of_write(model.bridge, site)

        def read(_: Any, args: tuple[Any, ...]) -> None:
            z, before = self._at_targets(args[0]), self.of.z[site]
            moved = (z.unflatten(2, before.shape[1:]) - before).double()
            by_head = self._by_prompt(torch.einsum("mthd,cthd->mcht", self.of.through[site], moved))
            self.heads[site] = by_head
            if norm is not None:  # the change of the norm's scale is no head's
                scaled = norm(write(z)) - norm(write(before.flatten(1)[None]))
                whole = torch.einsum("mtd,ctd->mct", self.of.read, scaled.double())
                self.norms[site] = model.traits.write_scale[site] * self._by_prompt(whole) - by_head.sum(dim=2)

        return read

    def _at_targets(self, rows: Float[Tensor, "row position d"]) -> Float[Tensor, "copy target d"]:
        targets, n_rows = self.of.clean.targets, self.of.clean.n_rows
        return rows.unflatten(0, (-1, n_rows))[:, targets.row, targets.position]

    def _by_prompt(self, values: Float[Tensor, "*rest target"]) -> Float[Tensor, "*rest prompt"]:
        return self.of.clean.targets.mean_by_prompt(values)

    def components(
        self, chunk: Sequence[Intervention], end: Resid, effect: ByCopy
    ) -> Float[Tensor, "metric prompt copy component"]:
        """Return the account of each intervention of the chunk, which left the stream's `end` and has this `effect`."""
        model, n = self.of.model, len(chunk)
        moved = end.unflatten(0, (n, -1)) - self.of.clean.end
        final = self._by_prompt(torch.einsum("mtd,ctd->mct", self.of.read, moved.double()))
        nothing = torch.zeros_like(final)
        no_heads = nothing[:, :, None].expand(-1, -1, model.shape.n_heads, -1)
        heads = {site: _of_all(self.heads.get(site), no_heads) for site in self.of.z}
        norms = {site: _of_all(value, nothing) for site, value in self.norms.items()}
        rests = self._rests(heads, norms, final)
        direct = nothing.clone()
        for copy, one in enumerate(chunk):
            for head in one.heads:
                if head.site in heads:
                    direct[:, copy] += heads[head.site][:, copy, head.head]
                    heads[head.site][:, copy, head.head] = 0
        parts = [direct, *(each[:, :, head] for each in heads.values() for head in range(model.shape.n_heads)), *rests]
        parts += [norms.get(site, nothing) for site in self.of.z if hooks.norm_of_write(model.bridge, site) is not None]
        if model.traits.linear_logits:
            parts.append(effect - final)
        else:
            uncapped = self._uncapped(end)
            parts += [uncapped - final, effect - uncapped]
        return torch.stack(parts, dim=-1).transpose(1, 2)

    def _rests(self, heads: Mapping[Site, Tensor], norms: Mapping[Site, ByCopy], final: ByCopy) -> list[ByCopy]:
        """Return what each block adds beside its attentions: the stream's change after it, less that before it."""
        model, rests = self.of.model, []
        stream = [_of_all(self.stream.get(at), torch.zeros_like(final)) for at in stream_blocks(model)]
        for at, before, after in zip(stream_blocks(model), stream, [*stream[1:], final], strict=True):
            sites = [site for site in self.of.z if model.shape.block(site) == at]
            attention = [heads[site].sum(dim=2) + norms.get(site, 0) for site in sites]
            rests.append(after - before - sum(attention))
        return rests

    def _uncapped(self, end: Resid) -> ByCopy:
        """Return the effect before the soft cap."""
        of = self.of
        with hooks.uncapped(of.model.bridge):
            ablated = by_target(of.model, of.clean, end, of.metrics)
        return self._by_prompt(ablated - of.uncapped[:, None]).double()


def _of_all(value: Tensor | None, nothing: Tensor) -> Tensor:
    """Return the value with zeros for the copies that had not begun; `nothing` where none had."""
    if value is None:
        return nothing.clone()
    missing = nothing.shape[1] - value.shape[1]
    return torch.cat([value, value.new_zeros(value.shape[0], missing, *value.shape[2:])], dim=1)
