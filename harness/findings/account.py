"""Findings about where an effect went: what later heads and MLPs add to a head's direct effect, or take back."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from harness.findings.finding import Finding
from harness.findings.format import signed, with_spread
from harness.findings.intervals import interval
from harness.hooks import Head

if TYPE_CHECKING:
    from harness.results import Run

_HEADS = 2  # heads whose effects are accounted for in a sentence
#: The component that is the head itself.
DIRECT = "direct"


#: Components by name, each with what it adds on each prompt.
Account = Mapping[str, Float[np.ndarray, " prompt"]]


def account_of(run: "Run", metric: str, head: Head) -> Account | None:
    """Return the account of a head's effect; None where it has none by this metric."""
    if "account" not in run.data:
        return None
    values = run.data["account"].sel(metric=metric, **head.place).transpose("component", "prompt").values.astype(float)
    names = run.data["component"].values.astype(str).tolist()
    return dict(zip(names, values, strict=True)) if np.isfinite(values).all() else None


def accounted(run: "Run", metric: str) -> Iterator[Finding]:
    """Say, of the two heads with the largest effects, what is direct, what is added and what is taken back.

    A component takes back whose mean is against the larger of effect and direct effect; the parts sum to the effect. Of
    those that add and of those that take back the largest is named, with its interval.
    """
    for head in run.top_heads(metric, _HEADS):
        account = account_of(run, metric, head)
        if account is not None and head in run.shown(metric):
            yield account_finding(run, metric, head, account)


def account_finding(run: "Run", metric: str, head: Head, account: Account) -> Finding:
    """Return the sentence on one head's account; the finding's number is what is taken back."""
    mean = {name: float(values.mean()) for name, values in account.items()}
    total, direct = sum(mean.values()), mean.pop(DIRECT)
    text = f"By {metric}, {head}'s {signed(total)}{run.unit(metric)} is {signed(direct)} direct"
    side = direct if abs(direct) > abs(total) else total  # where all is taken back, the effect has no side
    adding = [name for name, value in mean.items() if value * side > 0]
    against = [name for name, value in mean.items() if value * side < 0]
    for what, names in (("that later components add", adding), ("that others take back", against)):
        if names:
            most = max(names, key=lambda name: abs(mean[name]))
            about = with_spread(interval(run, account[most]))
            text += f", {signed(sum(mean[name] for name in names))} {what} (most by {most}: {about})"
    back = interval(run, np.sum([account[name] for name in against], axis=0)) if against else None
    value = (back.mean, back.low, back.high) if back else (0.0, np.nan, np.nan)
    return Finding(f"{text}.", *value, "account")
