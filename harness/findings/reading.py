"""Findings about what a head looks at where the prediction is scored, by what tokens are in their prompt set."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from harness.findings.finding import Finding
from harness.findings.format import number, signed, with_spread
from harness.findings.intervals import interval
from harness.hooks import Head
from harness.results.schema import pattern_variable

if TYPE_CHECKING:
    from harness.results import Run

_STATED = 0.02  # roles with a smaller mean share are left out of a sentence


def looks_at(run: "Run", head: Head) -> Finding | None:
    """Say what a decoder's head looks at at the scored positions, beside what it looks at elsewhere.

    By `token_role`; where the prompt set has none, by place: the first token, the token itself, the one before. None
    without patterns, and for heads that read another text.
    """
    if "pattern" not in run.data or head.stack not in ("", "decoder"):
        return None
    here, elsewhere = reading_shares(run, head)
    mean = {name: float(shares.mean()) for name, shares in here.items()}
    first, *rest = sorted(mean, key=lambda name: -mean[name])
    about = interval(run, here[first])
    text = f"Where the prediction is scored, {head} gives {with_spread(about, sign=False)} of its attention to "
    text += f"{_called(first)}; elsewhere {number(float(np.nanmean(elsewhere[first])))}"
    stated = [f"{_called(name)} {number(mean[name])}" for name in rest[:3] if mean[name] >= _STATED]
    text += f"; then to {', '.join(stated)}" if stated else ""
    return Finding(f"{text}.", about.mean, about.low, about.high, "pattern")


def _called(role: str) -> str:
    return "other tokens" if role == "other" else f"the {role}"


#: Of each role, the share of attention on each prompt.
Shares = Mapping[str, Float[np.ndarray, " prompt"]]


def reading_shares(run: "Run", head: Head) -> tuple[Shares, Shares]:
    """Return the mean share of a head's attention that goes to tokens of each role: at the scored positions, and at
    all others (NaN where a prompt has none)."""
    variable, *_ = pattern_variable(head.stack)
    pattern = run.data[variable].sel({name: at for name, at in head.place.items() if name != "stack"}).values
    target, length = run.data["target"].values.astype(bool), run.data["length"].values
    real = np.arange(target.shape[1]) < length[:, None]
    roles = _roles(run, target.shape[1])
    by_role = {name: (pattern * (roles == name)).sum(axis=-1) for name in map(str, np.unique(roles)) if name}
    here, elsewhere = (
        {name: _mean_rows(shares, rows) for name, shares in by_role.items()} for rows in (target, real & ~target)
    )
    return here, elsewhere


def _roles(run: "Run", n: int) -> np.ndarray:
    """Return the name of each key as a query sees it, [prompt, query or 1, key]."""
    if "token_role" in run.data and (run.data["token_role"].values != "").any():
        return run.data["token_role"].values.astype(str)[:, None]
    query, key = np.mgrid[:n, :n]
    named = np.select(
        [key == query, key == 0, key == query - 1], ["token itself", "first token", "token before"], "other"
    )
    return np.repeat(named[None], run.data.sizes["prompt"], axis=0)


def _mean_rows(
    shares: Float[np.ndarray, "prompt query"], rows: Bool[np.ndarray, "prompt query"]
) -> Float[np.ndarray, " prompt"]:
    n = rows.sum(axis=1)
    return np.where(n > 0, (shares * rows).sum(axis=1) / np.maximum(n, 1), np.nan)


def matters_most(run: "Run", head: Head) -> Finding | None:
    """Say on which prompt a head's effect is largest and least, and what its last scored position looks at there.

    None for a head without an effect.
    """
    if "shown_prompt" not in run.data or str(head) not in run.data["card"].values:
        return None
    prompts = run.data["shown_prompt"].sel(card=str(head))
    most, least = (int(prompts.sel(extreme=side)) for side in ("most", "least"))
    if most < 0 or not run.effect(run.lead_metric, head)[most]:
        return None
    text = f"By {run.lead_metric}, {head} matters most on prompt {most} {_seen(run, head, 'most', most)}"
    if least != most:
        text += f", and least on prompt {least} {_seen(run, head, 'least', least)}"
    value = float(run.effect(run.lead_metric, head)[most])
    return Finding(f"{text}.", value, np.nan, np.nan, "shown_pattern")


def _seen(run: "Run", head: Head, extreme: str, prompt: int) -> str:
    effect, row = float(run.effect(run.lead_metric, head)[prompt]), shown_row(run, head, extreme)
    key = int(row.argmax())
    label = run.token_labels(prompt)[key]
    looks = f"where the last scored position looks most at “{label.strip() or label}” ({number(float(row[key]))})"
    return f"({signed(effect)}{run.unit(run.lead_metric)}), {looks}"


def shown_row(run: "Run", head: Head, extreme: str) -> Float[np.ndarray, " key"]:
    """Return a head's pattern at the last scored position of the prompt where it matters ``most`` or ``least``."""
    prompt = int(run.data["shown_prompt"].sel(card=str(head), extreme=extreme))
    row = run.data["shown_pattern"].sel(card=str(head), extreme=extreme).values.astype(float)
    return row[: int(run.data["length"][prompt])]
