"""Build the data of a page from a run: labels as text, effects as 32-bit floats, patterns as bytes, within a budget."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jaxtyping import Float

from harness.attribution.saved_rollout import rollout_of
from harness.findings.changes import other_name
from harness.hooks import Head
from harness.results.run import Claim
from harness.results.schema import by_head
from harness.views.activations import value_norms
from harness.views.charts import charts
from harness.views.charts.changes import pattern_of
from harness.views.pack import Packed, pack_numbers, pack_weights
from harness.views.selection import Selection, is_causal
from harness.views.text import visible
from harness.words import labels

if TYPE_CHECKING:
    from harness.results import Run

STRONGEST = 12
#: Variables of scores over tokens, and their dimension of methods or causes.
_SCORED = {"attribution": "attribution_method", "cause": "cause_kind"}
#: Effects below the map of heads, a number for each layer.
_BESIDE = {"layer_effect": "all heads of the layer", "mlp_effect": "its MLP"}


def payload(
    run: "Run", kept: Selection, prompt: int, head: Head | None, metric: str | None = None, only_kept: bool = False
) -> dict:
    """Return everything a page needs, JSON-ready.

    The page opens with ``prompt``, ``head`` and ``metric``; with ``only_kept`` its menus offer only ``kept``. A head is
    [layer, head, stack]; arrays over all heads are in the order of stacks, layers and heads.
    """
    n_prompts = run.data.sizes["prompt"]
    patterns = {stack: {index: run.pattern(index, stack) for index in kept.prompts} for stack in run.layers}
    causal = {stack: is_causal(stack, of_prompts.values()) for stack, of_prompts in patterns.items()}
    return {
        "stacks": [_stack(kept, name, n, causal[name]) for name, n in run.layers.items()],
        "heads": [int(number) for number in run.data["head"].values] if "head" in run.data.coords else [],
        "offered": {
            "layers": sorted({head.layer for head in kept.heads}) if only_kept else None,
            "heads": sorted({head.head for head in kept.heads}) if only_kept else None,
            "prompts": list(kept.prompts) if only_kept else list(range(n_prompts)),
        },
        "metrics": [_metric(run, name) for name in run.metrics],
        "roles": _roles(run),
        "rolesOf": _roles_of(run),
        "level": run.level,
        "interval": run.interval_name,
        "prompts": [_prompt(run, index) for index in range(n_prompts)],
        "patterns": {str(index): _matrices(run, kept, index, patterns, causal) for index in kept.prompts},
        "norms": {str(index): _norms(run, kept, index) for index in kept.prompts} if "v" in run.data else {},
        "others": {str(index): _others(run, kept, index, causal) for index in kept.prompts if _comparable(run)},
        "otherName": visible(other_name(run)) if _comparable(run) else "",
        "sources": {str(index): _sources(run, index) for index in kept.prompts} if {*_SCORED} & set(run.data) else {},
        "sink": "sink" in run.data,
        "leftOut": kept.left_out,
        "charts": [] if only_kept else charts(run),
        "start": {"prompt": prompt, "head": list(head) if head else None, "metric": metric, "level": _level(run)},
    }


def _level(run: "Run") -> str:
    """Return whether the page opens by token or by word."""
    return (run.spec.get("show") or {}).get("level", "token")


def _stack(kept: Selection, name: str, n_layers: int, causal: bool) -> dict:
    """Describe a stack and its kept heads: ``slots`` are [layer, head]."""
    slots = [[head.layer, head.head] for head in kept.heads if head.stack == name]
    return {"name": name, "layers": list(range(n_layers)), "causal": causal, "slots": slots}


def _matrices(
    run: "Run",
    kept: Selection,
    prompt: int,
    patterns: Mapping[str, Mapping[int, xr.DataArray]],
    causal: Mapping[str, bool],
) -> dict:
    """Pack one prompt's patterns by stack, with rollout and mean pattern; of an encoder-decoder the mean cross pattern
    alone."""
    heads = {stack: _of_heads(each[prompt], kept, stack, causal[stack]) for stack, each in patterns.items()}
    whole = "" if "" in patterns else "cross"
    mean = patterns[whole][prompt].astype(float).mean(["layer", "head"]).values
    packed = {"heads": heads, "mean": pack_weights(mean, causal[whole], bits=16)}
    return packed if whole else packed | {"rollout": pack_weights(rollout_of(run, prompt), causal[""], bits=16)}


def _of_heads(pattern: xr.DataArray, kept: Selection, stack: str, causal: bool) -> Packed:
    """Pack the kept heads' patterns, [slot, query, key]."""
    mine = [head for head in kept.heads if head.stack == stack]
    numbers = list(pattern["head"].values)
    at = [head.layer for head in mine], [numbers.index(head.head) for head in mine]
    return pack_weights(pattern.transpose("layer", "head", "query", "key").values[at], causal)


