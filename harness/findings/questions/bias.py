"""Answer which kind of word a prediction depends on: causes of tagged words, per token."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from harness.findings.finding import Finding
from harness.findings.format import listed, mean_with_spread, number, with_spread
from harness.findings.intervals import interval
from harness.findings.questions.pattern_statistics import unanswered
from harness.findings.segments import TAKEN, lead_cause
from harness.results.run import Estimate

if TYPE_CHECKING:
    from harness.results import Run


def bias(run: "Run") -> Finding:
    """State the cause of each tag per token of it, the largest first, and its attention for its length."""
    tags = [str(name) for name in run.data["part"].values if str(name) not in ("special", "question", "answer")]
    cause, about = lead_cause(run), dict[str, Estimate]()
    for tag in tags:
        values = per_token(run, tag)
        about[tag] = interval(run, values) if np.isfinite(values).all() else _of_some(values)
    order = sorted((tag for tag in tags if np.isfinite(about[tag].mean)), key=lambda tag: -about[tag].mean)
    if len(order) < 2:
        return unanswered("Words of at least two tags are needed to compare them.")
    first, most = order[0], about[order[0]]
    unit = " nats" if "nats" in run.data["traced_value"].attrs["units"] else ""
    others = [f"{tag} {mean_with_spread(about[tag])}" for tag in order[1:]]
    text = f"Per token the prediction depends most on {first} words"
    if not (most.kind == run.interval_name and most.low > 0):
        text = f"Per token no kind of word is shown to be used; the largest cause is that of {first} words"
    text += f": when {TAKEN.get(cause, cause)}, the prediction loses "
    text += f"{with_spread(most, unit)} per token; {listed(others)}. For each 1 % of the tokens attention gives "
    text += listed([f"{tag} {number(attention_for_length(run, tag))} %" for tag in order])
    return Finding(f"{text}.", most.mean, most.low, most.high, "part_cause")


def per_token(run: "Run", tag: str) -> Float[np.ndarray, " prompt"]:
    """Return the cause of a tag's words on each prompt, divided by their tokens; NaN without such words."""
    chosen = run.data.sel(part=tag)
    cause = chosen["part_cause"].sel(taken=lead_cause(run)).mean("traced").values.astype(float)
    tokens = chosen["part_tokens"].values.astype(float)
    return np.where(tokens > 0, cause / np.maximum(tokens, 1), np.nan)


def attention_for_length(run: "Run", tag: str) -> float:
    """Return the tag's share of attention over its share of tokens, mean over prompts that have it."""
    attention = run.data["part_attention"].sel(part=tag).mean(["traced", "layer", "head"]).values.astype(float)
    tokens = run.data["part_tokens"].transpose("prompt", "part").values
    share = run.data["part_tokens"].sel(part=tag).values / tokens.sum(axis=1)
    there = share > 0
    return float(np.mean(attention[there] / share[there]))


def _of_some(values: Float[np.ndarray, " prompt"]) -> Estimate:
    """Return the mean over the prompts that have such words, with its standard error."""
    known = values[np.isfinite(values)]
    if not len(known):
        return Estimate(np.nan, np.nan, np.nan, "one prompt")
    error = float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else np.nan
    kind = "standard error" if len(known) > 1 else "one prompt"
    return Estimate(float(known.mean()), float(known.mean() - error), float(known.mean() + error), kind)
