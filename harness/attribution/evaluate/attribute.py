"""Compare attribution methods with causes on a few prompts, in memory."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import xarray as xr

from harness import config
from harness.attribution.evaluate.stage import AttributionStage
from harness.attribution.evaluate.statistics import agreement
from harness.config import AttributionSpec
from harness.execute import run_in_memory
from harness.models import Model
from harness.prompts import Prompts


def compare_attributions(
    model: Model,
    prompts: Prompts,
    methods: str | Iterable[str] = "all",
    causes: str | Iterable[str] = "auto",
    **options: Any,
) -> xr.Dataset:
    """Score the tokens of each prompt by attribution methods, and measure causes to compare them with.

    Returns `attribution` [prompt, attribution_method, target_position, position] and `cause` [prompt, cause_kind,
    target_position, position] (of an encoder-decoder `source_attribution` and `source_cause` too), `explained` [prompt,
    target_position] (where each target is predicted; −1: none), `agreement` [statistic, policy, prompt,
    attribution_method, cause_kind], with `fractions` the curves `erased`, and the prompts' own variables. NaN where a
    target cannot attend to a token. `options` are those of `harness.config.AttributionSpec`.

    `harness.attribution.evaluate.methods_table` adds intervals and tests. Raises `RequestError` for what the model does
    not allow.
    """
    request = {"methods": _listed(methods), "causes": _listed(causes), **options}
    spec = config.parse(AttributionSpec, {**asdict(AttributionSpec()), **request}, "attribution.")
    stage = AttributionStage(model, prompts, spec)
    data = xr.merge([prompts.dataset(), run_in_memory(stage)])
    return data.assign(agreement=agreement(data, spec.top, spec.level))


def _listed(names: str | Iterable[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)
