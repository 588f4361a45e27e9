"""Schema of a run directory: the variables of ``data.zarr`` with their dimensions, the tables with their columns.

`VARIABLES` and `TABLES` are the contract of writers and readers; a test checks the output of every runner against them.
Variables of an encoder-decoder have the prefix of their stack (`harness.hooks.variable_name`), those of the other model
in a comparison the prefix ``other_``.
"""

import io
import json
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Shaped

from harness.config import RequestError
from harness.hooks import Head, axes, variable_name
from harness.results.objects import Folder
from harness.results.store import write_bytes, write_text

# --- tables -------------------------------------------------------------------------------------------------------

_PLACE = ("stack", "layer", "head")
TableName = Literal[
    "heads",
    "methods",
    "method_pairs",
    "roles",
    "changes",
    "parts",
    "part_heads",
    "texts",
    "tasks",
    "edges",
    "activations",
]
#: Columns of names that are read as text, whatever they look like.
_AS_TEXT = frozenset({"part", "set", "heads", "text", "clean", "ablated", "clean_token", "ablated_token", "first_head"})


@dataclass(frozen=True)
class Table:
    """Columns of ``NAME.csv``, and which of them hold `names` (an empty cell is an empty name there, NaN elsewhere).

    With `by_stack` a run of an encoder-decoder has a column `stack` before `layer`. Without `names` pandas infers
    types.
    """

    columns: tuple[str, ...]
    names: tuple[str, ...] | None = None
    by_stack: bool = False

    def columns_of(self, stacks: bool) -> list[str]:
        """Return the columns, with the stack before the layer where there are stacks."""
        return [each for name in self.columns for each in (["stack", name] if stacks and name == "layer" else [name])]


TABLES: dict[TableName, Table] = {
    "heads": Table(
        (
            *("metric", "layer", "head", "effect_mean", "ci_low", "ci_high", "direct_mean", "effect_size"),
            *("p_value", "q_value", "p_adjusted", "p_important", "significant", "important", "rank"),
            *("n_prompts", "n_clusters", "n_effective_clusters", "method", "estimate", "effect_error", "roles"),
        ),
        by_stack=True,
    ),
    "methods": Table(
        ("method", "cause", "policy", "statistic", "mean", "ci_low", "ci_high", "q_value"),
        names=("method", "cause", "policy", "statistic"),
    ),
    "method_pairs": Table(
        ("method", "against", "cause", "policy", "statistic", "difference", "ci_low", "ci_high", "p_adjusted"),
        names=("method", "against", "cause", "policy", "statistic"),
    ),
    "roles": Table(
        ("role", "heads_base", "of_base", "score_base", "heads_other", "of_other", "score_other"), names=("role",)
    ),
    "changes": Table(
        (
            *("metric", "layer", "head", "distance_mean", "distance_low", "distance_high", "distance_sd"),
            *("distance_rank", "effect_base", "effect_other", "change_mean", "ci_low", "ci_high", "p_value"),
            *("q_value", "p_adjusted", "significant", "rank", "roles_base", "roles_other"),
        ),
        names=("metric", "stack", "significant", "roles_base", "roles_other"),
        by_stack=True,
    ),
    "parts": Table(
        ("measure", "part", "mean", "ci_low", "ci_high", "rank", "n_prompts", "over"), names=("measure", "part", "over")
    ),
    "part_heads": Table(
        ("part", "layer", "head", "mean", "ci_low", "ci_high", "p_adjusted", "attention", "rank", "n_prompts"),
        names=("part",),
    ),
    "texts": Table(
        (
            *("prompt", "set", "draw", "heads", "text", "clean", "ablated", "parts_at"),
            *("clean_token", "clean_token_clean", "clean_token_ablated"),
            *("ablated_token", "ablated_token_clean", "ablated_token_ablated", "first_head"),
        ),
        names=("set", "heads", "text", "clean", "ablated", "clean_token", "ablated_token", "first_head"),
    ),
    "edges": Table(
        (
            *("metric", "sender", "receiver", "into", "estimate", "effect_mean", "ci_low", "ci_high"),
            *("p_value", "p_adjusted", "significant", "important", "rank", "n_prompts_tested", "n_clusters_tested"),
        ),
        names=("metric", "sender", "receiver", "into", "significant", "important"),
    ),
    "activations": Table(
        (
            *("metric", "activation", "layer", "head", "effect_mean", "ci_low", "ci_high", "z_effect_mean"),
            *("p_value", "p_adjusted", "significant", "important", "rank", "n_prompts", "n_clusters"),
        ),
        names=("metric", "activation", "stack", "significant", "important"),
        by_stack=True,
    ),
    "tasks": Table(
        (*("task", "metric", "set", "kind", "heads", "clean", "ablated", "difference", "ci_low", "ci_high", "n"),),
        names=("task", "metric", "set", "kind", "heads"),
    ),
}


