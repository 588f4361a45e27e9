"""Findings about direct effects: self-repair by later layers, and the tokens that they are read from."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from harness.findings.finding import Finding
from harness.findings.format import listed, number, signed, with_spread
from harness.findings.intervals import interval
from harness.hooks import Head
from harness.results.schema import by_head

if TYPE_CHECKING:
    from harness.results import Run

_REPAIRABLE = 0.1  # self-repair is stated of direct effects of at least this share of the total
_SPLIT = 2  # heads whose direct effects are split by token


def direct_parts(run: "Run", metric: str) -> Iterator[Finding]:
    """Split the effects of two heads, with the largest effect and the largest direct effect, into direct and rest.

    Where later layers work against the direct effect, and the whole interval of what they add is on that side, it is
    called self-repair (McGrath et al. 2023, arXiv:2307.15771).
    """
    if "direct" not in run.data:
        if reason := run.data["effect"].attrs.get("no_direct"):
            yield Finding(f"Direct effects are not given for this model: {reason}.", np.nan, np.nan, np.nan, "effect")
        return
    sure = run.shown(metric)
    for head in dict.fromkeys([*run.top_heads(metric, 1), *_most_direct(run, metric)]):
        direct = run.effect(metric, head, "direct")
        if np.isfinite(direct).all() and direct.any() and head in sure:
            yield _parted(run, metric, head, run.effect(metric, head), direct)


def _parted(
    run: "Run", metric: str, head: Head, total: Float[np.ndarray, " prompt"], direct: Float[np.ndarray, " prompt"]
) -> Finding:
    rest, straight = interval(run, total - direct), float(direct.mean())
    text = f"By {metric}, {signed(straight)}{run.unit(metric)} of {head}'s {signed(float(total.mean()))} is its direct "
    text += f"effect; later layers add {with_spread(rest)}"
    against = min(-np.sign(straight) * rest.low, -np.sign(straight) * rest.high)
    if against > 0 and abs(straight) > _REPAIRABLE * abs(float(total.mean())):
        text += f": self-repair of {min(100, -100 * rest.mean / straight):.0f} %"
    return Finding(f"{text}.", straight, rest.low, rest.high, "direct")


def _most_direct(run: "Run", metric: str) -> list[Head]:
    heads, mean = by_head(run.data["direct"].sel(metric=metric).mean("prompt"))
    size = np.nan_to_num(np.abs(mean), nan=-1.0)
    return [heads[int(size.argmax())]] if size.max() > 0 else []


def read_from(run: "Run", metric: str) -> Iterator[Finding]:
    """Name the token that the direct effect of a head is read from: of the two important heads with the largest.

    The direct effect itself must be as large as an important effect. Tokens are named by their role in the prompt set;
    parts of one role are summed on each prompt. Nothing where the run has no direct effects by token, or none by this
    metric, or where the prompt set names no tokens.
    """
    if "source_direct" not in run.data or "token_role" not in run.data:
        return
    claims = run.claims(metric)
    important = [head for head in run.shown(metric) if head in claims and claims[head].important == 1]
    by_key = {head: run.data["source_direct"].sel(metric=metric, **head.place).values for head in important}
    whole = {head: float(values.sum(axis=1).mean()) for head, values in by_key.items() if np.isfinite(values).all()}
    for head in sorted(whole, key=lambda head: (-abs(whole[head]), head))[:_SPLIT]:
        if abs(whole[head]) > run.threshold(metric)[1]:
            yield source_finding(run, metric, head, by_key[head])


def source_finding(run: "Run", metric: str, head: Head, by_key: Float[np.ndarray, "prompt key"]) -> Finding:
    """Return the sentence on one head's direct effect by the role of the token read."""
    role = run.data["token_role"].values
    names = dict.fromkeys(role[role != ""])
    parts = {str(name): (by_key * (role == name)).sum(axis=1) for name in names}
    first, *rest = sorted(parts, key=lambda name: -abs(float(parts[name].mean())))
    about, whole = interval(run, parts[first]), float(by_key.sum(axis=1).mean())
    text = (
        f"By {metric}, {with_spread(about, run.unit(metric))} of {head}'s direct effect, {signed(whole)}, is read from "
    )
    text += f"{'other tokens' if first == 'other' else f'the {first}'} ({number(100 * about.mean / whole)} %)"
    text += f"; from others: {listed([f'{name} {signed(float(parts[name].mean()))}' for name in rest])}."
    return Finding(text, about.mean, about.low, about.high, "source_direct")
