"""Answer what a model can no longer do without sets of heads, task by task, beside random sets."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from harness.findings.finding import Finding
from harness.findings.format import chance, count, listed, number, signed, with_spread
from harness.findings.intervals import interval
from harness.findings.questions.pattern_statistics import unanswered

if TYPE_CHECKING:
    from harness.results import Run

_METRIC = "choice_accuracy"


def lost(run: "Run") -> Finding:
    """State, for the set that costs most, how many items of each task are still right, and what random sets cost."""
    metrics = map(str, run.data["metric"].values) if "set_effect" in run.data else ()
    if _METRIC not in metrics:
        return unanswered("No sets of heads were ablated on tasks: set sweep.kind=set, sets={…} and prompts=choices.")
    cost = run.data["set_effect"].sel(metric=_METRIC).mean("prompt")
    name = str(run.data["set"].values[int(cost.values.argmin())])
    by_task, first = [], None
    for task, part in tasks(run).items():
        effect = part.data["set_effect"].sel(metric=_METRIC, set=name).values.astype(float)
        clean, about = float(part.data["clean"].sel(metric=_METRIC).mean()), interval(part, effect)
        n, by_chance = len(effect), float((1 / (part.data["choice_text"] != "").sum("choice")).sum())
        text = f"of {count(n, 'item')} of {task} {round(n * clean)} are right with all heads and "
        text += f"{round(n * (clean + about.mean))} without them (by chance {number(by_chance)}; the share changes by "
        by_task.append(f"{text}{with_spread(about)}{_beside_random(part, name, about.mean)})")
        first = first or about
    assert first is not None
    return Finding(f"Without {name}: {listed(by_task)}.", first.mean, first.low, first.high, "set_effect")


def tasks(run: "Run") -> dict[str, "Run"]:
    """Return the run's items by task; all together where they have no such tag."""
    if "tags" not in run.data or "task" not in run.data["tag"].values:
        return {"the task": run}
    task = run.data["tags"].sel(tag="task").values.astype(str)
    return {name: replace(run, data=run.data.isel(prompt=np.flatnonzero(task == name))) for name in dict.fromkeys(task)}


def _beside_random(run: "Run", name: str, mean: float) -> str:
    """State what random sets of as many heads cost, and how many of them cost at least as much."""
    if "random_set_effect" not in run.data:
        return ""
    drawn = run.data["random_set_effect"].sel(metric=_METRIC, set=name).mean("prompt").values.astype(float)
    p = (1 + int((drawn <= mean).sum())) / (1 + len(drawn))
    ends = f"{signed(float(drawn.min()))} to {signed(float(drawn.max()))}"
    return f", {count(len(drawn), 'random set')} of as many heads by {ends}, {chance(p)}"
