"""What a head computes with where it was kept: scores before the softmax, weights times values, query times key."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from harness.config import RequestError
from harness.hooks import Head, variable_name
from harness.views.axis import place_of, project
from harness.views.pattern_table import Weights, weights
from harness.views.selection import checked_head

if TYPE_CHECKING:
    from harness.results import Run

#: Products of queries and keys as projected differ from the scores by more than this where a position is rotated in.
_EQUAL = 1e-3


def value_weights(run: "Run", prompt: int, head: Head | str, level: str = "token") -> Weights:
    """Return a head's weights times the norms of the values that they weigh, [query, key]: how much is moved from each
    token, not how much it is attended to (Kobayashi et al. 2020, arXiv:2004.10102, there after W_O).

    Raises `RequestError` where the run kept no values of this head.
    """
    head = checked_head(run, head)
    pattern = weights(run, prompt, head, "token")
    norms = _norms(run, prompt, head)
    axes = weights(run, prompt, head, level)
    moved = project(pattern.values * norms[None], axes.queries, axes.keys)
    note = "Each weight times the norm of the key’s value vector: how much the head moves from the key, before W_O."
    return replace(
        axes,
        values=moved,
        title=f"{head}: attention × norm of the value",
        note=f"{note} {axes.note}".strip(),
        unit="weight × ‖v‖",
    )


def value_norms(run: "Run", prompt: int, head: Head) -> Float[np.ndarray, " key"] | None:
    """Return the norm of each key's value vector, before W_O; None where the run kept no values of this head."""
    try:
        return _norms(run, prompt, head)
    except RequestError:
        return None


def _norms(run: "Run", prompt: int, head: Head) -> Float[np.ndarray, " key"]:
    return np.linalg.norm(_kept(run, "v", prompt, head), axis=-1)


def score_weights(run: "Run", prompt: int, head: Head | str) -> Weights:
    """Return the inputs of a head's softmax, [query, key] by token; NaN where the mask lets the query read no key.

    Raises `RequestError` where the run kept no scores of this head.
    """
    head = checked_head(run, head)
    pattern = weights(run, prompt, head, "token")
    score = _kept(run, "scores", prompt, head)[: len(pattern.queries), : len(pattern.keys)]
    score = np.where(np.isfinite(score), score, np.nan)
    note = "What the softmax of each row reads: query · key, scaled"
    note += "; grey where the mask lets the query read no key." if np.isnan(score).any() else "."
    return replace(pattern, values=score, title=f"{head}: scores before the softmax", note=note, unit="score")


def qk_table(run: "Run", prompt: int, head: Head | str, query: str | int, key: str | int) -> pd.DataFrame:
    """Return the query's and the key's vector and their product, a row for each dimension of the head.

    ``attrs`` has the `sum` of the products divided by √d_head, the `score` where scores were kept, and a `note` where
    the two differ: q and k are as projected, and a rotary embedding, a bias or a norm comes after. Raises
    `RequestError` where the run kept no q or k of this head.
    """
    head = checked_head(run, head)
    pattern = weights(run, prompt, head, "token")
    down, across = place_of(pattern.queries, query, "query"), place_of(pattern.keys, key, "key")
    q, k = _kept(run, "q", prompt, head)[down], _kept(run, "k", prompt, head)[across]
    table = pd.DataFrame({"q": q, "k": k, "product": q * k})
    table.index.name = "dimension"
    total = float(table["product"].sum() / np.sqrt(len(table)))
    labels = pattern.queries.labels[down].strip(), pattern.keys.labels[across].strip()
    table.attrs = {"title": f"{head}: {labels[0]} → {labels[1]}", "sum": total, "score": None, "note": ""}
    if "scores" in run.data:
        score = float(_kept(run, "scores", prompt, head)[down, across])
        table.attrs["score"] = score
        if not abs(score - total) <= _EQUAL * max(1.0, abs(score)):
            note = f"The products add up to {total:.3g} (over √d_head), the score is {score:.3g}: q and k are as "
            table.attrs["note"] = (
                f"{note}projected, and a rotary embedding, a bias, a norm or another scale comes after."
            )
    return table


def _kept(run: "Run", kind: str, prompt: int, head: Head) -> Float[np.ndarray, "position *rest"]:
    """Return one head's activations on a prompt, without padding."""
    name = variable_name(kind, head.stack)
    if name not in run.data:
        remedy = f"this run kept no {kind}: cache it with cache.also=[{kind}], or look at a text: look(model, text)"
        raise RequestError("head", head, remedy)
    array = run.data[name].isel(prompt=prompt).sel(layer=head.layer)
    if "kv_head" in array.dims:
        array = array.sel(kv_head=head.head // (run.data.sizes["head"] // run.data.sizes["kv_head"]))
    else:
        array = array.sel(head=head.head)
    for dim in array.dims:
        if dim != "d_head":
            length = "source_length" if str(dim).startswith("source_") else "length"
            array = array.isel({dim: slice(int(run.data[length].values[prompt]))})
    values = array.values.astype(float)
    if np.isnan(values).all():
        raise RequestError("head", head, f"this run kept {kind} of other heads; set cache.heads=[{head}]")
    return values
