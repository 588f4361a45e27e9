"""Answer what the attention on the sink, the first token, is worth."""

from typing import TYPE_CHECKING

import numpy as np

from harness.attribution.evaluate import shares
from harness.findings.finding import Finding
from harness.findings.format import count, number, with_spread
from harness.findings.intervals import interval
from harness.findings.questions.pattern_statistics import PerHead, extreme, per_head, unanswered

if TYPE_CHECKING:
    from harness.results import Run

_SINK = 0.5  # of a head's attention


def sinks(run: "Run") -> Finding:
    """State the first token's share of attention, of value-weighted norms, and of all measured causes."""
    first = shares(run.data).sel(statistic="first_share")
    measures = {"attention": "attention_mean", "norms": "norms", "cause": str(run.data["cause_kind"].values[0])}
    lacking = [name for name in measures.values() if name not in first["which"].values]
    if lacking:
        return unanswered(f"attribution.methods lacks {', '.join(lacking)}, which the sink is compared by.")
    share = {name: first.sel(which=which).values.astype(float) for name, which in measures.items()}
    about = {name: interval(run, values) for name, values in share.items()}
    gap = interval(run, share["attention"] - share["cause"])
    on_first = resting_heads(run)
    resting = int((on_first.mean(axis=0) > _SINK).sum())
    text = f"The first token gets {with_spread(about['attention'], sign=False)} of the attention where "
    text += f"something is predicted, {number(about['norms'].mean)} of it weighted by the norms of values, and "
    text += f"{with_spread(about['cause'], sign=False)} of the effects of removing tokens ({measures['cause']}). "
    verb = "gives" if resting == 1 else "give"
    text += f"{resting} of {count(on_first[0].size, 'head')} {verb} it more than half ({extreme(on_first)[0]} most)."
    return Finding(text, gap.mean, gap.low, gap.high, "attribution")


def resting_heads(run: "Run") -> PerHead:
    """Return the share of attention on the first token, mean over the tokens after it."""
    return per_head(run, lambda pattern: np.asarray(pattern[:, :, 1:, 0].mean(axis=-1)))
