"""Attribution methods by name, each from one example's forward to scores [target, node].

To add one: write a function of a `ForwardCache`, with its paper, and name it in `METHODS`. Larger means that more of
the prediction is attributed to the token; `gradient_input` and `integrated_gradients` have signs (positive: it helped).
"""

import re
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import numpy as np
from jaxtyping import Float

from harness.attribution.chance import random_scores
from harness.attribution.effect_weighted_rollout import effect_weighted
from harness.attribution.flow import flow, pooled_flow
from harness.attribution.forward_cache import ForwardCache, Scores
from harness.attribution.gradient_rollout import gradient_weighted
from harness.attribution.gradients import gradient_norm, gradient_times_input
from harness.attribution.rollout import normalise_rows, roll, rollout
from harness.attribution.uniform_rollout import uniform_normalised
from harness.config import RequestError, near
from harness.hooks import Head
from harness.models import Model

Method = Callable[[ForwardCache], Scores]


def attention_mean(cache: ForwardCache) -> Scores:
    """Average the attention weights over all layers and heads."""
    writing = list(cache.target_sites())
    return cache.from_rows(lambda row: cache.pattern[row, writing].mean(axis=(0, 1)))


def attention_last(cache: ForwardCache) -> Scores:
    """Average the attention weights of the last layer (of an encoder-decoder: on both texts) over heads."""
    last = cache.sites[-1].layer
    writing = [at for at in cache.target_sites() if cache.sites[at].layer == last]
    return cache.from_rows(lambda row: cache.pattern[row, writing].mean(axis=(0, 1)))


def rolled_out(cache: ForwardCache) -> Scores:
    """Roll attention out with the request's options."""
    options = asdict(cache.spec.rollout)
    return cache.from_rows(lambda row: rollout(cache.pattern[row], **options))


def rollout_plain(cache: ForwardCache) -> Scores:
    """Roll attention out without a residual stream."""
    return cache.from_rows(lambda row: rollout(cache.pattern[row], residual=0.0))


def rollout_uniform(cache: ForwardCache) -> Scores:
    """Divide rollout by the rollout of even attention."""
    residual = cache.spec.rollout.residual
    return cache.from_rows(lambda row: uniform_normalised(cache.pattern[row], residual))


def rollout_effect(cache: ForwardCache) -> Scores:
    """Roll attention out with heads weighted by their effect on this prediction."""
    rows, residual = cache.example.row.tolist(), cache.spec.rollout.residual
    made = [effect_weighted(cache.pattern[row], helps, residual) for row, helps in zip(rows, cache.helps, strict=True)]
    return np.stack([cache.read(matrix, target) for target, matrix in enumerate(made)])


def rollout_gradient(cache: ForwardCache) -> Scores:
    """Roll attention out with weights multiplied by the gradient of this prediction (Chefer et al. 2021)."""
    made = [
        gradient_weighted(cache.pattern[row], slope)
        for row, slope in zip(cache.example.row.tolist(), cache.weight_gradient, strict=True)
    ]
    return np.stack([cache.read(matrix, target) for target, matrix in enumerate(made)])


def flowing(cache: ForwardCache) -> Scores:
    """Compute attention flow with the residual and the fusion of the request's rollout."""
    example, spec = cache.example, cache.spec.rollout
    flows = []
    for row, own in zip(example.row.tolist(), example.own.tolist(), strict=True):
        mixed = (cache.pattern[row], spec.residual, spec.head_fusion)
        flows.append(flow(*mixed, [own])[0] if own >= 0 else pooled_flow(*mixed, example.vector_share[row]))
    return np.stack(flows)


def value_norms(cache: ForwardCache) -> Scores:
    """Average value-weighted norms over layers, each layer's rows normalised."""
    writing = list(cache.target_sites())
    return cache.from_rows(lambda row: normalise_rows(cache.norms[row, writing]).mean(axis=0))