def write_table(run: Folder, name: TableName, table: pd.DataFrame) -> None:
    """Write a table atomically as ``NAME.csv``, which `read_table` reads, and as ``NAME.parquet``."""
    write_text(run / f"{name}.csv", table.to_csv(index=False))
    body = io.BytesIO()
    table.to_parquet(body, index=False)
    write_bytes(run / f"{name}.parquet", body.getvalue())


def read_table(run: Folder, name: TableName) -> pd.DataFrame:
    """Read ``NAME.csv``; empty where the run has none. Raises `RequestError` if it is damaged."""
    table, path = TABLES[name], run / f"{name}.csv"
    if not path.is_file():
        return pd.DataFrame(columns=np.array(table.columns))
    try:
        read = pd.read_csv(io.BytesIO(path.read_bytes()), **_reading(table))
    except (OSError, ValueError) as error:
        raise RequestError("run", run, f"its {name}.csv cannot be read ({type(error).__name__})") from None
    if list(read.columns) not in [table.columns_of(stacks) for stacks in {False, table.by_stack}]:
        raise RequestError("run", run, f"its {name}.csv is damaged: the columns are not those of a table of {name}")
    return read


def _reading(table: Table) -> dict:
    """Return pandas's options to read a table: a segment of a context may be named "nan" or "12"."""
    if table.names is None:
        return {}
    numbers = [name for name in table.columns if name not in table.names]
    as_text = {name: str for name in table.names if name in _AS_TEXT}
    return {"keep_default_na": False, "na_values": {name: [""] for name in numbers}, "dtype": as_text}


def with_notes(data: xr.Dataset, table: pd.DataFrame) -> xr.Dataset:
    """Copy the notes of the table of heads (``attrs["notes"]``) to an attribute of `effect`."""
    if "effect" not in data:
        return data
    return data.assign(effect=data["effect"].assign_attrs(notes=json.dumps(table.attrs["notes"])))


def roles_joined(has_role: xr.DataArray) -> pd.DataFrame:
    """Convert `role_given` [role, …, layer, head] to one row per head with its roles joined by ``;`` in `roles`."""
    flat = has_role.stack(which=[dim for dim in has_role.dims if dim != "role"]).transpose("which", "role")
    names = has_role["role"].values.astype(object)
    return flat.indexes["which"].to_frame(index=False).assign(roles=[";".join(names[row]) for row in flat.values])


# --- arrays -------------------------------------------------------------------------------------------------------

