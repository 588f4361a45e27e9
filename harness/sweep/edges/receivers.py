"""What a receiver makes of a changed stream: a head's z where only its query, key or value reads it, an MLP's output.

Heads are independent given their queries, keys and values. So attention on the clean stream with all queries of a layer
replaced gives each head's z of *its* query edge, all at once; keys and values likewise, also where heads share them.
`check_receivers` verifies on the model itself that z follows replaced queries, keys and values.
"""

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.ablation import Intervention
from harness.config import RequestError
from harness.config.edges import Between
from harness.hooks import Head, Part
from harness.models import Model
from harness.prompts import Prompts
from harness.sweep import engine
from harness.sweep.edges.block_run import QKV, BlockRun, Stream
from harness.sweep.edges.edge import Edge, mlp_layers
from harness.sweep.edges.streams import Place, Senders, Written

#: What an edge makes of its receiver: a head's z, or an MLP's output.
Received = Float[Tensor, "row position d"]
_KEY = "sweep.kind"


def received(senders: Senders, edges: Sequence[Edge], between: Between, at_once: int) -> dict[Edge, Received]:
    """Return what each edge makes of its receiver in the rows of the clean run, `at_once` senders in one forward."""
    wanted: dict[Place, list[Edge]] = {}
    for edge in edges:
        wanted.setdefault((edge.sender, edge.receiver.layer), []).append(edge)
    streams = senders.streams(wanted, between, at_once)
    made: dict[Edge, Received] = {}
    for layer in sorted({layer for _, layer in wanted}):
        places = [place for place in wanted if place[1] == layer]
        for start in range(0, len(places), at_once):
            some = places[start : start + at_once]
            of_block = _OfBlock(senders, layer, [(sender, streams[sender, layer]) for sender, _ in some])
            made |= of_block.received([edge for place in some for edge in wanted[place]])
    return {edge: made[edge] for edge in edges}


def interventions(made: dict[Edge, Received]) -> list[Intervention]:
    """Return each edge as an intervention on its receiver."""
    return [Intervention((edge.receiver,), partial(_put, value)) for edge, value in made.items()]


def _put(value: Received, z: Float[Tensor, "row position d"], part: Part) -> Received:
    return value


class _OfBlock:
    """The receivers of one block, on the streams of some senders."""

    def __init__(self, senders: Senders, layer: int, streams: Sequence[tuple[Head, Written]]):
        self.senders, self.run = senders, BlockRun(senders.model, senders.clean, layer)
        self.order = [sender for sender, _ in streams]
        self.stream = torch.stack([stream for _, stream in streams])

    def received(self, edges: Sequence[Edge]) -> dict[Edge, Received]:
        made: dict[Edge, Received] = {}
        into_heads, into_mlp = ([edge for edge in edges if (edge.into == "mlp") == is_mlp] for is_mlp in (False, True))
        if into_heads:
            copies = self._copies(into_heads)
            attention = self.run.attention(self.stream[copies])
            for into in dict.fromkeys(edge.into for edge in into_heads):
                some = [edge for edge in into_heads if edge.into == into]
                order = self._copies(some)
                read = attention["z" if into == "qkv" else into][[copies.index(copy) for copy in order]]
                z = self.run.z_with({into: read}) if into in ("q", "k", "v") else read
                made |= {edge: z[order.index(self._copy(edge)), :, :, edge.receiver.head] for edge in some}
        if into_mlp:
            copies = self._copies(into_mlp)
            z = torch.stack([self._held(self.order[copy]) for copy in copies])
            out = self.run.mlp_output(self.stream[copies], z)
            made |= {edge: out[copies.index(self._copy(edge))] for edge in into_mlp}
        return made

    def _copy(self, edge: Edge) -> int:
        return self.order.index(edge.sender)

    def _copies(self, edges: Iterable[Edge]) -> list[int]:
        return sorted({self._copy(edge) for edge in edges})

    def _held(self, sender: Head) -> Float[Tensor, "row position head d_head"]:
        """Return the block's z for its MLP: clean, but for a sender in the same layer."""
        return self.senders.replaced(sender) if sender.layer == self.run.layer else self.senders.z[self.run.site]


