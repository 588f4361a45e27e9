"""What a prediction is measured to have come from: the causes by name, of every token of one question.

Each gives [target, node]: by how much the loss (for a model that gives a vector, the cosine distance to the clean one)
grows when the token is taken away; positive means that it helped. The token to be predicted stays the same.
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
from harness.hooks import Head
from harness.models import Model


@dataclass(frozen=True)
class Removal:
    """What is taken instead of a token: the mean embedding by stack, or tokens drawn from the `ordinary` ones."""

    baseline: Mapping[str, Tensor]
    ordinary: Int[np.ndarray, " token"]
    #: Draws the other tokens; its own for each prompt.
    seed: tuple[int, ...] = (0,)


#: The effect of taking away each part, [part, target].
Cause = Callable[[Example, Parts, Removal], Float[np.ndarray, "part target"]]


def fill_of(name: str, example: Example, taking: Removal) -> Fill:
    """What stands in a token's place under this occlusion."""
    match name:
        case "occlude_mean":
            return dict(taking.baseline)
        case "occlude_token":
            return drawn_tokens(example, taking.ordinary, [*taking.seed, 1])
        case "occlude_mask":
            return same_token(example, example.model.tokenizer.mask_token_id)
    return same_token(example, example.model.tokenizer.unk_token_id)


def _occluding(name: str, example: Example, parts: Parts, taking: Removal) -> Float[np.ndarray, "part target"]:
    return occlude(example, parts, fill_of(name, example, taking))


#: Mask first: what a model with a mask token has learnt to do without.
OCCLUSIONS = ("occlude_mask", "occlude_mean", "occlude_unk", "occlude_token")

CAUSES: dict[str, Cause] = {
    **{name: partial(_occluding, name) for name in OCCLUSIONS},
    "delete": lambda example, parts, taking: delete(example, parts),
    "knockout": lambda example, parts, taking: knock_out(example, parts),
}

_TOKEN = {"occlude_mask": "mask_token_id", "occlude_unk": "unk_token_id"}


def choose_causes(asked: tuple[str, ...], model: Model) -> dict[str, Cause]:
    """The causes that a request names; ``auto`` is all of `CAUSES` that the model allows, an occlusion first.

    Raises `RequestError` for a name that is none, a token that the tokenizer lacks, and heads that the model lacks.
    """
    if asked == ("auto",):
        return {name: cause for name, cause in CAUSES.items() if not refusal(name, model)}
    names = tuple(dict.fromkeys(asked))
    if not names:
        raise RequestError("attribution.causes", "[]", near("", tuple(CAUSES)))
    for name in names:
        if reason := refusal(name, model):
            raise RequestError("attribution.causes", name, reason)
    return {name: CAUSES.get(name) or _of_heads(name, model) for name in names}


def refusal(name: str, model: Model) -> str:
    """Why a model does not allow a cause; empty if it does."""
    if name in _TOKEN and getattr(model.tokenizer, _TOKEN[name], None) is None:
        return f"{model.name}'s tokenizer has no such token"
    if name == "knockout" and model.kind == "decoder" and not model.traits.has_scores:
        return f"the scores of {model.name}'s attention cannot be edited: their softmax is not its pattern"
    return ""


def _of_heads(name: str, model: Model) -> Cause:
    """``knockout_L5H1``, ``knockout_L5``, in an encoder-decoder ``knockout_cross.L5H1``."""
    where = name.removeprefix("knockout_")
    if where == name or not re.search(r"L\d+", where):
        raise RequestError("attribution.causes", name, near(name, (*CAUSES, "knockout_L5", "knockout_L5H1", "auto")))
    if not model.traits.mixes_values:
        remedy = f"in {model.name} a head's output is not its pattern times its values; take knockout, of all heads"
        raise RequestError("attribution.causes", name, remedy)
    return partial(_knocking_out, heads_named(where, model, "attribution.causes", name))


def _knocking_out(
    heads: list[Head], example: Example, parts: Parts, taking: Removal
) -> Float[np.ndarray, "part target"]:
    return knock_out_in(example, [(part, heads) for part in parts])


def lead_occlusion(causes: Mapping[str, Cause]) -> str:
    """How tokens are taken away for the curves: the first occlusion among the causes, else by the mean embedding."""
    return next((name for name in causes if name in OCCLUSIONS), "occlude_mean")


def caused(example: Example, causes: Mapping[str, Cause], taking: Removal) -> Float[np.ndarray, "cause target node"]:
    """Every token's effect under each cause, NaN for tokens that a target cannot have drawn on."""
    parts = each_token(example)
    made: list[Scores] = [cause(example, parts, taking).T for cause in causes.values()]
    return np.where(example.visible, np.stack(made), np.nan)
