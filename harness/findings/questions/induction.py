"""Answer whether the heads with the induction role matter more than others."""

from typing import TYPE_CHECKING

import numpy as np

from harness.findings.finding import Finding
from harness.findings.format import count, listed, number, signed, with_spread
from harness.findings.intervals import interval
from harness.findings.questions.pattern_statistics import unanswered
from harness.results.schema import by_head

if TYPE_CHECKING:
    from harness.results import Run

_NAMED = 4


def induction(run: "Run") -> Finding:
    """State the mean effect of ablating a head that has the role, less that of ablating one without it."""
    metric = run.lead_metric
    heads, has_role = by_head(run.data["role_given"].sel(role="induction"))
    where, effect = by_head(run.data["effect"].sel(metric=metric).transpose("prompt", ...))
    assert heads == where
    score = by_head(run.data["role_score"].sel(role="induction"))[1]
    has = np.nan_to_num(has_role.astype(float)) > 0
    if not has.any() or has.all():
        best = heads[int(np.nan_to_num(score, nan=-1.0).argmax())]
        return unanswered(
            f"{'Every' if has.all() else 'No'} head looks like induction beyond chance; {best} does most "
            f"({number(float(np.nanmax(score)))})."
        )
    known = np.isfinite(effect).all(axis=0)
    mine, others = effect[:, has & known].mean(axis=1), effect[:, ~has & known].mean(axis=1)
    gap = interval(run, (mine - others).astype(float))
    order = [heads[at] for at in np.argsort(-np.where(has, score, -1)) if has[at]]
    names = listed([str(head) for head in order[:_NAMED]]) + (" and others" if len(order) > _NAMED else "")
    have = "has" if len(order) == 1 else "have"
    text = f"{count(len(order), 'head')} {have} the induction role ({names}): ablating one of them changes {metric} by "
    text += f"{signed(float(mine.mean()))}{run.unit(metric)} on average, one of the others by "
    text += f"{signed(float(others.mean()))}: {with_spread(gap, run.unit(metric))} apart."
    return Finding(text, gap.mean, gap.low, gap.high, "effect")
