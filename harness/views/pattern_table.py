"""One pattern of a prompt in numbers: a head's, the mean of a layer's or of all heads, or the rollout, by token or
word; each query's strongest keys."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from harness.attribution.saved_rollout import rollout_of
from harness.config import RequestError
from harness.hooks import Head, parse_heads
from harness.results.schema import pattern_variable
from harness.views.axis import Axis, axis, brought, told
from harness.views.selection import checked_prompt, needs_patterns

if TYPE_CHECKING:
    from harness.results import Run

#: What a request names beside heads, layers and stacks.
MEAN, ROLLOUT = "mean", "rollout"


@dataclass(frozen=True)
class Weights:
    """A pattern over two axes: who looks (queries) and who is looked at (keys), and what was done to it, in words."""

    values: Float[np.ndarray, "query key"]
    queries: Axis
    keys: Axis
    title: str
    note: str


def weights(run: "Run", prompt: int, of: Head | str = MEAN, level: str = "token", special: str = "keep") -> Weights:
    """The pattern that `of` names: a head (``L5H1``), the mean of a layer (``L5``), of a stack (``cross``), of all
    heads (``mean``), or the ``rollout``."""
    needs_patterns(run)
    prompt = checked_prompt(run, prompt)
    raw, stack, title = _named(run, prompt, str(of).strip())
    _, query, key = pattern_variable(stack)
    queries, keys = (axis(run, prompt, level, special, source=dim.startswith("source_")) for dim in (query, key))
    return Weights(brought(raw, queries, keys), queries, keys, title, told(raw, queries, keys))


def _named(run: "Run", prompt: int, of: str) -> tuple[Float[np.ndarray, "query key"], str, str]:
    """The pattern by position, its stack, and what it is called."""
    if of == ROLLOUT:
        return rollout_of(run, prompt), "", "Attention rollout"
    heads = named_heads(run, of)
    stack = heads[0].stack
    every = run.pattern(prompt, stack).transpose("layer", "head", "query", "key").astype(float)
    values = np.mean([every.sel(layer=head.layer, head=head.head).values for head in heads], axis=0)
    return values, stack, of if len(heads) == 1 else f"Mean of {len(heads)} heads ({of})"


def named_heads(run: "Run", of: str) -> tuple[Head, ...]:
    """The heads of one stack that a request names; ``mean`` names all of the model's own."""
    stacks = run.layers
    own = "decoder" if "decoder" in stacks else ""
    n_heads = int(run.data["head"].values.max()) + 1
    model = str((run.spec.get("model") or {}).get("name", "the run"))
    asked = (own or "all") if of == MEAN else of
    try:
        return parse_heads([asked], model, stacks, n_heads)
    except RequestError as error:
        if not error.remedy.startswith("a head is written"):
            raise
        raise RequestError("head", of, f"{error.remedy}; or say {MEAN} or {ROLLOUT}") from None


def table(
    run: "Run", prompt: int, head: Head | str = MEAN, level: str = "token", special: str = "keep"
) -> pd.DataFrame:
    """Attention weights on one prompt: rows look, columns are looked at; rows sum to 1. A model with a learnt sink has
    a column ``sink`` more, the last.

    `head` names a head (``L5H1``), a layer's mean (``L5``), ``mean`` (of all heads), or ``rollout``; `level` is
    ``token`` or ``word``; ``special="drop"`` leaves special tokens out and renormalises. What was done stands in
    ``table.attrs["note"]``; ``table.to_csv(path)`` writes it.
    """
    found = weights(run, prompt, head, level, special)
    labels = pd.Index(found.queries.labels, name="query"), pd.Index(found.keys.labels, name="key")
    made = pd.DataFrame(found.values, index=labels[0], columns=labels[1])
    if "sink" in run.data and special == "keep":
        made["sink"] = np.clip(1 - found.values.sum(axis=1), 0, 1)
    made.attrs.update(title=found.title, note=found.note)
    return made


def strongest_keys(
    run: "Run", prompt: int, head: Head | str = MEAN, n: int = 3, level: str = "token", special: str = "keep"
) -> pd.DataFrame:
    """For each query the `n` keys it looks at most: one row each, with their numbers on the axes and their weights.

    What a query cannot see, or does not look at, is not listed.
    """
    if n < 1:
        raise RequestError("n", n, "ask for at least one key")
    found = weights(run, prompt, head, level, special)
    rows = []
    for query, row in enumerate(found.values):
        for rank, key in enumerate(np.argsort(-row, kind="stable")[:n], 1):
            if row[key] > 0:
                names = found.queries.labels[query], found.keys.labels[key]
                rows.append((query, names[0], rank, int(key), names[1], float(row[key])))
    made = pd.DataFrame(rows, columns=["query_at", "query", "rank", "key_at", "key", "weight"])
    made.attrs.update(title=found.title, note=found.note)
    return made
