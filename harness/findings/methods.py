"""Findings about attribution methods: which agrees best with the measured cause."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from harness.attribution.evaluate.best_method import nearest
from harness.findings.finding import Finding

if TYPE_CHECKING:
    from harness.results import Run


def compared(run: "Run") -> Iterator[Finding]:
    """Yield one sentence for the first cause and the stricter token policy, and one for each method left out."""
    if not len(run.methods):
        return
    yield from _left_out(run)
    policies = [str(name) for name in run.data["policy"].values]
    confidence = float(run.spec.get("stats", {}).get("confidence", 0.95))
    cause, policy = str(run.data["cause_kind"].values[0]), "drop" if "drop" in policies else policies[0]
    n_clusters = len(np.unique(run.data["cluster"].values))
    by = str(run.spec.get("attribution", {}).get("level", "token"))
    answer = nearest(run.methods, cause, policy, confidence, run.level, n_clusters, by)
    if answer is not None:
        yield Finding(*answer, "methods.csv")


def _left_out(run: "Run") -> Iterator[Finding]:
    """Yield the methods and knockouts that the model does not allow, with reasons; occlusions that the tokenizer does
    not allow are no finding."""
    reasons = json.loads(run.data["attribution"].attrs.get("left_out", "{}"))
    for name, reason in reasons.items():
        if not name.startswith("occlude_"):
            yield Finding(f"{name} is left out: {reason}.", np.nan, np.nan, np.nan, "attribution")
