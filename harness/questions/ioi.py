"""Which head moves the name: the largest effect on the answer, and what the head looks at where it is predicted."""

from typing import TYPE_CHECKING

import numpy as np

from harness.findings.intervals import interval
from harness.findings.reading import effect_of, estimate, last_scored, lead_metric, pattern_of, top_heads, unit
from harness.findings.sentence import Finding
from harness.findings.telling import number, signed
from harness.hooks import Head
from harness.questions.patterns import unanswered

if TYPE_CHECKING:
    from harness.results import Run


def ioi(run: "Run") -> Finding:
    """The head with the largest effect on the leading metric, as a share of the clean value, and how much of its
    attention at the end is on the answer's name and on the other's."""
    metric = lead_metric(run)
    head = top_heads(run, metric, 1)[0]
    about, clean = estimate(run, metric, head), float(run.data["clean"].sel(metric=metric).mean())
    looks = {
        name: np.array([_on(run, prompt, head, name) for prompt in range(run.data.sizes["prompt"])])
        for name in ("answer", "distractor")
    }
    if not np.isfinite([looks["answer"], looks["distractor"]]).all():
        return unanswered("Not every prompt has both an answer and a distractor among its words.")
    more = interval(run, looks["answer"] - looks["distractor"])
    same = int((np.sign(effect_of(run, metric, head)) == np.sign(about.mean)).sum())
    text = f"{head}: without it {metric} changes by {about.told(signed(about.mean), unit(run, metric))} of "
    text += (
        f"{number(clean)}, on {same} of {len(looks['answer'])} prompts the same way. Where the answer is predicted it "
    )
    text += f"looks at the right name with {number(looks['answer'].mean())} of its attention, at the wrong one with "
    text += f"{number(looks['distractor'].mean())} (difference {more.told(signed(more.mean), '')})."
    return Finding(text, about.mean, about.low, about.high, "effect")


def _on(run: "Run", prompt: int, head: Head, name: str) -> float:
    """The weight on all tokens that are the answer (or the distractor), at the last scored position."""
    row, end = run.data.isel(prompt=prompt), int(run.data["length"].values[prompt])
    said = str(row[name].values).strip()
    there = np.array([str(token).strip() == said for token in row["token"].values[:end]])
    if not said or not there.any():
        return np.nan
    weights = pattern_of(run, prompt, head.stack).sel(layer=head.layer, head=head.head).values[last_scored(run, prompt)]
    return float(weights[there].sum())
