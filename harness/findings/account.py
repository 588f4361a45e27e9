"""Findings about where an effect went: what later heads and MLPs add to a head's direct effect, or take back."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.findings.finding import Finding
from harness.findings.format import signed, with_spread
from harness.findings.intervals import interval
from harness.hooks import Head

if TYPE_CHECKING:
    from harness.results import Run

_HEADS = 2  # heads whose effects are accounted for in a sentence
#: The component that is the head itself.
DIRECT = "direct"


def account_of(run: "Run", metric: str, head: Head) -> pd.DataFrame | None:
    """Return the account [prompt, component] of a head's effect; None where it has none by this metric."""
    if "account" not in run.data:
        return None
    values = run.data["account"].sel(metric=metric, **head.place)
    by_prompt = pd.DataFrame(values.values.astype(float), columns=values["component"].values.astype(str))
    return by_prompt if np.isfinite(by_prompt.to_numpy()).all() else None


def accounted(run: "Run", metric: str) -> Iterator[Finding]:
    """Say, of the two heads with the largest effects, what is direct, what is added and what is taken back.

    A component takes back whose mean is against the effect; the parts sum to it. Of those that add and of those that
    take back the largest is named, with its interval.
    """
    for head in run.top_heads(metric, _HEADS):
        account = account_of(run, metric, head)
        if account is not None and head in run.shown(metric):
            yield _of_head(run, metric, head, account)


def _of_head(run: "Run", metric: str, head: Head, account: pd.DataFrame) -> Finding:
    mean, unit = account.mean(), run.unit(metric)
    total, side = float(mean.sum()), float(np.sign(mean.sum()))
    later = mean.drop(DIRECT)
    text = f"By {metric}, {head}'s {signed(total)}{unit} is {signed(float(mean[DIRECT]))} direct"
    kinds = (("that later components add", later[side * later > 0]), ("that others take back", later[side * later < 0]))
    for what, parts in kinds:
        if len(parts):
            name = str(parts.abs().idxmax())
            most = with_spread(interval(run, account[name].to_numpy()))
            text += f", {signed(float(parts.sum()))} {what} (most by {name}: {most})"
    back = interval(run, account[kinds[1][1].index].to_numpy().sum(axis=1)) if len(kinds[1][1]) else None
    value = (back.mean, back.low, back.high) if back else (0.0, np.nan, np.nan)
    return Finding(f"{text}.", *value, "account")
