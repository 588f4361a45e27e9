"""Select the prompts and heads of a page: the requested ones, checked, as many as fit."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from harness.config import RequestError
from harness.findings.format import count
from harness.hooks import Head, check_head, parse_heads
from harness.results.schema import by_head, pattern_variable
from harness.views.pack import pack_weights, size
from harness.views.text import short
from harness.words import joined

if TYPE_CHECKING:
    from harness.results import Run

BUDGET = 15_000_000  # characters of packed patterns in one page


@dataclass(frozen=True)
class Selection:
    """The prompts and heads whose patterns go into the page, and a sentence about those that do not (or empty)."""

    prompts: tuple[int, ...]
    heads: tuple[Head, ...]
    left_out: str


def checked_prompt(run: "Run", prompt: int, key: str = "prompt") -> int:
    """Return the prompt's index. Raises `RequestError` if there is none."""
    last = run.data.sizes["prompt"] - 1
    if not isinstance(prompt, int | np.integer) or not 0 <= prompt <= last:
        raise RequestError(key, prompt, f"the run has prompts 0-{last}")
    return int(prompt)


def titled(what: str, run: "Run", prompt: int) -> str:
    """Return the title of a picture of one prompt: ``what · text``, with the prompt's number where there are others."""
    number = f"prompt {prompt}: " if run.data.sizes["prompt"] > 1 else ""
    source = joined(run.data["source_word_text"].values[prompt]) if "source_word_text" in run.data else ""
    text = f"{short(source, 40)} → {short(run.text(prompt), 40)}" if source else short(run.text(prompt), 60)
    return f"{what} · {number}{text}"


def credited(what: str, run: "Run", prompt: int) -> str:
    """Return the title of a saved figure: as `titled`, and the model that read the text."""
    return " · ".join(filter(None, (titled(what, run, prompt), model_of(run))))


def model_of(run: "Run") -> str:
    """Return the name of the run's model; empty where arrays alone are shown."""
    return str((run.spec.get("model") or {}).get("name", ""))


def checked_head(run: "Run", head: Head | str) -> Head:
    """Return the head. Raises `RequestError` if the run has no such head."""
    return check_head(Head.parse(head), _model(run), *_shape(run))


def checked_metric(run: "Run", metric: str | None) -> str:
    """Return the metric (None: the leading one). Raises `RequestError` if the run has no such metric."""
    if "effect" not in run.data:
        raise RequestError("metric", metric, "this run ablated no heads: make one with experiments.ablate_heads")
    known = [str(name) for name in run.data["metric"].values]
    if metric is not None and metric not in known:
        raise RequestError("metric", metric, f"the run has {', '.join(known)}")
    return metric or run.lead_metric


def needs_patterns(run: "Run") -> None:
    """Raise `RequestError` if the run kept no patterns."""
    if "pattern" not in run.data:
        raise RequestError("run", run.path, "this run kept no patterns: make one with experiments.cache_attention")


def first_head(run: "Run") -> Head | None:
    """Return the head to open with: ``show.heads``, the largest effect on the leading metric, or the first."""
    names = (run.spec.get("show") or {}).get("heads")
    if names:
        return parse_heads(names, _model(run), *_shape(run), "show.heads")[0]
    if "effect" in run.data and run.ablated_heads:
        return run.top_heads(run.lead_metric, 1)[0]
    return next(iter(run.all_heads), None)


def first_in_layer(run: "Run", layer: int, stack: str = "") -> Head:
    """Return the layer's head with the largest effect on the leading metric, or its first head."""
    ranked = run.top_heads(run.lead_metric, len(run.all_heads)) if "effect" in run.data else []
    return next((head for head in ranked if (head.layer, head.stack) == (layer, stack)), Head(layer, 0, stack))


def shown_prompts(run: "Run") -> list[int]:
    """Return the prompts of ``show.prompts``, else all."""
    numbers = (run.spec.get("show") or {}).get("prompts") or range(run.data.sizes["prompt"])
    return [checked_prompt(run, index, "show.prompts") for index in numbers]


def _model(run: "Run") -> str:
    return model_of(run) or "the run"


def _shape(run: "Run") -> tuple[dict[str, int], int]:
    return run.layers, int(run.data["head"].values.max()) + 1


