"""Text coloured by one score per token: a gradient's, any attribution method's, an attention row, or scores of yours.

`coloured` chooses and scales the numbers; `saliency` makes a page of them, `word_figures` a picture.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jaxtyping import Float

from harness.config import RequestError
from harness.hooks import Head
from harness.views.axis import LEVELS, Axis, axis, place_of
from harness.views.pattern_table import MEAN, weights
from harness.views.selection import asked_prompts, checked_prompt
from harness.views.text import short

if TYPE_CHECKING:
    from harness.results import Run

SCALES = ("text", "shared")
#: What a run calls the norm of the loss's gradient at the embeddings, which is shown first.
_GRADIENT = ("gradient", "gradient_norm")
#: More texts than this are asked for by number.
MANY = 40

#: One score per position of a prompt, or of several prompts by their number.
Scores = Float[np.ndarray, " position"] | xr.DataArray | Mapping[int, np.ndarray]


@dataclass(frozen=True)
class Colours:
    """A text in words or tokens with a score each and the `share` of the scale that it has: 0 to 1, or from −1 where
    scores have a sign."""

    axis: Axis
    score: Float[np.ndarray, " place"]
    share: Float[np.ndarray, " place"]


@dataclass(frozen=True)
class Text:
    """One prompt: where its scores come from, and how it looks by token and by word."""

    prompt: int
    told: str
    by: Mapping[str, Colours]


@dataclass(frozen=True)
class Saliency:
    """Texts under one rule: what the scores are and how colours come of them, in words; and the scale where it is
    shared."""

    texts: tuple[Text, ...]
    what: str
    how: str
    signed: bool


def coloured(
    run: "Run",
    prompts: int | Sequence[int] | None = None,
    head: Head | str | None = None,
    method: str | None = None,
    query: str | int | None = None,
    scores: Scores | None = None,
    merge: str = "sum",
    scale: str = "text",
    special: str = "drop",
) -> Saliency:
    """The scores of some prompts as colours; see `saliency.saliency` for what is taken."""
    if scale not in SCALES:
        raise RequestError("scale", scale, f"choose {' or '.join(SCALES)}")
    numbers = _numbers(run, prompts)
    chosen = None if scores is not None or head is not None else _method(run, method)
    found = [_scores(run, number, head, chosen, query, scores) for number in numbers]
    texts = [
        Text(number, told, {level: _unscaled(axis(run, number, level, special), values, merge) for level in LEVELS})
        for number, (values, told) in zip(numbers, found, strict=True)
    ]
    signed = any((each.score < 0).any() for text in texts for each in text.by.values())
    texts = _scaled(texts, scale, signed)
    what = f"{chosen} scores" if chosen else "given scores" if scores is not None else "attention weights"
    return Saliency(tuple(texts), what, _how(merge, scale, special, signed), signed)


def _numbers(run: "Run", prompts: int | Sequence[int] | None) -> list[int]:
    if prompts is None:
        return asked_prompts(run)[:MANY]
    wanted = [prompts] if isinstance(prompts, int | np.integer) else list(prompts)
    return [checked_prompt(run, number, "prompts") for number in wanted]


def _method(run: "Run", method: str | None) -> str | None:
    """The attribution method that is shown: the one asked for, a gradient's norm, or the first, if there is one."""
    known = [str(name) for name in run.data["method"].values] if "attribution" in run.data else []
    if method is not None and method not in known:
        remedy = f"the run has {', '.join(known)}" if known else "this run has no attributions; give a head instead"
        raise RequestError("method", method, remedy)
    first = [name for name in known if name in _GRADIENT]
    return method or next(iter([*first, *known]), None)


def _scores(
    run: "Run", prompt: int, head: Head | str | None, method: str | None, query: str | int | None, given: Scores | None
) -> tuple[Float[np.ndarray, " position"], str]:
    """One score per position, and where it comes from."""
    length = int(run.data["length"].values[prompt])
    if given is not None:
        return _given(given, prompt, length), ""
    if method is not None:
        return _attributed(run, prompt, method, query)
    return _looked(run, prompt, MEAN if head is None else head, query)


def _given(given: Scores, prompt: int, length: int) -> Float[np.ndarray, " position"]:
    mine = given.get(prompt) if isinstance(given, Mapping) else given
    values = np.asarray([] if mine is None else mine, dtype=float)
    if values.shape != (length,) or not np.isfinite(values).all():
        raise RequestError("scores", list(values.shape), f"prompt {prompt} needs {length} finite scores, one a token")
    return values


