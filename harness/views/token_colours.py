"""Colour text by one score per token: of an attribution method, an attention row, or the caller's own.

`colour` chooses and scales the numbers; `saliency` makes a page of them, `figures.words` a picture.
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
from harness.views.selection import checked_prompt, shown_prompts
from harness.views.text import short

if TYPE_CHECKING:
    from harness.results import Run

SCALES = ("text", "shared")
#: The names of the gradient norm in a run, which is the default method.
GRADIENT = ("gradient", "gradient_norm")
#: The most texts shown by default.
MANY = 40

#: One score per position of a prompt, or of several prompts by their number.
Scores = Float[np.ndarray, " position"] | xr.DataArray | Mapping[int, np.ndarray]


@dataclass(frozen=True)
class Colours:
    """A text in words or tokens, each with its score and its `share` of the scale: 0 to 1, or from −1 if signed."""

    axis: Axis
    score: Float[np.ndarray, " place"]
    share: Float[np.ndarray, " place"]


@dataclass(frozen=True)
class Text:
    """One prompt: the source of its scores, in words, and its colours by token and by word."""

    prompt: int
    source: str
    by: Mapping[str, Colours]
    #: Whether the run has no other prompt.
    alone: bool = False


@dataclass(frozen=True)
class Saliency:
    """Texts coloured by one rule: what the scores are and how they are scaled, in words."""

    texts: tuple[Text, ...]
    what: str
    how: str
    signed: bool


def colour(
    run: "Run",
    prompts: int | Sequence[int] | None = None,
    head: Head | str | None = None,
    method: str | None = None,
    query: str | int | None = None,
    scores: Scores | None = None,
    merge: str = "sum",
    scale: str = "text",
    special: str = "drop",
    name: str = "custom scores",
    about: str = "",
) -> Saliency:
    """Return the scores of some prompts as colours; each text's smallest and largest score are the ends of the scale.

    The scores are the first of: `scores` (one per position of the prompt, or ``{prompt: scores}``; `name` is what they
    are, `about` a sentence on them); the attention row of `head` (``"L5H1"``, ``"L5"``, ``"mean"`` or ``"rollout"``)
    from `query`, by default the last scored position; an attribution `method` of the run (default: the gradient norm)
    for the prediction at `query`, by default the mean over all; in a run without attributions, the mean attention row.

    A word's score is the ``sum`` (`merge`: or ``mean``, ``max``) over its tokens. ``scale="shared"`` puts all texts on
    one scale; ``special="keep"`` keeps special tokens. Raises `RequestError` for an unknown prompt, head, method, query
    or scale, and for a method beside a head or scores.
    """
    if scale not in SCALES:
        raise RequestError("scale", scale, f"choose {' or '.join(SCALES)}")
    numbers, alone = _numbers(run, prompts), run.data.sizes["prompt"] == 1
    other = "scores" if scores is not None else "head" if head is not None else ""
    chosen = _method(run, method, other)
    scored = [_scores(run, number, head, chosen, query, scores) for number in numbers]
    texts = []
    for number, (values, source) in zip(numbers, scored, strict=True):
        by = {level: _unscaled(axis(run, number, level, special), values, merge) for level in LEVELS}
        texts.append(Text(number, source, by, alone))
    signed = any((each.score < 0).any() for text in texts for each in text.by.values())
    texts = _scaled(texts, scale, signed)
    what = f"{chosen} scores" if chosen else name if scores is not None else "attention weights"
    how = " ".join(filter(None, (about, _how(merge, scale, special, signed))))
    return Saliency(tuple(texts), what, how, signed)


def _numbers(run: "Run", prompts: int | Sequence[int] | None) -> list[int]:
    if prompts is None:
        return shown_prompts(run)[:MANY]
    wanted = [prompts] if isinstance(prompts, int | np.integer) else list(prompts)
    return [checked_prompt(run, number, "prompts") for number in wanted]


def _method(run: "Run", method: str | None, other: str) -> str | None:
    """Return the attribution method to show: the requested one, the gradient norm, or the first, if there is one; none
    where `other` scores are passed."""
    if other and method is not None:
        raise RequestError("method", method, f"{other} is what is shown: leave out one of the two")
    if other:
        return None
    known = [str(name) for name in run.data["attribution_method"].values] if "attribution" in run.data else []
    if method is not None and method not in known:
        remedy = f"the run has {', '.join(known)}" if known else "this run has no attributions; pass a head instead"
        raise RequestError("method", method, remedy)
    first = [name for name in known if name in GRADIENT]
    return method or next(iter([*first, *known]), None)


def _scores(
    run: "Run", prompt: int, head: Head | str | None, method: str | None, query: str | int | None, scores: Scores | None
) -> tuple[Float[np.ndarray, " position"], str]:
    """Return one score per position, and their source in words."""
    if scores is None and method is not None:
        return _attribution(run, prompt, method, query)
    if scores is None:
        return _attention_row(run, prompt, MEAN if head is None else head, query)
    length = int(run.data["length"].values[prompt])
    mine = scores.get(prompt) if isinstance(scores, Mapping) else scores
    values = np.asarray([] if mine is None else mine, dtype=float)
    if values.shape != (length,) or not np.isfinite(values).all():
        raise RequestError("scores", list(values.shape), f"prompt {prompt} needs {length} finite scores, one a token")
    return values, ""


def _attribution(
    run: "Run", prompt: int, method: str, query: str | int | None
) -> tuple[Float[np.ndarray, " position"], str]:
    """Return a method's scores for the prediction made at one position, or their mean over all predictions."""
    length = int(run.data["length"].values[prompt])
    array = (
        run.data["attribution"]
        .sel(attribution_method=method)
        .isel(prompt=prompt)
        .transpose("target_position", "position")
    )
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
    return mean, f"prediction at {at_word(run, prompt, int(made_at[targets[0]]))}"