def choose(run: "Run", budget: int | None = None) -> Selection:
    """Select all patterns if they fit in ``budget`` characters; else the first prompts and the strongest heads."""
    prompts, heads = shown_prompts(run), run.all_heads
    if "pattern" not in run.data:
        return Selection((), (), "This run kept no attention patterns; experiments.cache_attention makes them.")
    budget = (BUDGET if budget is None else budget) // (2 if "other_pattern" in run.data else 1)
    cost, areas = _cost(run, prompts[0]), _areas(run)
    per_prompt = [cost * areas[prompt] / areas[prompts[0]] for prompt in prompts]
    fit = len(prompts) if sum(per_prompt) <= budget else max(1, min(8, len(prompts)))
    while fit > 1 and sum(per_prompt[:fit]) * min(1.0, 24 / len(heads)) > budget:
        fit -= 1
    share = min(1.0, budget / max(sum(per_prompt[:fit]), 1))
    some = sorted(_by_effect(run, heads)[: max(1, int(share * len(heads)))]) if share < 1 else heads
    return Selection(tuple(prompts[:fit]), tuple(some), _left_out(run, fit, len(some), len(heads)))


def fitting(run: "Run", prompt: int, budget: int | None = None) -> Selection:
    """Select every head on one prompt if their patterns fit in ``budget`` characters; else as many heads as fit, those
    with the largest effects or, without effects, those of the first layers."""
    heads, budget = run.all_heads, BUDGET if budget is None else budget
    weights = sum(run.pattern(prompt, stack).size for stack in run.layers)
    cost = 4 * weights // 3  # a byte for each weight, as base64; packing shows what it really is
    if cost > budget:
        cost = _cost(run, prompt)
    if cost <= budget:
        return Selection((prompt,), tuple(heads), "Pass that prompt.")
    some = sorted(_by_effect(run, heads)[: max(1, len(heads) * budget // cost)])
    which = "those with the largest effects" if "effect" in run.data else "the first layers’"
    left_out = (
        f"This page shows {len(some)} of {count(len(heads), 'head')}, {which}: all would be {cost / 1e6:.0f} MB. "
    )
    return Selection((prompt,), tuple(some), left_out + "One layer is smaller: grid(layer=5).")


def _left_out(run: "Run", prompts: int, heads: int, all_of_them: int) -> str:
    n = run.data.sizes["prompt"]
    if (prompts, heads) == (n, all_of_them):
        return ""
    text = f"This page holds the patterns of {heads} of {count(all_of_them, 'head')} on {prompts} of "
    text += f"{count(n, 'prompt')}"
    text += ", the heads being those with the largest effects" if heads < all_of_them else ""
    return f"{text}. All of them are in data.zarr: harness.open_run(DIR).data.pattern, or render with show.prompts=[…]."


def _areas(run: "Run") -> list[float]:
    """Return the number of weights of a head on each prompt, over all stacks."""
    own, read = run.data["length"].values, run.data.get("source_length", run.data["length"]).values
    return list(own**2.0 + (read**2.0 + own * read if "source_length" in run.data else 0))


def _by_effect(run: "Run", heads: Sequence[Head]) -> list[Head]:
    if "effect" not in run.data:
        return list(heads)
    places, mean = by_head(abs(run.data["effect"].mean("prompt")))
    share = np.nan_to_num(mean / np.maximum(np.nanmax(mean, axis=-1, keepdims=True), 1e-12)).max(axis=0)
    size = dict(zip(places, share, strict=True))
    return sorted(heads, key=lambda head: -size[head])


def _cost(run: "Run", prompt: int) -> int:
    """Return the characters of one prompt's patterns, in every stack."""
    patterns = {stack: run.pattern(prompt, stack) for stack in run.layers}
    return sum(size(pack_weights(each.values, is_causal(stack, [each]))) for stack, each in patterns.items())


def is_causal(stack: str, patterns: Iterable[xr.DataArray]) -> bool:
    """Whether no pattern of a stack has weight on later tokens; False for encoder and cross attention."""
    if pattern_variable(stack)[2] == "source_key":
        return False
    return all(not np.triu(each.values, 1).any() for each in patterns)
