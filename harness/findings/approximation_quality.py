"""Findings about the quality of an approximate sweep (bf16, or attribution patching)."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.findings.finding import Finding
from harness.findings.format import count, decimals, number

if TYPE_CHECKING:
    from harness.results import Run


def blind(run: "Run") -> Iterator[Finding]:
    """State first what limits all else: a blind screen, or a method that was not used."""
    attrs = _attributes(run)
    if attrs.get("remark"):
        yield Finding(f"sweep.method=fast was not used: {attrs['remark']}.", np.nan, np.nan, np.nan, "effect")
    for metric, known in json.loads(attrs.get("screen", "{}")).items():
        if known["blind"]:
            total, together, of = known["estimates"], known["together"], run.unit(metric)
            text = f"By {metric}, the screen is blind here: the absolute estimates of all heads sum to "
            text += f"{number(total)}{of}, and ablating all heads together changes it by {number(together)}{of}. "
            text += "Heads that were not measured may have large effects; set sweep.method=exact."
            yield Finding(text, total, np.nan, np.nan, "estimate")


def quick(run: "Run") -> Iterator[Finding]:
    """State how many heads were measured exactly, and the errors of the others."""
    attrs = _attributes(run)
    for metric, known in json.loads(attrs.get("screen", "{}")).items():
        if not known["blind"]:
            yield _screened(run, metric, known["rank_correlation"], attrs["verified"])
    for metric, known in json.loads(attrs.get("errors", "{}")).items():
        yield _fast(run, metric, known, attrs)


def _attributes(run: "Run") -> dict[str, Any]:
    return run.data["effect"].attrs if "effect" in run.data else {}


def _screened(run: "Run", metric: str, rho: float, verified: str) -> Finding:
    n = int(run.data["estimate"].sel(metric=metric).notnull().any("prompt").sum())
    text = f"By {metric}, {count(n, 'head')} were screened by attribution patching (first-order estimates) and the "
    text += f"{verified} with the largest estimates ablated{_ranked(rho, 'estimate and effect order these by size')}. "
    text += "The others have only an estimate."
    return Finding(text, rho, np.nan, np.nan, "estimate")


def _fast(run: "Run", metric: str, known: dict[str, Any], attrs: dict[str, Any]) -> Finding:
    of, n = run.unit(metric), count(len(run.ablated_heads), "head")
    text = f"By {metric}, {n} were swept in bf16 and {attrs['verified']} again exactly. "
    sure, within = f"{known['confidence']:.0%} confidence", f"{100 * known['share_within']:.0f} %"
    text += f"On the {attrs['sampled']} of these that were drawn at random the error of bf16 is {number(known['rms'])}"
    text += f"{of} (root mean square of mean effects; with {sure} at most {number(known['rms_high'])} over all heads, "
    text += f"and at least {within} of them are off by no more than {number(known['largest'])})"
    ends = (
        f" ({decimals(known['rank_low'])} to {decimals(known['rank_high'])})" if np.isfinite(known["rank_low"]) else ""
    )
    text += f"{_ranked(known['rank_correlation'], 'both order these by size')}{ends}."
    return Finding(text, known["rms"], 0.0, known["rms_high"], "fast_effect")


def _ranked(rho: float, who: str) -> str:
    return f"; {who} with a Spearman correlation of {decimals(rho)}" if np.isfinite(rho) else ""
