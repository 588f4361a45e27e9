"""Answer how many heads can be pruned before the prediction suffers."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from harness.findings.finding import Finding
from harness.findings.format import count, number, with_spread
from harness.findings.intervals import interval
from harness.findings.questions.pattern_statistics import unanswered

if TYPE_CHECKING:
    from harness.results import Run

_SHARE = 0.1  # of the mean clean value: how much worse a prompt may get


def prune(run: "Run") -> Finding:
    """State how many heads can go, the least needed first, before a prompt is worse by a tenth of the mean clean value.

    Beside random orders. A mean over prompts' own curves, and a lower bound where a prompt bears all heads tried.
    """
    if "cumulative_effect" not in run.data:
        return unanswered(
            "No heads were ablated one after another: set sweep.kind=cumulative sweep.order_from=least_needed."
        )
    metric = run.lead_metric
    effect = run.data["cumulative_effect"].sel(metric=metric).transpose("order", "prompt", "step")
    worse = effect.values.astype(float) * (-1 if run.meaning(metric).higher_is_better else 1)
    bar = _SHARE * abs(float(run.data["clean"].sel(metric=metric).mean()))
    spared = can_go(worse, bar)
    names = [str(name) for name in effect["order"].values]
    chosen = next((at for at, name in enumerate(names) if not name.startswith("random")), 0)
    drawn = [at for at, name in enumerate(names) if name.startswith("random")]
    about, n = interval(run, spared[chosen]), effect.sizes["step"]
    all_of_them = int((spared[chosen] == n).sum())
    first, floor = str(effect.attrs["first"]).replace("_", " "), "at least " if all_of_them else ""
    text = f"The {first} first (by {names[chosen]}), {floor}"
    text += f"{with_spread(about, sign=False)} heads of the {n} that were tried can go before a prompt is worse by "
    text += f"{number(bar)}{run.unit(metric)} of {metric} (a tenth of the clean value); {all_of_them} of "
    text += f"{count(len(spared[chosen]), 'prompt')} {'bears' if all_of_them == 1 else 'bear'} all of them"
    if drawn:
        gain = interval(run, spared[chosen] - spared[drawn].mean(axis=0))
        text += f". In {count(len(drawn), 'random order')} it is {number(float(spared[drawn].mean()))}: "
        text += f"{with_spread(gain, sign=False)} more"
    text += "." if chosen in drawn else ". The order was chosen by these same prompts; others may bear fewer."
    return Finding(text, about.mean, about.low, about.high, "cumulative_effect")


def can_go(worse: Float[np.ndarray, "order prompt step"], bar: float) -> Float[np.ndarray, "order prompt"]:
    """Return how many heads were ablated before a prompt was first worse by more than the bar."""
    beyond = worse > bar
    return np.where(beyond.any(axis=-1), beyond.argmax(axis=-1), worse.shape[-1]).astype(float)