# --- what a model must allow ------------------------------------------------------------------------------------------


def check_model(model: Model) -> None:
    """Raise `RequestError` for a model that has no edges as defined here."""
    if model.kind != "decoder":
        kind = model.kind.replace("_", "-")
        raise RequestError(_KEY, "edges", f"edges are for decoder-only models, and {model.name} is of kind {kind}")
    if not model.traits.write_scale:
        why = model.traits.no_direct
        raise RequestError(_KEY, "edges", f"the writes of {model.name} do not sum to its stream: {why}")
    if hooks.has_mixer(model.bridge):
        raise RequestError(_KEY, "edges", f"{model.name} has a recurrent mixer beside its attention")
    if not model.traits.mixes_values:  # then heads are not independent given their queries, keys and values
        raise RequestError(_KEY, "edges", f"in {model.name} a head's output is not its pattern times its values")


@torch.no_grad()
def check_receivers(model: Model, prompts: Prompts, layers: Sequence[int], into: Iterable[str]) -> dict[int, bool]:
    """Verify on the first prompt that queries, keys and values of each layer can be replaced.

    Returns the layers whose MLP receives (none without ``mlp`` among `into`), and whether it reads its own layer's
    attention. Raises `RequestError` where z does not follow the replaced queries, keys and values, and for a layer
    without a single MLP.
    """
    clean = engine.run_clean(model, prompts.take([0]), (), None)
    generator, kinds = torch.Generator().manual_seed(0), set(into)
    runs = [BlockRun(model, clean, layer) for layer in layers]
    if kinds - {"mlp"}:
        for run in runs:
            _check_attention(run, _moved(run, generator))
    if "mlp" not in kinds:
        return {}
    mlp_layers(model, layers)
    return {run.layer: _reads_attention(run, generator) for run in runs}


def _moved(run: BlockRun, generator: torch.Generator) -> Stream:
    """Return the clean stream plus random vectors half its size."""
    entered = run.entered[None]
    drawn = torch.randn(entered.shape, generator=generator).to(entered)
    return entered + 0.5 * drawn * entered.float().square().mean(-1, keepdim=True).sqrt().to(entered)


def _check_attention(run: BlockRun, stream: Stream) -> None:
    """Compare z with all of q, k and v replaced by those of another stream with z on that stream."""
    model, other = run.model, run.attention(stream)
    z = run.z_with({kind: other[kind] for kind in QKV})
    if not _close(model, z, other["z"]) or _close(model, run.attention(run.entered[None])["z"], other["z"]):
        remedy = f"in layer {run.layer} of {model.name} z does not follow edited queries, keys and values"
        raise RequestError(_KEY, "edges", f"{remedy}; set edges.into=[mlp]")


def _reads_attention(run: BlockRun, generator: torch.Generator) -> bool:
    """Whether the MLP's output changes with the attention's z of its own layer: not in parallel blocks."""
    entered = run.entered[None]
    z = run.attention(entered)["z"]
    moved = z + torch.randn(z.shape, generator=generator).to(z) * (1 + z.abs().mean())
    clean = run.mlp_output(entered, z)
    if clean.shape != entered.shape:
        why = f"the MLP of layer {run.layer} of {run.model.name} has no axis of positions"
        raise RequestError("edges.into", "mlp", f"{why}; set edges.into=[q,k,v]")
    return not torch.equal(clean, run.mlp_output(entered, moved))


def _close(model: Model, left: Tensor, right: Tensor) -> bool:
    allowed = engine.tolerance(model) * right.double().abs().max().clamp(min=1e-6)
    return bool(((left.double() - right.double()).abs() <= allowed).all())
