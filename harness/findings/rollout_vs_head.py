"""Findings about rollout and the strongest head: whether they look at the same token."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jaxtyping import Float

from harness.attribution.saved_rollout import rollout_of
from harness.findings.finding import Finding
from harness.findings.format import count
from harness.hooks import Head

if TYPE_CHECKING:
    from harness.results import Run

_ORDINALS = {1: "first", 2: "second", 3: "third"}


def agreement(run: "Run") -> Iterator[Finding]:
    """State what rollout and the strongest head look at, and on how many prompts it is the same token."""
    if not {"effect", "pattern"} <= set(run.data) or "source_length" in run.data:
        return  # of an encoder-decoder there is no rollout
    metric = run.lead_metric
    scored = [index for index in range(run.data.sizes["prompt"]) if run.data["target"].values[index].any()]
    for head in run.top_heads(metric, 1) if scored else ():
        rolled = [rollout_of(run, prompt)[run.last_scored(prompt)] for prompt in scored]
        head_rows = [_row(run, prompt, head) for prompt in scored]
        same = sum(int(a.argmax()) == int(b.argmax()) for a, b in zip(rolled, head_rows, strict=True))
        text = f"From the last scored position, attention rollout looks most at {_most(run, scored, rolled)}, and "
        text += f"{head} (largest effect on {metric}) at {_most(run, scored, head_rows)}. They look most at the "
        yield Finding(f"{text}same token on {same} of {len(scored)}.", same / len(scored), np.nan, np.nan, "pattern")


def _most(run: "Run", prompts: Sequence[int], rows: Sequence[Float[np.ndarray, " _"]]) -> str:
    """Describe the kind of token looked at most often, on how many prompts, and the mean weight on it."""
    kinds = [_kind(run, prompt, int(row.argmax())) for prompt, row in zip(prompts, rows, strict=True)]
    kind, times = Counter(kinds).most_common(1)[0]
    weight = np.mean([row.max() for row, other in zip(rows, kinds, strict=True) if other == kind])
    return f"{kind} on {times} of {count(len(prompts), 'prompt')} (mean weight {weight:.2f})"


def _row(run: "Run", prompt: int, head: Head) -> Float[np.ndarray, " key"]:
    """Return the head's weights from the prompt's last scored position."""
    weights = run.pattern(prompt, head.stack).sel(layer=head.layer, head=head.head).values
    return weights[run.last_scored(prompt)].astype(float)


def _kind(run: "Run", prompt: int, key: int) -> str:
    """Describe a position: the answer's or the distractor's token, the first or the previous one, else its text."""
    row = run.data.isel(prompt=prompt)
    token = str(row["token"].values[key]).strip()
    names = {str(row[name].values).strip(): name for name in ("distractor", "answer") if name in row}
    query = run.last_scored(prompt)
    if key == 0:
        return "the first token"
    if token and token in names:
        role = "the right answer’s token" if names[token] == "answer" else "the wrong answer’s token"
        return f"{role}{_occurrence(row, key)}"
    quoted = f"“{run.token_labels(prompt)[key].strip()}”"
    return {query: "that position itself", query - 1: "the token before it"}.get(key, quoted)


def _occurrence(row: xr.Dataset, key: int) -> str:
    """Number the occurrence of a token, if the prompt has it more than once."""
    tokens = [str(token).strip() for token in row["token"].values]
    nth = tokens[: key + 1].count(tokens[key])
    return f" (its {_ORDINALS.get(nth, f'{nth}th')} occurrence)" if tokens.count(tokens[key]) > 1 else ""
