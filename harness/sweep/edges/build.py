"""Build the stages of edges from a request."""

from collections.abc import Sequence
from dataclasses import fields

from harness.config import RequestError, SweepSpec
from harness.config.edges import EdgesSpec
from harness.execute import Stage
from harness.sweep.edges.edge import edges_of
from harness.sweep.edges.receivers import check_model, check_receivers
from harness.sweep.edges.screen_stage import EdgeScreenStage
from harness.sweep.edges.stage import EdgesStage
from harness.sweep.stage import SweepStage


def edge_stages(spec: SweepSpec, edges: EdgesSpec, sweep: SweepStage) -> Sequence[Stage]:
    """Build the stages that estimate all edges and measure some; the groups of `sweep` are the senders.

    Raises `RequestError` for a model without edges as defined here, and where no receiver is later than a sender.
    """
    check_model(sweep.model)
    receivers = sweep.model.heads(list(edges.receivers), "edges.receivers")
    first = min(head.layer for head in sweep.heads)
    layers = sorted({head.layer for head in receivers if head.layer >= first})
    reads_own = check_receivers(sweep.model, sweep.prompts, layers, edges.into)
    every = tuple(edges_of(sweep.heads, receivers, edges.into, reads_own))
    screen = EdgeScreenStage(sweep, every, spec.gradient_steps)
    return [screen, EdgesStage(sweep, every, edges.mlps, edges.top_k)]


def check_edges(spec: SweepSpec, edges: EdgesSpec) -> None:
    """Raise `RequestError` for settings of edges that no kind of the sweep reads."""
    if "edges" in spec.kind:
        return
    for field in fields(edges):
        if getattr(edges, field.name) != field.default:
            remedy = f"it does not read edges.{field.name}, so set sweep.kind=edges"
            raise RequestError("sweep.kind", ",".join(spec.kind), remedy)
