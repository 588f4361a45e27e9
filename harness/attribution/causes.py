"""Causes by name: measure what a prediction depends on by removing each token of an example.

Each gives [target, node]: the increase of the loss (for a model that gives a vector, of the cosine distance to the
clean one) when the token is removed; positive means that it helped. The token to be predicted stays the same.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from harness.attribution.deletion import delete
from harness.attribution.example import Example
from harness.attribution.forward_cache import Scores
from harness.attribution.knockout import knock_out, knock_out_in
from harness.attribution.masking import Parts, each_token
from harness.attribution.methods import heads_named
from harness.attribution.occlusion import Fill, drawn_tokens, occlude, same_token
from harness.config import RequestError, near
from harness.models import Model


@dataclass(frozen=True)
class Removal:
    """What replaces a removed token: the mean embedding by stack, or tokens drawn from the `ordinary` ones."""

    baseline: Mapping[str, Tensor]
    ordinary: Int[np.ndarray, " token"]
    #: The seed of the drawn tokens, another for each prompt.
    seed: tuple[int, ...] = (0,)


#: The effect of removing each part, [part, target].
Cause = Callable[[Example, Parts, Removal], Float[np.ndarray, "part target"]]


def fill_of(name: str, example: Example, removal: Removal) -> Fill:
    """Return what replaces a token under this occlusion."""
    match name:
        case "occlude_mean":
            return dict(removal.baseline)
        case "occlude_token":
            return drawn_tokens(example, removal.ordinary, [*removal.seed, 1])
        case "occlude_mask":
            return same_token(example, example.model.tokenizer.mask_token_id)
    return same_token(example, example.model.tokenizer.unk_token_id)


def _occlude(name: str, example: Example, parts: Parts, removal: Removal) -> Float[np.ndarray, "part target"]:
    return occlude(example, parts, fill_of(name, example, removal))


#: Mask first: a model with a mask token was trained on inputs with it.
OCCLUSIONS = ("occlude_mask", "occlude_mean", "occlude_unk", "occlude_token")

CAUSES: dict[str, Cause] = {
    **{name: partial(_occlude, name) for name in OCCLUSIONS},
    "delete": lambda example, parts, removal: delete(example, parts),
    "knockout": lambda example, parts, removal: knock_out(example, parts),
}

_TOKEN = {"occlude_mask": "mask_token_id", "occlude_unk": "unk_token_id"}


def choose_causes(requested: tuple[str, ...], model: Model) -> dict[str, Cause]:
    """Return the requested causes; ``auto`` is all of `CAUSES` that the model allows, an occlusion first.

    Raises `RequestError` for an unknown name, a token that the tokenizer lacks, and heads that the model lacks.
    """
    if requested == ("auto",):
        return {name: cause for name, cause in CAUSES.items() if not refusal(name, model)}
    names = tuple(dict.fromkeys(requested))
    if not names:
        raise RequestError("attribution.causes", "[]", near("", tuple(CAUSES)))
    for name in names:
        if reason := refusal(name, model):
            raise RequestError("attribution.causes", name, reason)
    return {name: CAUSES.get(name) or _of_heads(name, model) for name in names}


def refusal(name: str, model: Model) -> str:
    """Return why a model does not allow a cause; empty if it does."""
    token = getattr(model.tokenizer, _TOKEN[name], None) if name in _TOKEN else 0
    if token is None:
        return f"{model.name}'s tokenizer has no such token"
    if token >= model.shape.d_vocab:
        return f"{model.name} has no embedding of that token ({token} of {model.shape.d_vocab})"
    if name == "knockout" and model.kind == "decoder" and not model.traits.has_scores:
        return f"the scores of {model.name}'s attention cannot be edited: their softmax is not its pattern"
    return ""


def _of_heads(name: str, model: Model) -> Cause:
    """Parse ``knockout_L5H1``, ``knockout_L5``, in an encoder-decoder ``knockout_cross.L5H1``."""
    where = name.removeprefix("knockout_")
    if where == name or not re.search(r"L\d+", where):
        raise RequestError("attribution.causes", name, near(name, (*CAUSES, "knockout_L5", "knockout_L5H1", "auto")))
    if model.no_mixing:
        raise RequestError("attribution.causes", name, f"{model.no_mixing}; take knockout, of all heads")
    heads = heads_named(where, model, "attribution.causes", name)
    return lambda example, parts, removal: knock_out_in(example, [(part, heads) for part in parts])


def lead_occlusion(causes: Mapping[str, Cause]) -> str:
    """Return the occlusion of the erasure curves: the first among the causes, else the mean embedding."""
    return next((name for name in causes if name in OCCLUSIONS), "occlude_mean")


def measure_causes(
    example: Example, causes: Mapping[str, Cause], removal: Removal
) -> Float[np.ndarray, "cause target node"]:
    """Measure every token's effect under each cause; NaN for tokens that a target cannot attend to."""
    parts = each_token(example)
    effects: list[Scores] = [cause(example, parts, removal).T for cause in causes.values()]
    return np.where(example.visible, np.stack(effects), np.nan)