def at_word(run: "Run", prompt: int, position: int) -> str:
    """Describe a position: its word and its number."""
    words = axis(run, prompt, "word")
    return f"“{short(words.labels[int(words.place[position])], 30)}” (token {position})"


def _attention_row(
    run: "Run", prompt: int, head: Head | str, query: str | int | None
) -> tuple[Float[np.ndarray, " position"], str]:
    """Return one query's attention row, by default of the last scored position; without scored ones, the mean row."""
    pattern = weights(run, prompt, head)
    if len(pattern.queries) != len(axis(run, prompt)) or len(pattern.keys) != len(axis(run, prompt)):
        raise RequestError("head", head, "its row is over the source text; use views.table")
    if query is None and not run.data["target"].values[prompt].any():
        return pattern.values.mean(axis=0), f"{pattern.title}, mean over all queries"
    at = run.last_scored(prompt) if query is None else place_of(pattern.queries, query, "query")
    return pattern.values[at], f"{pattern.title}, from {at_word(run, prompt, at)}"


def _unscaled(place: Axis, scores: Float[np.ndarray, " position"], merge: str) -> Colours:
    made = place.scores(scores, merge)
    return Colours(place, made, np.zeros_like(made))


def _scaled(texts: Sequence[Text], scale: str, signed: bool) -> list[Text]:
    """Add each place's share of the scale, by token and by word each on their own scale."""
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
    """Scale scores by min–max to 0 to 1; signed ones by the largest size, so that 0 stays 0."""
    if not len(among):
        return scores
    low, high = (0.0, np.abs(among).max()) if signed else (among.min(), among.max())
    return np.zeros_like(scores) if high == low else (scores - low) / (high - low)


def _how(merge: str, scale: str, special: str, signed: bool) -> str:
    """Describe how scores become colours, for the caption."""
    of = "all texts here together" if scale == "shared" else "each text by itself"
    text = f"A word’s score is the {merge} over its tokens. "
    text += f"Scaled over {of}: " + (
        "the largest size has the full colour, blue above zero and orange below."
        if signed
        else "the smallest score has no colour and the largest the full one (min–max)."
    )
    return text + (" Special tokens are left out." if special == "drop" else "")


def heading(text: Text) -> str:
    """Return the heading of a text; of the only one that of its scores, if any."""
    if text.alone:
        return text.source[:1].upper() + text.source[1:]
    return f"Prompt {text.prompt}: {text.source}" if text.source else f"Prompt {text.prompt}"
