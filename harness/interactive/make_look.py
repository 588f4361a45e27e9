"""Make a `Look` of a model and a text, of a saved run, or of cached activations: `harness.look`."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from harness.config import AttributionSpec, RequestError, quoted
from harness.results import Run, open_run
from harness.results.run import IN_MEMORY
from harness.views.axis import LEVELS
from harness.views.look import Gradient, Look
from harness.views.selection import checked_prompt, needs_patterns
from harness.words.segment import is_unspaced

if TYPE_CHECKING:
    from harness.attention.capture import Kind
    from harness.models import Model
    from harness.prompts import Prompts


#: Tokens, each prediction with its whole text, whose gradients are taken together.
_SALIENCY_TOKENS = 2048
#: By kind of model: the number whose gradient is shown, and a sentence on it.
_EXPLAINED = {
    "decoder": (
        "the loss",
        "The loss is minus the log-probability of the token that follows; nothing follows the last token, whose score "
        "is 0.",
    ),
    "encoder_decoder": ("the loss", "The loss is minus the log-probability of the next token that is written."),
    "masked_lm": ("the loss", "The loss is minus the log-probability of a token while it is masked."),
    "classifier": ("the label’s loss", "The loss is minus the log-probability of the label."),
    "embedding": ("the text’s vector", "The number is the vector’s length along its own direction."),
}


def look(
    what: "Model | Run | xr.Dataset | str | Path",
    text: str | None = None,
    pair: str | None = None,
    *,
    target: str | None = None,
    prompt: int = 0,
    level: str | None = None,
) -> Look:
    """Show what every head of a model attends to in a text, or in a pair of sentences, which encoders read.

    `what` is a model or anything that `harness.load_model` takes, a saved run or its directory, or the arrays of
    `harness.cache_attention`; of the last three `prompt` says which prompt, and no model is needed. An encoder-decoder
    reads `text` and writes `target`. `level` is ``token`` or ``word``; by default words where the script puts no spaces
    between them. The result shows itself in a notebook; its methods are heatmaps, lines, tables, rollout and saliency.

    Raises `RequestError` for an empty text, one longer than the model reads, a prompt that is not there, and a run
    without patterns.

    >>> import harness
    >>> seen = harness.look("random", "The dog chased the cat")
    >>> seen.table("L0H1").shape
    (16, 16)
    >>> seen.head("L0H1")
    View(L0H1 · The dog chased the cat)
    """
    if level is not None and level not in LEVELS:
        raise RequestError("level", level, f"choose {' or '.join(LEVELS)}")
    for key, second in (("pair", pair), ("target", target)):
        if text is None and second is not None:
            raise RequestError(key, quoted(second), "it belongs to a text: pass both, look(model, text, …)")
    if text is None:
        run, gradient = _saved(what), None
    else:
        run, gradient = _cached(what, text, pair, target)
    needs_patterns(run)
    number = checked_prompt(run, prompt)
    unspaced = any(map(is_unspaced, run.text(number)))
    return Look(run, number, level or ("word" if unspaced else "token"), gradient)


def _saved(what: Any) -> Run:
    """A run, or what stands for one: its directory, or arrays in memory."""
    if isinstance(what, Run):
        return what
    if isinstance(what, xr.Dataset):
        return Run(IN_MEMORY, {"model": {}, "prompts": {"name": "inline"}}, {"model": {}}, what)
    if isinstance(what, str | Path) and Path(what).is_dir():
        return open_run(what)
    if isinstance(what, str | Path):
        raise RequestError(
            "look", what, 'there is no such run; to look at a text pass it too: look(model, "The dog …")'
        )
    raise RequestError("text", "none", 'pass the text to look at: look(model, "The dog chased the cat")')


def _cached(what: Any, text: str, pair: str | None, target: str | None) -> tuple[Run, Gradient]:
    """The text's attention as a run in memory, and its gradient saliency."""
    from harness.interactive.compute import cache_attention
    from harness.models import Model, load_model
    from harness.prompts import load_prompts

    if not isinstance(text, str):
        raise RequestError("text", repr(text), 'pass one text: look(model, "The dog chased the cat")')
    if not text.strip():
        raise RequestError("text", quoted(text), "give a text with at least one word")
    model = what if isinstance(what, Model) else load_model(what)
    others: dict[str, Any] = {name: [each] for name, each in (("pair", pair), ("target", target)) if each is not None}
    try:
        prompts = load_prompts("inline", model, text=[text], **others)
    except RequestError as error:  # in the caller's own names
        own = error.remedy.replace("prompts.", "")
        raise RequestError(error.key.removeprefix("prompts."), error.value, own) from None
    also: tuple[Kind, ...] = ("q", "k", "v", "scores") if model.traits.has_scores else ("q", "k", "v")
    norm = partial(_gradient, model, prompts, model.bridge.interventions)
    predicts_at = tuple(np.flatnonzero(prompts.target[0]).tolist())
    return cache_attention(model, prompts, also=also), Gradient(norm, *_EXPLAINED[model.kind], predicts_at)


def _gradient(
    model: "Model", prompts: "Prompts", in_force: tuple[Any, ...], at: int | None = None
) -> Float[np.ndarray, " position"]:
    """The norm of the gradient at each token's embedding, of the prediction made `at` a position or mean over all; 0
    for those that cannot see the token.

    Raises `RequestError` where the ablations `in_force` when the patterns were cached no longer are, or others are.
    """
    from harness.attribution.example import example_of
    from harness.attribution.forward_cache import ForwardCache
    from harness.attribution.methods import METHODS, score_methods
    from harness.attribution.occlusion import mean_embedding

    if [*map(id, model.bridge.interventions)] != [*map(id, in_force)]:
        remedy = "the model's ablations are others than when the look was made: call it where harness.look was called"
        raise RequestError("saliency", model.name, remedy)
    one = prompts.take([0])
    scored = np.flatnonzero(one.target[0]) if at is None else np.array([at])
    at_once = max(1, _SALIENCY_TOKENS // int(one.width[0]))  # of long texts all at once would not fit into memory
    scores = []
    for some in np.array_split(scored, -(-len(scored) // at_once)) if len(scored) else [scored]:
        correct = np.where(np.isin(np.arange(one.correct.shape[1]), some), one.correct, -1)
        example = example_of(model, replace(one, correct=correct))
        cache = ForwardCache(example, AttributionSpec(), mean_embedding(model))
        scores.append(np.nan_to_num(score_methods(cache, {"gradient": METHODS["gradient"]})[0]))
    return np.concatenate(scores).mean(axis=0)[-int(prompts.length[0]) :]
