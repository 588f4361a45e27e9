"""Answer which heads stand out at a quick look: few prompts, a screen, the strongest heads ablated."""

from typing import TYPE_CHECKING

from harness.findings.finding import Finding
from harness.findings.format import count, number, with_spread

if TYPE_CHECKING:
    from harness.results import Run


def quick(run: "Run") -> Finding:
    """State first that this is no study, and why: its prompts, and how many heads have a mere estimate; then the head
    with the largest measured effect on the leading metric, beside the clean value."""
    metric = run.lead_metric
    head = run.top_heads(metric, 1)[0]
    about, clean = run.estimate(metric, head), float(run.data["clean"].sel(metric=metric).mean())
    text = f"This is a quick look, not the study: {count(run.data.sizes['prompt'], 'prompt')}{_screened(run)}. "
    text += f"{head} has the largest measured effect: without it {metric} changes by "
    text += f"{with_spread(about, run.unit(metric))} of {number(clean)}."
    return Finding(text, about.mean, about.low, about.high, "effect")


def _screened(run: "Run") -> str:
    """Describe how many heads were screened and how many ablated; empty where all were ablated."""
    measured = len(run.ablated_heads)
    if "estimate" not in run.data:
        return f", and {count(measured, 'head')} ablated"
    screened = int(run.data["estimate"].sel(metric=run.lead_metric).notnull().any("prompt").sum())
    return f", and {count(screened, 'head')} screened by their gradients, of which {measured} were ablated"