_HEADS = "metric prompt layer head"
_TOKENS = "prompt position"
#: Each variable's dimensions, in order, and its content. Where there are stacks, `stack` comes before `layer`; one in
#: brackets may be missing.
VARIABLES: dict[str, tuple[str, str]] = {
    # the prompts
    "text": ("prompt", "the prompt as its tokens are read, a pair as a | b"),
    "token": (_TOKENS, "the string of each token; empty in padding"),
    "token_id": (_TOKENS, "-1 in padding"),
    "word": (_TOKENS, "which word a token belongs to; -1 in padding"),
    "word_text": (_TOKENS, "at a word's first token, the word as it stands in the text"),
    "sentence": (_TOKENS, "1 in the second text of a pair"),
    "special": (_TOKENS, "whether a token is special (BOS, [CLS], ...)"),
    "target": (_TOKENS, "whether the prediction here is scored"),
    "correct": (_TOKENS, "the token that is right there"),
    "token_part": (_TOKENS, "the segment of a context that a token belongs to"),
    "token_role": (
        _TOKENS,
        "what a token is in its prompt set (subject, earlier copy, ...); empty where it has no name",
    ),
    "length": ("prompt", "tokens without padding"),
    "cluster": ("prompt", "prompts of one cluster are resampled together"),
    "answer": ("prompt", "the right answer, as text"),
    "distractor": ("prompt", "the wrong answer, as text"),
    "choice_text": ("prompt choice", "the completions of an item, as text"),
    "right_choice": ("prompt", "the number of the right completion"),
    "relations": ("prompt", "relations between words, as JSON"),
    "tags": ("prompt tag", "what travels with a prompt from its file"),
    # activations
    "pattern": ("prompt layer head query key", "attention weight after the softmax; 0 in padding"),
    "scores": ("prompt layer head query key", "input of the softmax"),
    "sink": ("prompt layer head query", "share of attention that goes to a learnt sink"),
    "z": ("prompt layer head position d_head", "a head's output before W_O"),
    "q": ("prompt layer head position d_head", "query, before a rotary embedding"),
    "k": ("prompt layer kv_head position d_head", "key, before a rotary embedding"),
    "v": ("prompt layer kv_head position d_head", "value"),
    "resid": ("prompt depth position d_model", "residual stream that enters each block, and what leaves the last"),
    "rollout": ("prompt query key", "attention rollout"),
    # effects
    "clean": ("metric prompt", "the metric of the clean prompt without an ablation"),
    "choice_log_prob": ("prompt choice", "the log-probability of each completion, without an ablation"),
    "ablated": (_HEADS, "the metric with the head ablated"),
    "effect": (_HEADS, "ablated - clean (- corrupted, if that is patched); NaN for heads that were not ablated"),
    "activation_effect": (
        "metric prompt activation layer head",
        "the effect of a head's q, k, v or pattern; NaN as effect",
    ),
    "direct": (_HEADS, "the part of the effect that goes straight to the output"),
    "source_direct": (f"{_HEADS} key", "direct, by the token it was read from; 0 in padding"),
    "account": (f"{_HEADS} component", "effect, by the later head or MLP that adds to it or takes it back"),
    "lens": ("metric prompt depth", "the metric read from the stream before each block, and after the last"),
    "lens_ablated": ("metric prompt card depth", "the same with a card's head ablated"),
    "written_token": ("card side rank", "tokens that a head's write raises and lowers most at the scored positions"),
    "written_logit": ("card side rank", "by how many logits"),
    "shown_prompt": ("card extreme", "the prompts where a card's head matters most and least; -1: none"),
    "shown_pattern": ("card extreme key", "the head's pattern there, at the last scored position"),
    "composed_head": ("card way circuit partner", "heads that a card's head composes most with by weights alone"),
    "composition": ("card way circuit partner", "the composition score, 0 to 1"),
    "composition_chance": ("card way circuit", "the largest score of all partners with weights turned at random"),
    "ov_singular": ("card singular", "singular values of the OV circuit"),
    "ov_token": ("card direction sign end nearest", "tokens that its singular directions read and write"),
    "ov_copying": ("card", "copying score: the sum of the OV circuit's eigenvalues over that of their sizes, -1 to 1"),
    "null_effect": (f"draw {_HEADS}", "what random edits of the same size did"),
    "fast_effect": (_HEADS, "the effect in bf16"),
    "estimate": (_HEADS, "the effect by attribution patching"),
    "all_ablated": ("metric prompt", "the metric with all heads ablated, on the first prompts of the plan"),
    "exact": ("layer head", "which heads were measured exactly"),
    "corrupted": ("metric prompt", "the metric of the corrupted prompt without an ablation"),
    "layer_effect": ("metric prompt layer", "the effect of a layer's heads together"),
    "resid_effect": ("metric prompt depth [position]", "the effect of the residual stream before a layer or after all"),
    "attn_effect": ("metric prompt layer [position]", "the effect of a layer's attention"),
    "mlp_effect": ("metric prompt layer [position]", "the effect of a layer's MLP"),
    "next_token": ("prompt", "the most likely token at the last scored position, in the run that is ablated"),
    "resid_next_token": ("prompt depth position", "the same with the stream ablated; empty in padding"),
    "attn_next_token": ("prompt layer position", "the same with a layer's attention ablated"),
    "mlp_next_token": ("prompt layer position", "the same with a layer's MLP ablated"),
    "set_effect": ("metric prompt set", "the effect of a named set of heads"),
    "random_set_effect": ("metric prompt set draw", "the effect of as many heads drawn at random"),
    "position_effect": (f"{_HEADS} position", "the effect of a head at one position"),
    "cumulative_effect": ("metric prompt order step", "the effect of a step's heads together"),
    "cumulative_head": ("order step", "the head that a step adds"),
    "greedy_head": ("step", "the head that the greedy order adds"),
    "pair_effect": ("metric prompt pair", "the effect of two heads together"),
    "pair_sum": ("metric prompt pair", "the sum of their single effects"),
    "pair_difference": ("metric prompt pair", "pair_effect - pair_sum"),
    "edge_effect": ("metric prompt edge", "what a head writes changed for one input of a later head or MLP alone"),
    "edge_estimate": ("metric prompt edge", "edge_effect by edge attribution patching"),
    "edge_estimate_mean": ("metric candidate", "the mean estimate of every edge, measured or not"),
    "edge_half": ("prompt", "whether a prompt's estimates choose the measured edges, its effects test them, or both"),
    "role_effect": ("metric prompt having", "the effect of all heads of a role together"),
    "random_effect": ("metric prompt having draw", "the effect of as many heads drawn at random"),
    # roles
    **{
        f"role_{name}": ("role layer head", holds)
        for name, holds in (
            ("score", "how strongly a head shows the role"),
            ("low", "lower end of the score's interval"),
            ("high", "upper end of the score's interval"),
            ("chance", "the score by chance"),
            ("p", "max-T p over all heads"),
            ("given", "whether the head has the role"),
        )
    },
    # attribution
    "attribution": ("prompt attribution_method target_position position", "what a method attributes to each token"),
    "cause": ("prompt cause_kind target_position position", "what taking a token away does to the prediction"),
    "counted": ("prompt policy target_position position", "which tokens a policy counts"),
    "explained": ("prompt target_position", "where the prediction stands that is explained; -1: none"),
    "explained_value": ("prompt target_position", "its value as it is"),
    "completeness_error": ("prompt target_position", "how far integrated gradients are from adding up"),
    "negative_share": ("prompt target_position", "share of negative entries that a method leaves out"),
    "vector_share": (_TOKENS, "what part of a text's vector is read from each token"),
    "agreement": ("statistic policy prompt attribution_method cause_kind", "how well a method agrees with a cause"),
    "erased": (
        "prompt attribution_method policy curve target_position fraction",
        "the value with some tokens taken away",
    ),
    "erased_all": ("prompt policy target_position", "the value with all counted tokens taken away"),
    # the segments of a context
    "part_tokens": ("prompt part", "how many tokens a segment has"),
    "part_attention": ("prompt traced layer head part", "attention that goes to a segment"),
    "part_rollout": ("prompt traced part", "rollout that goes to a segment"),
    "part_gradient": ("prompt traced part", "gradient norm over a segment"),
    "part_cause": ("prompt traced taken part", "what taking a segment away does"),
    "part_head_cause": ("prompt traced layer head part", "what hiding a segment from one head does"),
    "traced_position": ("prompt traced", "where the prediction stands that is traced"),
    "traced_value": ("prompt traced", "its value as it is"),
    # texts
    "read_text": ("prompt", "the text that is continued; of an encoder-decoder the source"),
    "clean_text": ("prompt", "what the clean model writes, a decoder after the text"),
    "ablated_text": ("prompt set", "what is written without a set of heads"),
    "clean_new_id": ("prompt new_position", "the new tokens; -1 after the last"),
    "ablated_new_id": ("prompt set new_position", "the new tokens; -1 after the last"),
    "parts_at": ("prompt set", "how many new tokens are the same before the texts part; NaN where they do not"),
    "parting_token": ("prompt set writer", "the token of each text where they part"),
    "parting_probability": ("prompt set writer reader", "the probability of each of the two by each model"),
    "first_head": ("prompt set", "the head of the set whose ablation alone changes the text soonest"),
    "set_heads": ("set", "the heads of a set, joined by ;"),
    "drawn_beside": ("set", "the set that a random one was drawn beside; empty for the others"),
    # tasks
    "clean_score": ("item", "an item's value of a task's metric by the clean model"),
    "ablated_score": ("set item", "its value without a set of heads"),
    "item_task": ("item", "the task of an item"),
    "item_metric": ("item", "the metric of its value"),
    "item_number": ("item", "its number in the task"),
    # two models
    "clean_change": ("metric prompt", "the other model's clean value less the base's"),
    "effect_change": (_HEADS, "the other model's effect less the base's"),
    "pattern_distance": ("prompt layer head", "Jensen-Shannon distance of the two models' patterns"),
    "weight_change": ("block", "length of the parameters' difference over the base's length"),
}
_OF_STACKS = ("encoder_", "cross_", "source_")


