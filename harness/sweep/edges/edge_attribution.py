"""Edge attribution patching: a first-order estimate of every edge's effect, from one backward pass and its parts.

The estimate of an edge is Δ · ∂M/∂x, summed over positions: Δ is the change of what the sender writes to the stream
(MLPs ``frozen``), x the stream as read by that input of the receiver alone (Syed et al. 2023, arXiv:2310.10348;
Nanda 2023, "Attribution patching"). One backward pass gives the metric's derivative by each z and MLP output; from
there it is pulled back to the stream through one receiver's query, key, value or MLP at a time, the norm before it
included. The mean over points on the path from the clean run to all senders replaced together is integrated gradients
(EAP-IG: Hanna et al. 2024, arXiv:2403.17806).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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
    moved = torch.stack([senders.change(sender).flatten(1).float() for sender in order], dim=1)
    targets = senders.clean.targets
    owner = targets.row.new_zeros(senders.clean.n_rows).scatter(0, targets.row, targets.prompt)
    layers = _by_layer(edges, order)
    estimate = moved.new_zeros(len(metrics), targets.n_prompts, len(edges))
    for point in opened:
        graph = _Graph.of(senders, order, [part for layer in layers for part, _ in layer.places], point)
        for number, metric in enumerate(metrics):
            graph.differentiate(gradient_at_end(senders.model, senders.clean, graph.end.detach(), metric))
            for layer in layers:
                read = torch.stack([each.flatten(1).float() for each in graph.read(layer.places)], dim=2)
                by_row = (moved[:, : layer.n_senders] @ read)[:, layer.sender, layer.place]
                by_prompt = by_row.new_zeros(targets.n_prompts, len(layer.edges)).index_add_(0, owner, by_row)
                estimate[number][:, layer.edges] += by_prompt / len(opened)
    return estimate


class _Layer(NamedTuple):
    """The edges into one layer: their numbers, the sender and the place of each, and the places themselves.

    Senders are numbered in the order in which they run, so that those before a layer are the first `n_senders`.
    """

    edges: list[int]
    sender: list[int]
    place: list[int]
    places: list[Place]

    @property
    def n_senders(self) -> int:
        return max(self.sender) + 1


def _by_layer(edges: Sequence[Edge], order: Sequence[Head]) -> list[_Layer]:
    """Group edges by their receivers' layer."""
    copy, layers = {sender: at for at, sender in enumerate(order)}, []
    for number in sorted({edge.receiver.layer for edge in edges}):
        mine = [at for at, edge in enumerate(edges) if edge.receiver.layer == number]
        places: dict[Place, None] = {(edges[at].receiver, edges[at].into): None for at in mine}
        index = {place: at for at, place in enumerate(places)}
        of_edges = [index[edges[at].receiver, edges[at].into] for at in mine]
        layers.append(_Layer(mine, [copy[edges[at].sender] for at in mine], of_edges, list(places)))
    return layers


@dataclass
class _Graph:
    """One forward with its autograd graph from the first receiver's block on, all senders' z replaced by a share.

    By layer: the stream that enters the block, q, k and v, z before and after the replacement, the MLP's output, and a
    metric's derivatives by the last two.
    """

    model: Model
    end: Tensor = field(default_factory=lambda: torch.empty(0))
    stream: dict[int, Tensor] = field(default_factory=dict)
    inputs: dict[tuple[int, str], Tensor] = field(default_factory=dict)
    z: dict[int, Tensor] = field(default_factory=dict)
    passed_z: dict[int, Tensor] = field(default_factory=dict)
    mlp: dict[int, Tensor] = field(default_factory=dict)
    by_z: dict[int, Tensor] = field(default_factory=dict)
    by_mlp: dict[int, Tensor] = field(default_factory=dict)

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

    def differentiate(self, at_end: Tensor) -> None:
        """Differentiate a metric by each z and MLP output; `at_end` is its derivative by the stream's end."""
        mlps = list(self.mlp)
        outputs = [*self.passed_z.values(), *self.mlp.values()]
        grads = _grad(self.end, outputs, at_end)
        self.by_z = dict(zip(self.passed_z, grads, strict=False))
        self.by_mlp = dict(zip(mlps, grads[len(self.passed_z) :], strict=True))

    def read(self, places: Sequence[Place]) -> list[Read]:
        """Return the metric's derivative by the stream as each of these places reads it."""
        by_part: dict[Part, list[Input]] = {}
        for part, into in places:
            by_part.setdefault(part, []).append(into)
        reads: dict[Place, Read] = {}
        for part, inputs in by_part.items():
            if part.site.part == "mlp":
                reads[part, "mlp"] = self._through_mlp(part.layer)
            else:
                reads |= {(part, into): read for into, read in self._through_head(part, inputs).items()}
        return [reads[place] for place in places]

    def _through_head(self, head: Part, inputs: Sequence[Input]) -> Mapping[Input, Read]:
        """Pull the derivative by one head's z back to the stream, through each of the inputs."""
        layer, by_z = head.layer, self.by_z[head.layer]
        width = by_z.shape[-1] // self.model.shape.n_heads
        own, columns = torch.zeros_like(by_z), slice(head.head * width, (head.head + 1) * width)
        own[..., columns] = by_z[..., columns]
        kinds: list[Input] = [into for into in inputs if into in QKV]
        through = [self.inputs[layer, kind] for kind in kinds]
        by_kind = _grad(self.z[layer], through, own) if kinds else ()
        reads: dict[Input, Read] = {
            kind: self._to_stream(layer, at, by) for kind, at, by in zip(kinds, through, by_kind, strict=True)
        }
        if "qkv" in inputs:
            reads["qkv"] = self._to_stream(layer, self.z[layer], own)
        return reads

    def _through_mlp(self, layer: int) -> Read:
        """Pull the derivative by an MLP's output back to the stream, less what comes through its layer's attention."""
        passed = self.passed_z[layer]
        whole, by_z = _grad(self.mlp[layer], [self.stream[layer], passed], self.by_mlp[layer])
        return whole - self._to_stream(layer, passed, by_z)

    def _to_stream(self, layer: int, of: Tensor, weights: Tensor) -> Read:
        return _grad(of, [self.stream[layer]], weights)[0]


def _grad(of: Tensor, by: Sequence[Tensor], weights: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(of, by, weights, retain_graph=True, materialize_grads=True)
