"""Resolve a request to interventions by name: the parts that are ablated together."""

from collections.abc import Iterable, Mapping
from typing import Any

from harness import hooks
from harness.config import RequestError, near
from harness.hooks import Head, Mlp, Part, Site
from harness.models import Model

#: Parts that are ablated together, by name.
Groups = Mapping[str, tuple[Part, ...]]

#: The variable of each kind's effects.
EFFECT = {
    "single": "effect",
    "layer": "layer_effect",
    "mlp": "mlp_effect",
    "set": "set_effect",
    "complement": "set_effect",
    "cumulative": "cumulative_effect",
    "pairs": "pair_effect",
}
#: What is ablated together, in words.
TOGETHER = {
    "single": "each head by itself",
    "layer": "all heads of a layer",
    "mlp": "the MLP of a layer",
    "set": "the heads of a set",
    "complement": "all heads but those of a set, which is kept",
    "cumulative": "the head of a step and those of all steps before it",
    "pairs": "the two heads of a pair",
}


def groups(
    model: Model, heads: Any = "all", kind: str = "single", sets: Mapping[str, Any] | None = None
) -> dict[str, tuple[Part, ...]]:
    """Return the parts that are ablated together, by name.

    For ``cumulative`` and ``pairs``, whose groups are chosen later, the heads one by one. Raises `RequestError` for
    heads that the model does not have.
    """
    chosen = model.heads(heads)
    match kind:
        case "single" | "cumulative" | "pairs":
            return {str(head): (head,) for head in chosen}
        case "layer":
            return {str(site): tuple(head for head in chosen if head.site == site) for site in _sites(chosen)}
        case "mlp":
            return {str(mlp): (mlp,) for mlp in _mlps(model, chosen)}
        case "set":
            return _sets(model, sets)
        case "complement":
            return {name: _others(chosen, kept, name) for name, kept in _sets(model, sets).items()}
    raise RequestError("sweep.kind", kind, near(kind, tuple(EFFECT)))


def _sets(model: Model, sets: Mapping[str, Any] | None) -> dict[str, tuple[Part, ...]]:
    if not sets:
        raise RequestError("sweep.sets", "{}", "name at least one set, such as sweep.sets={early: [L0H1, L1]}")
    return {name: model.heads(members, f"sweep.sets.{name}") for name, members in sets.items()}


def _others(chosen: Iterable[Head], kept: Iterable[Part], name: str) -> tuple[Part, ...]:
    others = tuple(head for head in chosen if head not in set(kept))
    if not others:
        raise RequestError("sweep.sets", name, "it keeps all heads of the request, so none would be ablated")
    return others


def _sites(heads: Iterable[Head]) -> list[Site]:
    return list(dict.fromkeys(head.site for head in heads))


def _mlps(model: Model, heads: Iterable[Head]) -> list[Mlp]:
    """Return the MLPs of the heads' layers; a decoder's self and cross attention share one."""
    mlps = list(dict.fromkeys(Mlp(head.layer, head.stack.replace("cross", "decoder")) for head in heads))
    for mlp in mlps:
        if not hooks.has_mlp(model.bridge, mlp.site):
            remedy = f"layer {mlp.layer} of {model.name} has no single MLP; set sweep.kind=layer for its attention"
            raise RequestError("sweep.kind", "mlp", remedy)
    return mlps