def alti(cache: ForwardCache) -> Scores:
    """Roll ALTI's contributions out over the layers."""
    return cache.from_rows(lambda row: roll(cache.alti[row]))


def gradient(cache: ForwardCache) -> Scores:
    """Return the L2 norm of the gradient at the embeddings."""
    return gradient_norm(cache.slopes, cache.example)


def gradient_input(cache: ForwardCache) -> Scores:
    """Return minus gradient times embedding."""
    return gradient_times_input(cache.slopes, cache.embedded, cache.example)


def integrated_gradients(cache: ForwardCache) -> Scores:
    """Return integrated gradients from the mean embedding."""
    return cache.integrated.scores


def at_random(cache: ForwardCache) -> Scores:
    """Draw random scores."""
    targets = range(cache.example.n_targets)
    return np.stack([random_scores(len(cache.nodes), [*cache.seed, target]) for target in targets])


METHODS: dict[str, Method] = {
    "attention_mean": attention_mean,
    "attention_last": attention_last,
    "rollout": rolled_out,
    "rollout_plain": rollout_plain,
    "rollout_uniform": rollout_uniform,
    "rollout_effect": rollout_effect,
    "rollout_gradient": rollout_gradient,
    "flow": flowing,
    "norms": value_norms,
    "alti": alti,
    "gradient": gradient,
    "gradient_input": gradient_input,
    "integrated_gradients": integrated_gradients,
    "random": at_random,
}


def attention_of(heads: list[Head], cache: ForwardCache) -> Scores:
    """Return the attention weights of one head, or their mean over a layer."""
    at, which = cache.sites.index(heads[0].site), [head.head for head in heads]
    return cache.from_rows(lambda row: cache.pattern[row, at, which].mean(axis=0))


#: Methods that need z as weights times values.
_OF_VALUES = ("norms", "alti", "rollout_gradient")


def refusal(name: str, model: Model) -> str:
    """Return why a model does not allow a method; empty if it does."""
    return model.no_mixing if name in _OF_VALUES else ""


def choose_methods(requested: tuple[str, ...], model: Model) -> dict[str, Method]:
    """Return the requested methods; ``all`` is all of `METHODS` that the model allows.

    Raises `RequestError` for an unknown name, a method that the model does not allow, and heads that it lacks.
    """
    if requested == ("all",):
        return {name: method for name, method in METHODS.items() if not refusal(name, model)}
    names = tuple(dict.fromkeys(requested))
    if not names:
        raise RequestError("attribution.methods", "[]", near("", tuple(METHODS)))
    for name in names:
        if reason := refusal(name, model):
            raise RequestError("attribution.methods", name, f"{reason}; leave it out")
    return {name: METHODS.get(name) or _of_heads(name, model) for name in names}


def _of_heads(name: str, model: Model) -> Method:
    """Parse ``attention_L5H1``, ``attention_L5``, in an encoder-decoder ``attention_cross.L5H1``."""
    where = name.removeprefix("attention_")
    if where == name or not re.search(r"L\d+", where):
        raise RequestError("attribution.methods", name, near(name, (*METHODS, "attention_L5", "attention_L5H1", "all")))
    heads = heads_named(where, model, "attribution.methods", name)
    if heads[0].stack == "encoder":
        raise RequestError("attribution.methods", name, "the decoder's tokens are not in the encoder's heads")
    return partial(attention_of, heads)


def heads_named(where: str, model: Model, key: str, name: str) -> list[Head]:
    """Return the heads of one attention, ``L5H1`` or ``L5``. Raises `RequestError` with this key and name."""
    try:
        return list(model.heads([where]))
    except RequestError as error:
        raise RequestError(key, name, error.remedy) from None


def score_methods(cache: ForwardCache, methods: dict[str, Method]) -> Float[np.ndarray, "method target node"]:
    """Score the tokens by each method; NaN for tokens that a target cannot attend to."""
    made = np.stack([method(cache) for method in methods.values()])
    return np.where(cache.example.visible, made, np.nan)
