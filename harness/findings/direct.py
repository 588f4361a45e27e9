"""Findings about direct effects and self-repair by later layers."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from harness.findings.finding import Finding
from harness.findings.format import signed, with_spread
from harness.findings.intervals import interval
from harness.hooks import Head
from harness.results.schema import by_head

if TYPE_CHECKING:
    from harness.results import Run

_REPAIRABLE = 0.1  # self-repair is stated of direct effects of at least this share of the total


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
