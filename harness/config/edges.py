"""Spec of edges: which receivers, by which input, and what components between sender and receiver do."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from harness.config.sweep import listed
from harness.config.types import Heads, PositiveInt, spec

Into = Literal["q", "k", "v", "qkv", "mlp"]
Between = Literal["frozen", "recomputed"]


@spec
class EdgesSpec:
    """Edges of sweep.kind=edges, from each of heads to later heads and MLPs."""

    mlps: Between = "frozen"
    """MLPs between sender and receiver: frozen (clean, as ACDC's edges), or recomputed (as in path patching)."""
    into: Annotated[tuple[Into, ...], BeforeValidator(listed), Field(min_length=1)] = ("q", "k", "v", "mlp")
    """Inputs of receivers: q, k, v, the three together (qkv), mlp."""
    top_k: PositiveInt = 100
    """Number of edges with the largest estimates that are measured exactly."""
    receivers: Heads = ("all",)
    """Heads that receive, and whose layers' MLPs do: L5H1, a layer L7, a range L15-L29, or all."""
