"""Answer whether rollout agrees better with the measured cause than the plain mean of attention."""

from typing import TYPE_CHECKING

import numpy as np

from harness.findings.finding import Finding
from harness.findings.format import with_spread
from harness.findings.intervals import interval
from harness.findings.questions.pattern_statistics import unanswered

if TYPE_CHECKING:
    from harness.results import Run

_TOKENS = {"drop": "without special, first and predicting tokens", "keep": "over all tokens"}


def rollout(run: "Run") -> Finding:
    """State the rank correlation with the first cause, rollout's less the mean attention's, prompt by prompt."""
    policy = str(run.data["policy"].values[-1])
    cause = str(run.data["cause_kind"].values[0])
    agreeing = run.data["agreement"].sel(statistic="spearman", policy=policy, cause_kind=cause)
    rolled, plain = (
        agreeing.sel(attribution_method=name).values.astype(float) for name in ("rollout", "attention_mean")
    )
    known = np.isfinite(rolled) & np.isfinite(plain)
    if not known.all():
        return unanswered(f"{int((~known).sum())} prompts have too few tokens to rank; give longer ones.")
    about, alone = interval(run, rolled - plain), interval(run, rolled)
    beats = "better than" if about.low > 0 else "worse than" if about.high < 0 else "not shown to be better than"
    text = f"Rollout orders tokens like the measured cause ({cause}, {_TOKENS[policy]}) with a Spearman correlation of "
    text += f"{with_spread(alone, sign=False)}, {beats} the mean of "
    text += f"attention does (difference {with_spread(about)})."
    return Finding(text, about.mean, about.low, about.high, "agreement")
