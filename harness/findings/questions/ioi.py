"""Answer which head moves the name: the head with the largest effect, beside the one that looks at the name most."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from harness.findings.finding import Finding
from harness.findings.format import mean_with_spread, number, with_spread
from harness.findings.intervals import interval
from harness.findings.questions.pattern_statistics import PerHead, unanswered

if TYPE_CHECKING:
    from harness.results import Run


def ioi(run: "Run") -> Finding:
    """State the largest effect on the leading metric beside the clean value, and that head's attention at the end on
    the answer's name and on the other's; beside it the head that looks at the answer most, which need not help."""
    metric = run.lead_metric
    head = run.top_heads(metric, 1)[0]
    about, clean = run.estimate(metric, head), float(run.data["clean"].sel(metric=metric).mean())
    right, wrong = (_on(run, name, head.stack) for name in ("answer", "distractor"))
    if not np.isfinite([right, wrong]).all():
        return unanswered("Not every prompt has both an answer and a distractor among its words.")
    mine = {"right": right[:, head.layer, head.head], "wrong": wrong[:, head.layer, head.head]}
    more = interval(run, mine["right"] - mine["wrong"])
    same = int((np.sign(run.effect(metric, head)) == np.sign(about.mean)).sum())
    text = f"{head}: ablating it changes {metric} by {with_spread(about, run.unit(metric))} of "
    text += f"{number(clean)}, on {same} of {len(right)} prompts the same way. Where the answer is predicted it "
    text += f"looks at the right name with {number(mine['right'].mean())} of its attention, at the wrong one with "
    text += f"{number(mine['wrong'].mean())} (difference {with_spread(more)}). "
    reader = max(
        (each for each in run.ablated_heads if each.stack == head.stack),
        key=lambda each: float(right[:, each.layer, each.head].mean()),
    )
    looks = number(float(right[:, reader.layer, reader.head].mean()))
    if reader == head:
        text += f"No head looks at the right name more ({looks})."
    else:
        its = run.estimate(metric, reader)
        text += f"{reader} looks at the right name most ({looks}): "
        text += f"ablating it changes {metric} by {mean_with_spread(its)}."
    return Finding(text, about.mean, about.low, about.high, "effect")


def _on(run: "Run", name: str, stack: str) -> PerHead:
    """Return the weight on the answer's (or distractor's) tokens at the last scored position; NaN without them."""
    return np.stack([_of_prompt(run, prompt, name, stack) for prompt in range(run.data.sizes["prompt"])])


def _of_prompt(run: "Run", prompt: int, name: str, stack: str) -> Float[np.ndarray, "layer head"]:
    row, end = run.data.isel(prompt=prompt), int(run.data["length"].values[prompt])
    answer = str(row[name].values).strip()
    there = np.array([str(token).strip() == answer for token in row["token"].values[:end]])
    pattern = run.pattern(prompt, stack).transpose("layer", "head", "query", "key").values.astype(float)
    weight = pattern[:, :, run.last_scored(prompt)][..., there].sum(axis=-1)
    return weight if answer and there.any() else np.full_like(weight, np.nan)
