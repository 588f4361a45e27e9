"""Changes from one model to the other: distances of patterns, differences of effects and clean values."""

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from harness.compare.distance import pattern_distance
from harness.compare.stage import OTHER
from harness.config import CompareSpec
from harness.hooks import text_prefixes, variable_name
from harness.words import merge_pattern, without


def with_changes(data: xr.Dataset, spec: CompareSpec, causal: bool) -> xr.Dataset:
    """Add `clean_change` [metric, prompt] and, where the models have the same heads, `effect_change` [metric, prompt,
    layer, head] (other less base) and `pattern_distance` [prompt, layer, head]."""
    made = {"clean_change": data["other_clean"] - data["clean"]}
    made["clean_change"].attrs = {**data["clean"].attrs, "method": "other model less base"}
    if "effect" in data and data["effect"].dims == data["other_effect"].dims:
        made["effect_change"] = data["other_effect"] - data["effect"]
        made["effect_change"].attrs = {**data["effect"].attrs, "method": "effect in the other model less in the base"}
    if "pattern" in data and "other_layer" not in data.dims:
        made["pattern_distance"] = _distances(data, spec, causal)
    return data.assign(made)


def _distances(data: xr.Dataset, spec: CompareSpec, causal: bool) -> xr.DataArray:
    stacks = [str(name) for name in data["effect"]["stack"].values] if "stack" in data["effect"].dims else [""]
    n_prompts, shape = data.sizes["prompt"], (data.sizes["layer"], data.sizes["head"])
    made = np.full((n_prompts, len(stacks), *shape), np.nan)
    for at, stack in enumerate(stacks):
        for prompt in range(n_prompts):
            mine, its = (_pattern(data, prompt, stack, of, spec) for of in ("", OTHER))
            made[prompt, at] = pattern_distance(mine, its, causal and stack in ("", "decoder"))
    whole = xr.DataArray(
        made,
        dims=("prompt", "stack", "layer", "head"),
        coords={"stack": stacks, "layer": data["layer"], "head": data["head"]},
        attrs={"units": "Jensen–Shannon distance, 0 to 1", "method": f"mean over rows; special tokens: {spec.special}"},
    )
    return whole if len(stacks) > 1 else whole.isel(stack=0, drop=True)


def _pattern(
    data: xr.Dataset, prompt: int, stack: str, of: str, spec: CompareSpec
) -> Float[np.ndarray, "layer head query key"]:
    """Return one model's patterns on a prompt, over the axis that both share: tokens, or words."""
    queries, keys = text_prefixes(stack)
    pattern = data[of + variable_name("pattern", stack)].isel(prompt=prompt).values
    if f"{OTHER}token_id" not in data:
        n_queries, n_keys = (int(data[f"{prefix}length"][prompt]) for prefix in (queries, keys))
        cut = pattern[..., :n_queries, :n_keys]
        if spec.special == "keep":
            return cut
        marks = [data[f"{prefix}special"].values[prompt] for prefix in (queries, keys)]
        return without(cut, marks[0][:n_queries], marks[1][:n_keys])
    word, special = (data[f"{of}{name}"].values[prompt] for name in ("word", "special"))
    return _by_word(pattern, word, special)


def _by_word(
    pattern: Float[np.ndarray, "layer head query key"], word: Int[np.ndarray, " key"], special: Bool[np.ndarray, " key"]
) -> Float[np.ndarray, "layer head word word_key"]:
    """Merge a pattern to ordinary words; special tokens differ between tokenizers and are left out."""
    marks = np.isin(np.arange(word.max() + 1), word[special & (word >= 0)])
    return without(merge_pattern(pattern, word), marks)