def _comparable(run: "Run") -> bool:
    """Whether the patterns of a second model on the same tokens are in the run."""
    return {"other_pattern", "pattern_distance"} <= set(run.data) and "other_token" not in run.data


def _others(run: "Run", kept: Selection, prompt: int, causal: Mapping[str, bool]) -> dict[str, Packed]:
    """Pack the kept heads' patterns in the other model of a comparison, [slot, query, key], by stack."""
    packed = {}
    for stack in run.layers:
        mine = [pattern_of(run, prompt, head, "other_")[0] for head in kept.heads if head.stack == stack]
        if mine:
            packed[stack] = pack_weights(np.stack(mine), causal[stack])
    return packed


def _metric(run: "Run", metric: str) -> dict:
    clean = run.data["clean"].sel(metric=metric).values.astype(float)
    strongest = run.top_heads(metric, STRONGEST)
    return {
        "name": visible(metric),
        "unit": run.unit(metric).strip(),
        "units": run.units(metric),
        "sense": run.sense(metric),
        "clean": [float(value) if np.isfinite(value) else None for value in clean],
        "effect": pack_numbers(of_heads(run, "effect", metric)),
        "direct": pack_numbers(of_heads(run, "direct", metric)) if "direct" in run.data else None,
        "share": run.threshold(metric)[0],
        "beside": [_beside(run, name, metric) for name in _BESIDE if name in run.data],
        "claims": pack_numbers(_claims(run, metric)),
        "strongest": [{"head": list(head), **_interval(run, metric, head)} for head in strongest],
    }


def of_heads(run: "Run", name: str, metric: str) -> Float[np.ndarray, "prompt head"]:
    """Return a variable of one metric for every head, in the order of `all_heads`."""
    places, values = by_head(run.data[name].sel(metric=metric).transpose("prompt", ...))
    at = {head: index for index, head in enumerate(places)}
    return values[:, [at[head] for head in run.all_heads]].astype(float)


def _roles(run: "Run") -> list[dict]:
    """Pack each role with its scores, in the order of `all_heads`."""
    if "role_score" not in run.data:
        return []
    places, values = by_head(run.data["role_score"].transpose("role", ...))
    at = [{head: index for index, head in enumerate(places)}[head] for head in run.all_heads]
    named = zip(map(str, run.data["role"].values), values, strict=True)
    return [{"name": visible(name), "scores": pack_numbers(row[at])} for name, row in named if not np.isnan(row).all()]


def _roles_of(run: "Run") -> dict[str, list[str]]:
    """Return the roles of each head that has some, by the head's name."""
    return {str(head): [visible(name) for name in names] for head, names in run.roles().items() if names}


def _norms(run: "Run", kept: Selection, prompt: int) -> dict[str, Packed]:
    """Pack the norms of the values that each kept head weighs, [slot, key], by stack; NaN where they were not kept."""
    packed = {}
    for stack in run.layers:
        mine = [head for head in kept.heads if head.stack == stack]
        n_keys = run.pattern(prompt, stack).sizes["key"]
        rows = [value_norms(run, prompt, head) for head in mine]
        packed[stack] = pack_numbers(np.array([np.full(n_keys, np.nan) if row is None else row for row in rows]))
    return packed


def _beside(run: "Run", name: str, metric: str) -> dict:
    """Return the mean effects of ablating whole layers or MLPs, by stack."""
    mean = run.data[name].sel(metric=metric).mean("prompt")
    by_stack = {stack: mean.sel(stack=stack) if stack else mean for stack in run.layers}
    return {
        "name": _BESIDE[name],
        "short": {"layer_effect": "heads", "mlp_effect": "MLP"}[name],
        "means": {
            stack: [_or_none(value) for value in values.values]
            for stack, values in by_stack.items()
            if values.notnull().any()
        },
    }


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _claims(run: "Run", metric: str) -> Float[np.ndarray, "claim head"]:
    """Return interval, adjusted p and whether it is important of each head, in the order of `all_heads`; NaN without a
    claim."""
    by_head = run.claims(metric)
    claims = [by_head.get(head, Claim()) for head in run.all_heads]
    return np.array([[claim.low, claim.high, claim.p_adjusted, claim.important] for claim in claims], dtype=float).T


