"""How far a quick look at all heads (in bf16, or by a gradient) can be trusted, in sentences."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.findings.format import count, decimals, number
from harness.findings.sentence import Finding

if TYPE_CHECKING:
    from harness.results import Run


def blind(run: "Run") -> Iterator[Finding]:
    """What a reader must know before all else: a screen that saw nothing, or a method that was not taken."""
    said = _said(run)
    if said.get("remark"):
        yield Finding(f"sweep.method=fast was asked for: {said['remark']}.", np.nan, np.nan, np.nan, "effect")
    for metric, known in json.loads(said.get("screen", "{}")).items():
        if known["blind"]:
            total, together, of = known["estimates"], known["together"], run.unit(metric)
            text = f"By {metric}, the screen is blind here: the estimates of all heads, signs aside, add up to "
            text += (
                f"{number(total)}{of}, and ablating all of them together changes it by {number(together)}{of}. What "
            )
            text += "it picked says nothing of the others; say sweep.method=exact."
            yield Finding(text, total, np.nan, np.nan, "estimate")


def quick(run: "Run") -> Iterator[Finding]:
    """What was measured again exactly, and how far the rest was off."""
    said = _said(run)
    for metric, known in json.loads(said.get("screen", "{}")).items():
        if not known["blind"]:
            yield _screened(run, metric, known["rank_correlation"], said["verified"])
    for metric, known in json.loads(said.get("errors", "{}")).items():
        yield _fast(run, metric, known, said)


def _said(run: "Run") -> dict[str, Any]:
    return run.data["effect"].attrs if "effect" in run.data else {}


def _screened(run: "Run", metric: str, rho: float, verified: str) -> Finding:
    n = int(run.data["estimate"].sel(metric=metric).notnull().any("prompt").sum())
    text = f"By {metric}, {count(n, 'head')} were screened by a gradient and the {verified} that looked strongest were "
    text += (
        f"ablated{_ranked(rho, 'estimate and effect order these by size')}. Of the others there is only an estimate."
    )
    return Finding(text, rho, np.nan, np.nan, "estimate")


def _fast(run: "Run", metric: str, known: dict[str, Any], said: dict[str, Any]) -> Finding:
    of, n = run.unit(metric), count(len(run.ablated_heads), "head")
    text = f"By {metric}, {n} were swept in bf16 and {said['verified']} again exactly. "
    sure, within = f"{known['confidence']:.0%} confidence", f"{100 * known['share_within']:.0f} %"
    text += (
        f"By the {said['sampled']} of these that were drawn at random bf16 is off by {number(known['rms'])}{of} (root "
    )
    text += (
        f"mean square of mean effects; with {sure} at most {number(known['rms_high'])} over all heads, and at least "
    )
    text += f"{within} of them are off by no more than {number(known['largest'])})"
    ends = (
        f" ({decimals(known['rank_low'])} to {decimals(known['rank_high'])})" if np.isfinite(known["rank_low"]) else ""
    )
    text += f"{_ranked(known['rank_correlation'], 'both order these by size')}{ends}."
    return Finding(text, known["rms"], 0.0, known["rms_high"], "fast_effect")


def _ranked(rho: float, who: str) -> str:
    return f"; {who} with a Spearman correlation of {decimals(rho)}" if np.isfinite(rho) else ""
