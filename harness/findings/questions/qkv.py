"""Take one head apart: scores before the softmax, weights, norms of values, and its output."""

from typing import TYPE_CHECKING

import numpy as np

from harness.findings.finding import Finding
from harness.findings.format import number, signed, with_spread
from harness.findings.intervals import interval
from harness.findings.questions.pattern_statistics import unanswered
from harness.hooks import Head

if TYPE_CHECKING:
    from harness.results import Run

_NEEDED = {"scores", "v", "z"}


def qkv(run: "Run") -> Finding:
    """State how the first token's share changes from weights to norms of the output, at the last token of each prompt.

    And the first prompt in numbers. The head is the one that the report opens with (``show.heads``).
    """
    if not set(run.data) >= _NEEDED:
        return unanswered("The run lacks the head's activations: set cache.also=[q,k,v,scores,z].")
    shown = (run.spec.get("show") or {}).get("heads") or ["L0H0"]
    head = Head.parse(shown[0])
    taken = [HeadParts(run, prompt, head) for prompt in range(run.data.sizes["prompt"])]
    moved = interval(run, np.array([each.written[0] - each.weight[0] for each in taken]))
    first, token = taken[0], run.token_labels(0)
    top = int(first.weight.argmax())
    off = max(max(each.softmax_error, each.sum_error) for each in taken)
    text = (
        f"At “{token[-1].strip()}” {head} scores “{token[top].strip()}” {signed(first.score[top])} before the softmax "
    )
    text += f"(the next best {signed(np.sort(first.score)[-2])}): {number(first.weight[top])} of its attention, "
    text += f"{number(first.written[top])} of what it writes by the norms of weight times value. Over all prompts the "
    text += f"first token's share changes by {with_spread(moved)} from attention to what is written. The "
    text += f"softmax of the scores is the pattern and weights times values are z, to {off:.0e}."
    return Finding(text, moved.mean, moved.low, moved.high, "z")


class HeadParts:
    """One head at one prompt's last token: `score`, `weight` and `written` (shares of norms) for each token."""

    def __init__(self, run: "Run", prompt: int, head: Head):
        end, place = int(run.data["length"].values[prompt]), {"layer": head.layer, "prompt": prompt}
        shared = run.data.sizes["head"] // run.data.sizes["kv_head"]
        row = run.data[["pattern", "scores", "z"]].sel(layer=head.layer, head=head.head).isel(prompt=prompt)
        self.score = row["scores"].values[end - 1, :end].astype(float)
        self.weight = row["pattern"].values[end - 1, :end].astype(float)
        value = run.data["v"].sel(layer=place["layer"], kv_head=head.head // shared).isel(prompt=prompt).values[:end]
        parts = self.weight[:, None] * value.astype(float)
        norms = np.linalg.norm(parts, axis=1)
        self.written = norms / norms.sum()
        powers = np.exp(self.score - self.score.max())
        self.softmax_error = float(np.abs(powers / powers.sum() - self.weight).max())
        self.sum_error = float(np.abs(parts.sum(axis=0) - row["z"].values[end - 1]).max())