def _interval(run: "Run", metric: str, head: Head) -> dict:
    about = run.estimate(metric, head)
    ends = (about.low, about.high) if np.isfinite(about.low) else (None, None)
    return {"low": ends[0], "high": ends[1], "kind": about.kind}


def _sources(run: "Run", prompt: int) -> dict:
    """Pack the scores [method or cause, target, position] of one prompt, and of an encoder-decoder its source's.

    `targets` are the positions at which the predictions are made; a text's vector is of the `whole` text.
    """
    own = _over_tokens(run, prompt, "")
    there = np.flatnonzero(np.isfinite(own).any(axis=(0, 2)))
    made_at = run.data["explained"].values[prompt] if "explained" in run.data else np.arange(own.shape[1])
    names = [visible(str(each)) for name, dim in _SCORED.items() if name in run.data for each in run.data[dim].values]
    packed = {
        "names": names,
        "methods": run.data.sizes.get("attribution_method", 0) if "attribution" in run.data else 0,
        "targets": [int(at) for at in made_at[there]],
        "whole": "explained_value" in run.data and "cosine" in run.data["explained_value"].attrs.get("units", ""),
        "scores": pack_numbers(own[:, there]),
    }
    if "source_length" not in run.data:
        return packed
    return packed | {"source": pack_numbers(_over_tokens(run, prompt, "source_")[:, there])}


def _over_tokens(run: "Run", prompt: int, of: str) -> Float[np.ndarray, "one target position"]:
    """Return the scores of methods and causes on the tokens of a prompt, or of its source."""
    length, position = int(run.data[f"{of}length"].values[prompt]), f"{of}position"
    arrays = [(run.data[of + name], dim) for name, dim in _SCORED.items() if of + name in run.data]
    chosen = [array.isel({"prompt": prompt, position: slice(length)}) for array, _ in arrays]
    dims = [dim for _, dim in arrays]
    parts = [each.transpose(dim, "target_position", position).values for each, dim in zip(chosen, dims, strict=True)]
    return np.concatenate(parts).astype(float)


def _prompt(run: "Run", prompt: int) -> dict:
    row = run.data.isel(prompt=prompt)
    scored = np.flatnonzero(row["target"].values[: int(row["length"])])
    return {
        **_side(row, ""),
        "source": _side(row, "source_") if "source_token" in row else None,
        "scored": [int(position) for position in scored],
        "answer": _text(row, "answer"),
        "distractor": _text(row, "distractor"),
    }


def _side(row: xr.Dataset, of: str) -> dict:
    """Describe one text of a prompt: its tokens, their words, which are special, and which are in the second sentence
    of a pair."""
    end = int(row[f"{of}length"])
    tokens, word = row[f"{of}token"].values[:end], row[f"{of}word"].values[:end]
    texts, second = row[f"{of}word_text"].values[:end], row[f"{of}sentence"].values[:end]
    return {
        "tokens": [visible(token) for token in labels(tokens, word, texts)],
        "word": [int(number) for number in word],
        "words": words_of(tokens, word, texts),
        "special": [int(at) for at in np.flatnonzero(row[f"{of}special"].values[:end])],
        "second": [int(at) for at in np.flatnonzero(second == 1)],
    }


def words_of(tokens: Iterable[object], word: np.ndarray, texts: Iterable[object]) -> list[str]:
    """Return each word's text, from ``texts`` at its first token; its tokens joined where that is empty (special)."""
    joined = [""] * (int(word.max(initial=-1)) + 1)
    for piece, number in zip(tokens, word, strict=True):
        joined[number] += str(piece).removeprefix("##") if joined[number] else str(piece)
    whole = [""] * len(joined)
    for text, number in zip(texts, word, strict=True):
        whole[number] += str(text)
    shown = [text or pieces for text, pieces in zip(whole, joined, strict=True)]
    return [visible(text.strip() or text) for text in shown]


def _text(row: xr.Dataset, name: str) -> str:
    text = str(row[name].values) if name in row else ""
    return visible(text) if text else ""
