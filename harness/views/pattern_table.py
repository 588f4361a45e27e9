"""Tables of one pattern of a prompt: a head's, a layer's mean, the mean of all heads, or the rollout, by token or word;
and each query's strongest keys."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from harness.attribution.saved_rollout import rollout_of
from harness.config import RequestError
from harness.hooks import Head, parse_heads
from harness.results.schema import pattern_variable
from harness.views.axis import Axis, axis, project, projection_note
from harness.views.selection import checked_prompt, needs_patterns

if TYPE_CHECKING:
    from harness.results import Run

#: Patterns other than those of heads, layers and stacks.
MEAN, ROLLOUT = "mean", "rollout"


@dataclass(frozen=True)
class Weights:
    """Numbers over two axes, queries and keys, with a title, the note of how they were projected, and their unit."""

    values: Float[np.ndarray, "query key"]
    queries: Axis
    keys: Axis
    title: str
    note: str
    unit: str = "attention weight"


def weights(
    run: "Run", prompt: int, of: Head | str | int = MEAN, level: str = "token", special: str = "keep"
) -> Weights:
    """Return the pattern that `of` names: a head (``L5H1``), the mean of a layer (``L5``), of a range (``L5-L9``), of a
    stack (``cross``), of all heads (``mean``), or the ``rollout``."""
    needs_patterns(run)
    prompt = checked_prompt(run, prompt)
    if isinstance(of, int | np.integer):
        raise RequestError(
            "head", of, f'write "L{of}" for the layer\'s mean, or "L{of}H1" for one head, which is head({of}, 1) too'
        )
    raw, stack, title = _named(run, prompt, of.strip() if isinstance(of, str) else str(Head.parse(of)))
    _, query, key = pattern_variable(stack)
    queries, keys = (axis(run, prompt, level, special, source=dim.startswith("source_")) for dim in (query, key))
    unit = ROLLOUT if of == ROLLOUT else "attention weight"
    return Weights(project(raw, queries, keys), queries, keys, title, projection_note(raw, queries, keys), unit)


def _named(run: "Run", prompt: int, of: str) -> tuple[Float[np.ndarray, "query key"], str, str]:
    """Return the pattern by position, its stack, and its title."""
    if of == ROLLOUT:
        return rollout_of(run, prompt), "", "Attention rollout"
    heads = named_heads(run, of)
    stack = heads[0].stack
    every = run.pattern(prompt, stack).transpose("layer", "head", "query", "key").astype(float)
    values = np.mean([every.sel(layer=head.layer, head=head.head).values for head in heads], axis=0)
    which = f"all {len(heads)} heads" if of == MEAN else f"{len(heads)} heads ({of})"
    return values, stack, of if len(heads) == 1 else f"Mean of {which}"


def named_heads(run: "Run", of: str) -> tuple[Head, ...]:
    """Return the named heads of one stack; ``mean`` names all of the model's own."""
    stacks = run.layers
    own = "decoder" if "decoder" in stacks else ""
    n_heads = int(run.data["head"].values.max()) + 1
    model = str((run.spec.get("model") or {}).get("name", "the run"))
    name = (own or "all") if of == MEAN else of
    try:
        return parse_heads([name], model, stacks, n_heads)
    except RequestError as error:
        if not error.remedy.startswith("a head is written"):
            raise
        raise RequestError("head", of, f"{error.remedy}; or pass {MEAN} or {ROLLOUT}") from None


def table(
    run: "Run", prompt: int, head: Head | str = MEAN, level: str = "token", special: str = "keep"
) -> pd.DataFrame:
    """Return the attention weights on one prompt, queries by keys; rows sum to 1.

    A model with a learnt sink has a last column ``sink``. `head` names a head (``L5H1``), a layer's mean (``L5``),
    ``mean`` (of all heads), or ``rollout``; `level` is ``token`` or ``word``; ``special="drop"`` leaves special tokens
    out and renormalises, as ``table.attrs["note"]`` states; a label that stands more than once has its number on the
    axis, `` the (4)``; ``table.to_csv(path)`` writes it. Raises `RequestError` for a prompt, head or level that is not
    there, and for a run without patterns.

    >>> import harness
    >>> run = harness.look("planted", " da ko li da ko").run
    >>> harness.views.table(run, 0, "L1H4").shape, round(float(harness.views.table(run, 0, "L1H4").iloc[4, 2]), 3)
    ((6, 6), 1.0)
    """
    pattern = weights(run, prompt, head, level, special)
    index = pd.Index(addressed(pattern.queries.labels), name="query")
    columns = pd.Index(addressed(pattern.keys.labels), name="key")
    made = pd.DataFrame(pattern.values, index=index, columns=columns)
    if "sink" in run.data and special == "keep":
        made["sink"] = np.clip(1 - pattern.values.sum(axis=1), 0, 1)
    made.attrs.update(title=pattern.title, note=pattern.note)
    return made


def addressed(labels: Sequence[str]) -> list[str]:
    """Return the labels, those that repeat with their number on the axis, so that each names one row.

    >>> addressed(["the", "dog", "the"])
    ['the (0)', 'dog', 'the (2)']
    """
    times = Counter(labels)
    return [f"{label} ({at})" if times[label] > 1 else label for at, label in enumerate(labels)]


def strongest_keys(
    run: "Run", prompt: int, head: Head | str = MEAN, n: int = 3, level: str = "token", special: str = "keep"
) -> pd.DataFrame:
    """List the `n` keys with the largest weights of each query, with their numbers on the axes.

    Weights are shares of the query's attention, 0 to 1; keys with weight 0 (masked, or not attended to) are not listed.
    Raises `RequestError` for an `n` below 1 and as `table` does.

    >>> import harness
    >>> run = harness.look("planted", " da ko li da ko").run
    >>> harness.views.strongest_keys(run, 0, "L1H4", n=1)["key"].tolist()[-2:]      # of the second da and ko
    [' ko', ' li']
    """
    if n < 1:
        raise RequestError("n", n, "pass 1 or more")
    pattern = weights(run, prompt, head, level, special)
    rows = []
    for query, row in enumerate(pattern.values):
        for rank, key in enumerate(np.argsort(-row, kind="stable")[:n], 1):
            if row[key] > 0:
                names = pattern.queries.labels[query], pattern.keys.labels[key]
                rows.append((query, names[0], rank, int(key), names[1], float(row[key])))
    made = pd.DataFrame(rows, columns=["query_at", "query", "rank", "key_at", "key", "weight"])
    made.attrs.update(title=pattern.title, note=pattern.note)
    return made
