"""Time one forward, for forecasts."""

import time

import torch

from harness import ablation
from harness.execute.cost import Trial
from harness.models import Model
from harness.prompts import Prompts

#: Tokens of the timed trial: fewer are slower per row than a sweep's chunks, more delay every run.
_TRIAL_TOKENS = 512


def seconds_per_row(model: Model, prompts: Prompts) -> float:
    """Measure the seconds of one row, by a forward of a few rows of median length."""
    order = prompts.width.argsort()
    rows, _ = ablation.model_rows(model, prompts.take([int(order[len(order) // 2])]))
    n = max(4, _TRIAL_TOKENS // rows.token_id.shape[1])
    inputs = rows.take([at % len(rows) for at in range(n)]).inputs(model.device)
    with torch.no_grad():
        model.forward(inputs)  # warm-up
        started = time.perf_counter()
        model.forward(inputs)
    return (time.perf_counter() - started) / n


def measured_once() -> Trial:
    """Return `seconds_per_row` that times the same model and prompts once: a trial takes seconds, a screen has two."""
    known: dict[tuple[int, int], float] = {}

    def trial(model: Model, prompts: Prompts) -> float:
        key = id(model), id(prompts)
        known[key] = known.get(key) or seconds_per_row(model, prompts)
        return known[key]

    return trial
