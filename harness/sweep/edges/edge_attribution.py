"""Edge attribution patching: a first-order estimate of every edge's effect, from one backward pass and its parts.

The estimate of an edge is Δ · ∂M/∂x, summed over positions: Δ is the change of what the sender writes to the stream (the
``frozen`` definition), x the stream as read by that input of the receiver alone (Syed et al. 2023, arXiv:2310.10348;
Nanda 2023, "Attribution patching"). One backward pass gives the metric's derivative by each z and MLP output; from
there it is pulled back to the stream through one receiver's query, key, value or MLP at a time, the norm before it
included. The mean over points on the path from the clean run to all senders replaced together is integrated gradients
(EAP-IG: Hanna et al. 2024, arXiv:2403.17806).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.hooks import Head, Part, Site
from harness.metrics import Metric
from harness.models import Model
from harness.sweep.attribution_patching import gradient_at_end
from harness.sweep.blocks import Arguments
from harness.sweep.edges.block_run import QKV, stream_of, with_stream
from harness.sweep.edges.edge import Edge, Input
from harness.sweep.edges.streams import Senders
from harness.sweep.engine import end_of

#: One input of a receiver.
Place = tuple[Part, Input]
#: A metric's derivative by the stream as a receiver's input reads it.
Read = Float[Tensor, "row position d_model"]


@torch.enable_grad()
def edge_estimates(
    senders: Senders, edges: Sequence[Edge], metrics: Sequence[Metric], opened: Sequence[float]
) -> Float[Tensor, "metric prompt edge"]:
    """Estimate the effect of each edge on each prompt's metrics, mean over the points `opened` (0: clean run, 1: all
    senders replaced)."""
    order = sorted({edge.sender for edge in edges})
    moved = torch.stack([senders.change(sender) for sender in order])
    targets, estimate = senders.clean.targets, None
    owner = targets.row.new_zeros(senders.clean.n_rows).scatter(0, targets.row, targets.prompt)
    by_place: dict[Place, list[int]] = {}
    for number, edge in enumerate(edges):
        by_place.setdefault((edge.receiver, edge.into), []).append(number)
    copy = {sender: at for at, sender in enumerate(order)}
    estimate = moved.new_zeros(len(metrics), targets.n_prompts, len(edges), dtype=torch.float32)
    for point in opened:
        graph = _Graph.of(senders, order, sorted({part for part, _ in by_place}, key=str), point)
        for number, metric in enumerate(metrics):
            at_end = gradient_at_end(senders.model, senders.clean, graph.end.detach(), metric)
            for place, read in graph.read(at_end, list(by_place)):
                some = by_place[place]
                which = [copy[edges[at].sender] for at in some]
                by_row = torch.einsum("srpd,rpd->rs", moved[which].float(), read.float())
                by_prompt = by_row.new_zeros(targets.n_prompts, len(some)).index_add_(0, owner, by_row)
                estimate[number][:, some] += by_prompt / len(opened)
    return estimate


@dataclass
class _Graph:
    """One forward with its autograd graph from the first receiver's block on, all senders' z replaced by a share.

    By layer: the stream that enters the block, q, k and v, z before and after the replacement, and the MLP's output.
    """

    model: Model
    end: Tensor = field(default_factory=lambda: torch.empty(0))
    stream: dict[int, Tensor] = field(default_factory=dict)
    inputs: dict[tuple[int, str], Tensor] = field(default_factory=dict)
    z: dict[int, Tensor] = field(default_factory=dict)
    passed_z: dict[int, Tensor] = field(default_factory=dict)
    mlp: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, senders: Senders, order: Sequence[Head], receivers: Sequence[Part], opened: float) -> "_Graph":
        graph, bridge = cls(senders.model), senders.model.bridge
        layers = sorted({part.layer for part in receivers})
        with_mlp = {part.layer for part in receivers if part.site.part == "mlp"}
        by_site = {site: [head for head in order if head.site == site] for site in senders.z}
        blocks, handles = hooks.blocks(bridge), []
        for layer in layers:
            enter = graph._enters(layer, layer == layers[0])
            handles.append(blocks[layer].register_forward_pre_hook(enter, with_kwargs=True))
            if layer in with_mlp:
                written = hooks.mlp_output(bridge, Site(layer, part="mlp"))
                handles.append(written.register_forward_hook(graph._keeps(graph.mlp, layer)))
        for site, heads in by_site.items():
            if site.layer in layers or (opened and heads):
                passes = graph._passes(senders, site, heads, opened)
                handles.append(hooks.output_projection(bridge, site).register_forward_pre_hook(passes))
        watches = [
            (hooks.hook_name(kind, Site(layer)), graph._watches(layer, kind)) for layer in layers for kind in QKV
        ]
        try:
            with bridge.hooks(fwd_hooks=watches):
                graph.end = end_of(senders.model, senders.clean)
        finally:
            for handle in handles:
                handle.remove()
        return graph

    def _enters(self, layer: int, is_first: bool) -> Any:
        def enter(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
            stream = stream_of(args, kwargs)
            self.stream[layer] = stream.detach().requires_grad_() if is_first else stream.view_as(stream)
            return with_stream((args, kwargs), self.stream[layer])

        return enter

    def _keeps(self, kept: dict[int, Tensor], layer: int) -> Any:
        def keep(_: Any, args: Any, out: Tensor) -> Tensor:
            kept[layer] = out.view_as(out)
            return kept[layer]

        return keep

    def _watches(self, layer: int, kind: str) -> Any:
        def watch(value: Tensor, hook: Any) -> Tensor:
            self.inputs[layer, kind] = value.view_as(value)
            return self.inputs[layer, kind]

        return watch

    def _passes(self, senders: Senders, site: Site, heads: Sequence[Head], opened: float) -> Any:
        def before(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
            z = self.z[site.layer] = args[0].view_as(args[0])
            self.passed_z[site.layer] = self._mixed(senders, z, heads, opened) if opened else z.view_as(z)
            return (self.passed_z[site.layer], *args[1:])

        return before

    def _mixed(self, senders: Senders, z: Tensor, heads: Sequence[Head], opened: float) -> Tensor:
        """Return z with each sender's replaced by this share."""
        whole = z.unflatten(2, (self.model.shape.n_heads, -1))
        replaced = whole.clone()
        for head in heads:
            for edit in senders.intervention(head).edits(slice(None)):
                edit.make(whole, replaced)
        return (whole + opened * (replaced - whole)).flatten(2)

    def read(self, at_end: Tensor, places: Sequence[Place]) -> "Any":
        """Yield each place with the metric's derivative by the stream as it reads it; `at_end` is that by the end."""
        layers = list(self.stream)
        mlps = [layer for layer in layers if layer in self.mlp]
        outputs = [*(self.passed_z[layer] for layer in layers), *(self.mlp[layer] for layer in mlps)]
        grads = torch.autograd.grad(self.end, outputs, at_end, retain_graph=True, materialize_grads=True)
        by_z = dict(zip(layers, grads, strict=False))
        by_mlp = dict(zip(mlps, grads[len(layers) :], strict=True))
        by_part: dict[Part, list[Input]] = {}
        for part, into in places:
            by_part.setdefault(part, []).append(into)
        for part, inputs in by_part.items():
            if part.site.part == "mlp":
                yield (part, "mlp"), self._through_mlp(part.layer, by_mlp[part.layer])
            else:
                for into, read in self._through_head(part, by_z[part.layer], inputs).items():
                    yield (part, into), read

    def _through_head(self, head: Part, by_z: Tensor, inputs: Sequence[Input]) -> Mapping[Input, Read]:
        """Pull the derivative by one head's z back to the stream, through each of the inputs."""
        layer, width = head.layer, by_z.shape[-1] // self.model.shape.n_heads
        own = torch.zeros_like(by_z)
        columns = slice(head.head * width, (head.head + 1) * width)
        own[..., columns] = by_z[..., columns]
        kinds = [kind for kind in QKV if kind in inputs]
        found: dict[Any, Read] = {}
        if kinds:
            through = [self.inputs[layer, kind] for kind in kinds]
            by_kind = _grad(self.z[layer], through, own)
            found = {kind: _grad(at, [self.stream[layer]], grad)[0] for kind, at, grad in zip(kinds, through, by_kind, strict=True)}
        if "qkv" in inputs:
            found["qkv"] = _grad(self.z[layer], [self.stream[layer]], own)[0]
        return found

    def _through_mlp(self, layer: int, by_output: Tensor) -> Read:
        """Pull the derivative by an MLP's output back to the stream, less what comes through its layer's attention."""
        whole, by_z = _grad(self.mlp[layer], [self.stream[layer], self.passed_z[layer]], by_output)
        return whole - _grad(self.passed_z[layer], [self.stream[layer]], by_z)[0]


def _grad(of: Tensor, by: Sequence[Tensor], weights: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(of, by, weights, retain_graph=True, materialize_grads=True)