def unknown(data: xr.Dataset) -> list[str]:
    """Return the variables that `VARIABLES` does not list with these dimensions; a runner writes none."""
    return [f"{name} [{', '.join(map(str, data[name].dims))}]" for name in data.data_vars if not _listed(name, data)]


def _listed(name: Hashable, data: xr.Dataset) -> bool:
    plain = str(name).removeprefix("other_")
    for prefix in _OF_STACKS:
        plain = plain if plain in VARIABLES else plain.removeprefix(prefix)
    dims = [str(dim).removeprefix("other_").removeprefix("source_") for dim in data[name].dims if dim != "stack"]
    listed = VARIABLES[plain][0] if plain in VARIABLES else ""
    return dims in ([dim.strip("[]") for dim in listed.split()], [dim for dim in listed.split() if "[" not in dim])


def pattern_variable(stack: str = "") -> tuple[str, str, str]:
    """Return the variable of a stack's patterns, and its query and key dimensions."""
    _, query, key = axes("pattern", stack)
    return variable_name("pattern", stack), query, key


def by_head(array: xr.DataArray) -> tuple[list[Head], Shaped[np.ndarray, "*other head"]]:
    """Return the heads of an array, in order, and its values with one last axis for them."""
    dims = [dim for dim in _PLACE if dim in array.dims]
    flat = array.stack(which=dims).transpose(..., "which")
    heads = [Head(int(at[-2]), int(at[-1]), *map(str, at[:-2])) for at in flat["which"].values]
    return heads, flat.values