def _attributed(
    run: "Run", prompt: int, method: str, query: str | int | None
) -> tuple[Float[np.ndarray, " position"], str]:
    """A method's scores for the prediction made at one position, or their mean over all that it explains."""
    length = int(run.data["length"].values[prompt])
    array = run.data["attribution"].sel({"method": method}).isel(prompt=prompt).transpose("target_position", "position")
    values = array.values.astype(float)[:, :length]
    targets = np.flatnonzero(np.isfinite(values).any(axis=1))
    made_at = run.data["explained"].values[prompt] if "explained" in run.data else np.arange(len(values))
    if not len(targets):
        raise RequestError("method", method, f"it has no scores on prompt {prompt}")
    if query is not None:
        at = place_of(axis(run, prompt), query, "query")
        known = ", ".join(str(made_at[target]) for target in targets)
        targets = targets[made_at[targets] == at]
        if not len(targets):
            raise RequestError("query", query, f"{method} explains the predictions at positions {known}")
    mean = np.nan_to_num(values[targets]).mean(axis=0)
    if len(targets) > 1:
        return mean, f"mean of {len(targets)} predictions"
    return mean, f"prediction at {_at(run, prompt, int(made_at[targets[0]]))}"


def _at(run: "Run", prompt: int, position: int) -> str:
    """A position as a reader finds it: the word that it is in, and its number."""
    words = axis(run, prompt, "word")
    return f"“{short(words.labels[int(words.place[position])], 30)}” (token {position})"


def _looked(
    run: "Run", prompt: int, head: Head | str, query: str | int | None
) -> tuple[Float[np.ndarray, " position"], str]:
    """One query's attention row, by default from the last scored position; where none is scored, the mean row."""
    found = weights(run, prompt, head)
    if len(found.queries) != len(axis(run, prompt)) or len(found.keys) != len(axis(run, prompt)):
        raise RequestError("head", head, "its row is over the source text; look at it with views.table")
    if query is None and not run.data["target"].values[prompt].any():
        return found.values.mean(axis=0), f"{found.title}, mean over all queries"
    at = run.last_scored(prompt) if query is None else place_of(found.queries, query, "query")
    return found.values[at], f"{found.title}, from {_at(run, prompt, at)}"


def _unscaled(place: Axis, scores: Float[np.ndarray, " position"], merge: str) -> Colours:
    made = place.scores(scores, merge)
    return Colours(place, made, np.zeros_like(made))


def _scaled(texts: Sequence[Text], scale: str, signed: bool) -> list[Text]:
    """The texts with the share of the scale that each place has, by token and by word each on their own scale."""
    made = [dict(text.by) for text in texts]
    for level in LEVELS:
        every = [text.by[level].score for text in texts]
        for number, text in enumerate(texts):
            scores = text.by[level].score
            made[number][level] = replace(
                text.by[level], share=_shares(scores, np.concatenate(every) if scale == "shared" else scores, signed)
            )
    return [replace(text, by=by) for text, by in zip(texts, made, strict=True)]


def _shares(
    scores: Float[np.ndarray, " place"], among: Float[np.ndarray, " other"], signed: bool
) -> Float[np.ndarray, " place"]:
    """Min–max: the smallest of those on the scale is 0, the largest 1. With a sign 0 stays 0, the largest size is 1."""
    if not len(among):
        return scores
    low, high = (0.0, np.abs(among).max()) if signed else (among.min(), among.max())
    return np.zeros_like(scores) if high == low else (scores - low) / (high - low)


def _how(merge: str, scale: str, special: str, signed: bool) -> str:
    """How the colours come of the scores, for under the picture."""
    of = "all texts here together" if scale == "shared" else "each text by itself"
    said = f"A word’s score is the {merge} over its tokens. "
    said += f"Scaled over {of}: " + (
        "the largest size has the full colour, blue above zero and orange below."
        if signed
        else "the smallest score has no colour and the largest the full one (min–max)."
    )
    return said + (" Special tokens are left out." if special == "drop" else "")


def plainly(text: Text) -> str:
    """The heading of a text."""
    return f"Prompt {text.prompt}: {text.told}" if text.told else f"Prompt {text.prompt}"
