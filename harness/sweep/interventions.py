"""Resolve a request to interventions by name: the parts that are ablated together."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from harness import hooks
from harness.config import RequestError, near
from harness.hooks import Head, Mlp, Part, Resid, Site
from harness.models import Model

#: Parts that are ablated together, by name.
Groups = Mapping[str, tuple[Part, ...]]

#: The variable of each kind's effects.
EFFECT = {
    "single": "effect",
    "layer": "layer_effect",
    "mlp": "mlp_effect",
    "resid": "resid_effect",
    "attn": "attn_effect",
    "set": "set_effect",
    "complement": "set_effect",
    "cumulative": "cumulative_effect",
    "pairs": "pair_effect",
    "edges": "edge_effect",
}
#: The kinds that go through the positions in turn.
AT_EACH_POSITION = ("single", "resid", "attn", "mlp")
#: What is ablated together, in words.
TOGETHER = {
    "single": "each head by itself",
    "layer": "all heads of a layer",
    "mlp": "the MLP of a layer",
    "resid": "the residual stream before a layer, or after the last",
    "attn": "the attention of a layer",
    "set": "the heads of a set",
    "complement": "all heads but those of a set, which is kept",
    "cumulative": "the head of a step and those of all steps before it",
    "pairs": "the two heads of a pair",
    "edges": "what a head writes, as read by one input of a later head or MLP",
}


def groups(
    model: Model,
    heads: Any = "all",
    kind: str = "single",
    sets: Mapping[str, Any] | None = None,
    n_random: int = 0,
    seed: int = 0,
) -> Groups:
    """Return the parts that are ablated together, by name; named sets are followed by `n_random` for each.

    For ``cumulative``, ``pairs`` and ``edges``, whose groups are chosen later, the heads one by one. Raises
    `RequestError` for heads that the model does not have.
    """
    chosen = model.heads(heads)
    match kind:
        case "single" | "cumulative" | "pairs" | "edges":
            return {str(head): (head,) for head in chosen}
        case "layer" | "attn":
            return {str(site): tuple(head for head in chosen if head.site == site) for site in _sites(chosen)}
        case "mlp":
            return {str(mlp): (mlp,) for mlp in _mlps(model, chosen)}
        case "resid":
            return {str(resid): (resid,) for resid in _resids(model, chosen)}
        case "set":
            return with_random(named_sets(model, sets), chosen, n_random, seed)
        case "complement":
            kept = with_random(named_sets(model, sets), chosen, n_random, seed)
            return {name: _others(chosen, heads, name) for name, heads in kept.items()}
    raise RequestError("sweep.kind", kind, near(kind, tuple(EFFECT)))


def named_sets(model: Model, sets: Mapping[str, Any] | None) -> dict[str, tuple[Head, ...]]:
    """Return the heads of each named set. Raises `RequestError` for no set, and for heads that the model lacks."""
    if not sets:
        raise RequestError("sets", "{}", "name at least one set, such as sets={early: [L0H1, L1]}")
    return {name: tuple(model.heads(members, f"sets.{name}")) for name, members in sets.items()}


def with_random(
    sets: Mapping[str, tuple[Head, ...]], among: Sequence[Head], n: int, seed: int
) -> dict[str, tuple[Head, ...]]:
    """Append `n` random sets for each set, of as many heads, drawn `among` these without replacement.

    Raises `RequestError` for a set of as many heads as there are, beside which nothing can be drawn.
    """
    drawn: dict[str, tuple[Head, ...]] = {}
    rng = np.random.default_rng(seed)
    for name, heads in sets.items():
        if n and len(heads) >= len(among):
            remedy = f"the set {name} has {len(heads)} heads, and there are {len(among)} to draw from; set 0"
            raise RequestError("n_random_sets", n, remedy)
        for number in range(n):
            chosen = rng.choice(len(among), len(heads), replace=False)
            drawn[f"{name} random {number}"] = tuple(among[at] for at in sorted(chosen))
    if taken := sets.keys() & drawn:
        name = sorted(taken)[0]
        raise RequestError(f"sets.{name}", ",".join(map(str, sets[name])), "a random set has this name; take another")
    return {**sets, **drawn}


def _others(chosen: Iterable[Head], kept: Iterable[Part], name: str) -> tuple[Part, ...]:
    others = tuple(head for head in chosen if head not in set(kept))
    if not others:
        raise RequestError("sets", name, "it keeps all heads of the request, so none would be ablated")
    return others


def _sites(heads: Iterable[Head]) -> list[Site]:
    return list(dict.fromkeys(head.site for head in heads))


def _resids(model: Model, heads: Iterable[Head]) -> list[Resid]:
    """Return the residual streams before the heads' layers, and after the last layer if it is among them; a decoder's
    self and cross attention share one."""
    stacks, last = model.shape.stacks, dict[Resid, None]()
    for head in heads:
        stack = head.stack.replace("cross", "decoder")
        last[Resid(head.layer, stack)] = None
        if head.layer == stacks[stack] - 1:
            last[Resid(stacks[stack], stack)] = None
    return list(last)


def _mlps(model: Model, heads: Iterable[Head]) -> list[Mlp]:
    """Return the MLPs of the heads' layers; a decoder's self and cross attention share one."""
    mlps = list(dict.fromkeys(Mlp(head.layer, head.stack.replace("cross", "decoder")) for head in heads))
    for mlp in mlps:
        if not hooks.has_mlp(model.bridge, mlp.site):
            remedy = f"layer {mlp.layer} of {model.name} has no single MLP; set sweep.kind=layer for its attention"
            raise RequestError("sweep.kind", "mlp", remedy)
    return mlps
