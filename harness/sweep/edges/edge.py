"""An edge: a sender (a head), a receiver (a later head or an MLP), and the input of the receiver that reads it."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from harness import hooks
from harness.config import RequestError
from harness.config.edges import Into
from harness.hooks import Head, Mlp, Part, Site
from harness.models import Model

Input = Literal["q", "k", "v", "qkv", "mlp"]


class Edge(NamedTuple):
    """What a sender writes, as read by one input of a receiver.

    `into` is the query, key or value of a receiving head, the three together (``qkv``), or ``mlp``.
    """

    sender: Head
    receiver: Part
    into: Input

    def __str__(self) -> str:
        into = "" if self.into == "mlp" else f".{self.into}"
        return f"{self.sender}→{self.receiver}{into}"

    @property
    def names(self) -> tuple[str, str, str]:
        """Sender, receiver and input as texts."""
        return str(self.sender), str(self.receiver), self.into

    @classmethod
    def parse(cls, sender: str, receiver: str, into: Input) -> "Edge":
        """Parse the texts of `names`."""
        if into == "mlp":
            return cls(Head.parse(sender), Mlp(int(receiver.removeprefix("L").removesuffix(".mlp"))), into)
        return cls(Head.parse(sender), Head.parse(receiver), into)


def edges_of(
    senders: Sequence[Head], receivers: Sequence[Head], into: Sequence[Into], sequential: Mapping[int, bool]
) -> list[Edge]:
    """List every edge from a sender to a later receiver, in the order of senders, receivers and inputs. Senders and
    receivers are in the order in which they run.

    The MLPs are those of the receivers' layers; `sequential` has the layers with one whose MLP can receive, and whether
    it reads its own layer's attention (not so in parallel blocks). Raises `RequestError` where no receiver is later.
    """
    inputs: list[Input] = [each for each in into if each != "mlp"]
    layers = list(dict.fromkeys(head.layer for head in receivers)) if "mlp" in into else []
    edges: list[Edge] = []
    for sender in senders:
        for layer in (layer for layer in layers if layer in sequential):
            if layer > sender.layer or (layer == sender.layer and sequential[layer]):
                edges.append(Edge(sender, Mlp(layer), "mlp"))
        edges += [Edge(sender, head, each) for head in receivers if head.layer > sender.layer for each in inputs]
    if not edges:
        remedy = f"no receiver is later than a sender (the first of which is {senders[0]}): an edge goes from a head "
        remedy += "to a later layer's heads or an MLP"
        raise RequestError("edges.receivers", receivers[-1], remedy)
    return edges


def mlp_layers(model: Model, layers: Sequence[int]) -> list[int]:
    """Return the layers that have a single MLP. Raises `RequestError` for one that has not (a mixture of experts)."""
    for layer in layers:
        if not hooks.has_mlp(model.bridge, Site(layer, part="mlp")):
            remedy = f"layer {layer} of {model.name} has no single MLP; set edges.into=[q,k,v]"
            raise RequestError("edges.into", "mlp", remedy)
    return list(layers)
