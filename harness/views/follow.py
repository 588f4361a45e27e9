"""Follow one pair of words through all layers and heads: the attention weight as a table and as a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from harness.config import RequestError
from harness.hooks import Head
from harness.results.schema import pattern_variable
from harness.views.axis import Axis, axis, place_of, project, projection_note
from harness.views.frame_height import maps_height
from harness.views.notebook import View, static_view
from harness.views.page import asset
from harness.views.selection import checked_prompt, needs_patterns
from harness.views.text import markup

if TYPE_CHECKING:
    from harness.results import Run

#: A word by its text or its number, or several.
Keys = str | int | Sequence[str | int]


@dataclass(frozen=True)
class Pair:
    """The weight of a query on a key in each head; the numbers of both on the axis."""

    query: str
    key: str
    query_at: int
    key_at: int
    weight: Float[np.ndarray, "layer head"]

    @property
    def by_layer(self) -> Float[np.ndarray, " layer"]:
        """The mean over the heads of each layer."""
        return self.weight.mean(axis=1)


@dataclass(frozen=True)
class PairWeights:
    """Pairs with the same query, and the note of how patterns were projected."""

    pairs: tuple[Pair, ...]
    layers: tuple[int, ...]
    stack: str
    note: str

    @property
    def most(self) -> float:
        """The largest weight of all, which has the darkest shade."""
        return max(float(pair.weight.max(initial=0)) for pair in self.pairs)


def pair_weights(
    run: "Run", prompt: int, query: str | int, keys: Keys, level: str = "word", special: str = "keep", stack: str = ""
) -> PairWeights:
    """Return the weights of one word on others in every head of a stack.

    Words are named by their text, or by number where the prompt has it more than once.
    """
    needs_patterns(run)
    prompt, stack = checked_prompt(run, prompt), _checked_stack(run, stack)
    _, first, second = pattern_variable(stack)
    ours, theirs = (axis(run, prompt, level, special, source=dim.startswith("source_")) for dim in (first, second))
    pattern = run.pattern(prompt, stack).transpose("layer", "head", "query", "key")
    raw = pattern.values.astype(float)
    values, at = project(raw, ours, theirs), place_of(ours, query, "query")
    wanted = [keys] if isinstance(keys, str | int) else list(keys)
    if not wanted:
        raise RequestError("keys", "[]", 'name at least one word, such as keys=["cat"]')
    places = [place_of(theirs, key, "keys") for key in wanted]
    pairs = [Pair(_name(ours, at), _name(theirs, key), at, key, values[..., at, key]) for key in places]
    same = first.startswith("source_") == second.startswith("source_")
    ahead = [pair.key for pair in pairs if same and pair.key_at > at and not pair.weight.any()]
    notes = [projection_note(raw, ours, theirs)]
    if ahead:
        notes.append(f"What comes later cannot be seen from “{ours.labels[at]}”: {', '.join(ahead)}.")
    return PairWeights(tuple(pairs), tuple(map(int, pattern["layer"].values)), stack, " ".join(filter(None, notes)))


def _name(place: Axis, at: int) -> str:
    """Label a word, with its number where the prompt has it more than once."""
    labels = place.labels
    return f"{labels[at]} ({at})" if labels.count(labels[at]) > 1 else labels[at]


def _checked_stack(run: "Run", stack: str) -> str:
    stacks = run.layers
    stack = stack or ("decoder" if "decoder" in stacks else "")
    if stack not in stacks:
        raise RequestError("stack", stack, f"the run has {' '.join(stacks) or 'one stack only: leave it out'}")
    return stack


def follow_table(
    run: "Run", prompt: int, query: str | int, keys: Keys, level: str = "word", special: str = "keep", stack: str = ""
) -> pd.DataFrame:
    """Make one row for each key and head: ``query, key, head, layer, number, weight``; see `pair_weights`.

    Weights are shares of the query's attention, 0 to 1. ``attrs["by_layer"]`` has for each key the mean over the heads
    by layer: ``{"cat": {0: 0.08, 1: 0.07, …}}``. Raises `RequestError` for a word that the prompt lacks or has twice.

    >>> import harness
    >>> run = harness.look("planted", " da ko li da ko").run
    >>> harness.views.follow_table(run, 0, 4, 2).nlargest(1, "weight")["head"].item()     # the second da, on ko
    'L1H4'
    """
    weights = pair_weights(run, prompt, query, keys, level, special, stack)
    rows = [
        (pair.query, pair.key, str(Head(layer, head, weights.stack)), layer, head, float(weight))
        for pair in weights.pairs
        for layer, row in zip(weights.layers, pair.weight, strict=True)
        for head, weight in enumerate(row)
    ]
    made = pd.DataFrame(rows, columns=["query", "key", "head", "layer", "number", "weight"])
    made.attrs["note"] = weights.note
    made.attrs["by_layer"] = {
        pair.key: dict(zip(weights.layers, pair.by_layer.tolist(), strict=True)) for pair in weights.pairs
    }
    return made


def follow(
    run: "Run", prompt: int, query: str | int, keys: Keys, level: str = "word", special: str = "keep", stack: str = ""
) -> View:
    """Show a map of all heads for each key: the darker, the more of the query's attention is on it.

    Beside the heads of a layer stands their mean, the answer by layer. Weights are shares of the query's attention,
    0 to 1. Raises `RequestError` for a word that the prompt lacks or has twice, and for a run without patterns.

    >>> import harness
    >>> run = harness.look("planted", " da ko li da ko").run
    >>> harness.views.follow(run, 0, 4, 2)
    View(From “da (4)” to “ko (2)”, in every head)
    """
    weights = pair_weights(run, prompt, query, keys, level, special, stack)
    maps = "".join(_map(weights, pair) for pair in weights.pairs)
    note = f"<p class='note'>{markup(weights.note)}</p>" if weights.note else ""
    scale = f"<p class='note'>The darkest shade is {weights.most:.3f}, in all maps; each cell has its own weight.</p>"
    names = " and ".join(f"“{pair.key}”" for pair in weights.pairs)
    title = f"From “{weights.pairs[0].query}” to {names}, in every head"
    body = f"<header><h1>{markup(title)}</h1>{note}{scale}</header><main><div class='maps'>{maps}</div></main>"
    sizes = [(n_layers, n_heads + 2) for n_layers, n_heads in (pair.weight.shape for pair in weights.pairs)]
    height = maps_height(title, sizes, [weights.note, scale])
    return static_view(title, body, height, asset("saliency.css"))


def _map(weights: PairWeights, pair: Pair) -> str:
    title = f"<h2>“<bdi>{markup(pair.query)}</bdi>” → “<bdi>{markup(pair.key)}</bdi>”</h2>"
    if not pair.weight.any():
        return f"<section>{title}<p class='define'>No head looks there.</p></section>"
    layer, head = np.unravel_index(pair.weight.argmax(), pair.weight.shape)
    best = Head(weights.layers[layer], int(head), weights.stack)
    heads = "".join(f'<th scope="col">{number}</th>' for number in range(pair.weight.shape[1]))
    heads += '<th></th><th scope="col">mean</th>'
    tying = int(pair.by_layer.argmax())
    rows = "".join(_row(weights, layer, row) for layer, row in zip(weights.layers, pair.weight, strict=True))
    return (
        f"<section>{title}<p class='define'>Most in {best}: {pair.weight.max():.3f}; by the mean over heads most in "
        f"layer {weights.layers[tying]}: {pair.by_layer[tying]:.3f}; mean of all heads {pair.weight.mean():.3f}. "
        f"Layers down, heads and their mean across.</p><div class='scroll' tabindex='0' role='region' "
        f"aria-label='weights'><table class='heat'><thead><tr><th></th>{heads}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _row(weights: PairWeights, layer: int, weight: Float[np.ndarray, " head"]) -> str:
    cells = "".join(_cell(weights, str(Head(layer, head, weights.stack)), value) for head, value in enumerate(weight))
    mean = _cell(weights, f"mean of layer {layer}", float(weight.mean()))
    return f'<tr><th scope="row">{layer}</th>{cells}<th></th>{mean}</tr>'


def _cell(weights: PairWeights, name: str, value: float) -> str:
    share = 0 if weights.most == 0 else np.sqrt(value / weights.most)
    tip = f"{name}: {value:.4f}"
    shown = f"{value:.2f}".removeprefix("0") if value >= 0.005 else "·"
    return f'<td class="mark" style="--share:{share:.3f}" data-tip="{markup(tip)}">{shown}</td>'
