"""Ablate heads, alone or together, and measure the change of each metric.

`interventions` turns a request into interventions, `build` into stages. `engine` runs many interventions in one
forward: `blocks` adds their rows block by block, `kv_cache` starts late positions from the clean keys and values,
`last_block` runs the last block's linear layers at scored positions only, `memory` keeps chunks within a budget.
`batch` measures interventions on some prompts and refuses NaN, `direct` computes direct effects, `stage` cuts a
sweep into units, and `labels` labels its arrays. `cumulative` (with `greedy`) and `pairs` ablate heads together,
chosen by their single effects (`importance`). `fast` (bf16: `precision`) and `attribution_patching`
estimate all heads, and `verify` measures some of them exactly.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import xarray as xr

from harness import ablation as ablations
from harness import config
from harness.ablation import AblationRequest
from harness.config import SweepSpec
from harness.execute import run_in_memory
from harness.hooks import Head
from harness.metrics import Function, choose
from harness.models import Model
from harness.prompts import Prompts
from harness.sweep.build import Ablating as Ablating
from harness.sweep.build import needs_roles as needs_roles
from harness.sweep.build import part as part
from harness.sweep.build import stages as stages
from harness.sweep.engine import tolerance as tolerance
from harness.sweep.interventions import groups as groups
from harness.sweep.stage import SweepStage as SweepStage
from harness.sweep.verify import merge as merge


def ablate_heads(
    model: Model,
    prompts: Prompts,
    ablation: AblationRequest = "zero",
    metrics: str | Function | Iterable[str | Function] = "auto",
    heads: Any = "all",
    method: str = "exact",
    kind: str | Iterable[str] = "single",
    sets: Mapping[str, Any] | None = None,
    positions: str | int | Iterable[int] | None = None,
    **sweep: Any,
) -> xr.Dataset:
    """Ablate heads and measure what that costs, prompt by prompt.

    `ablation` is ``zero``, ``mean``, ``resample`` or ``patch``, one of these with its keys (``{"name": "mean",
    "reference": "ioi"}``, or a spec), or a function of z [prompt, position, d_head] and the `Head` that gives the new
    z. `positions` is ``all``, ``last``, ``target``, ``each`` or a list (negative: from each prompt's end), and takes
    the place of the ablation's own. `heads`, and each of the `sets`, are written as in `harness.hooks.parse_heads`:
    ``["L5H1", (5, 2), "L15-L29"]``, or a boolean mask [layer, head]. A metric is a name or a function of a
    `harness.prompts.targets.Readout` that gives a number for each target; it is named as the function, and has no
    better direction.

    Returns a dataset with `clean` [metric, prompt], `ablated` and `effect` [metric, prompt, layer, head] (NaN for
    heads not ablated), or `layer_effect`, `mlp_effect`, `set_effect`, `cumulative_effect` or `pair_effect` for the
    other kinds, and the prompts' own variables. An encoder-decoder has `stack` before `layer`. With
    ``positions="each"`` it has `position_effect` [metric, prompt, layer, head, position] instead, NaN in padding.
    Single heads of a model with pre-norm blocks also have `direct`, like `effect`: the direct effect
    (`harness.sweep.direct`); distances have `null_effect` [draw, …], the effects of random edits of the same size.
    With ``method="fast"`` there is `fast_effect` beside `effect`, with ``"screen"`` `estimate` (and `effect` of
    the heads that were measured); `exact` [layer, head] says which heads were measured exactly. `sweep` are the other
    keys of `harness.config.SweepSpec`: ``order``, ``orders``, ``first`` and ``until`` of ``kind="cumulative"``,
    ``pairs`` and ``top`` of ``kind="pairs"``, ``verify``, ``verify_top`` and ``steps`` of the methods.
    effect = metric(ablated) − metric(clean) on the same prompt. Raises `RequestError` for a request that the model or
    the prompts do not allow, and `InterventionFailed` if an ablation did not reach W_O as intended.
    """
    made, where = ablations.build(ablation, model, prompts)
    if positions is not None:
        where = ablations.parse_positions(positions)
    named = {name: model.heads(members, f"sweep.sets.{name}") for name, members in (sets or {}).items()}
    spec = config.parse(SweepSpec, _plain({"kind": kind, "sets": named, "method": method, **sweep}), "sweep.")
    done = prompts.dataset()
    for stage in stages(model, prompts, spec, heads, choose(metrics, prompts), made, where):
        done = merge(done, run_in_memory(stage, done))
    return done


def _plain(value: Any) -> Any:
    """Replace heads by their names, at any depth."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Head):
        return str(value)
    return value if isinstance(value, str) or not isinstance(value, Iterable) else [_plain(item) for item in value]
