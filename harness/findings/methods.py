"""Which attribution method agrees with the measured cause, in sentences."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from harness.faithfulness.sentence import nearest
from harness.findings.reading import level_of
from harness.findings.sentence import Finding

if TYPE_CHECKING:
    from harness.results import Run


def compared(run: "Run") -> Iterator[Finding]:
    """One sentence for the first cause and the stricter token policy that the run has."""
    if not len(run.methods):
        return
    policies = [str(name) for name in run.data["policy"].values]
    confidence = float(run.spec.get("stats", {}).get("confidence", 0.95))
    cause, policy = str(run.data["cause_kind"].values[0]), "drop" if "drop" in policies else policies[0]
    n_clusters = len(np.unique(run.data["cluster"].values))
    by = str(run.spec.get("attribution", {}).get("level", "token"))
    said = nearest(run.methods, cause, policy, confidence, level_of(run), n_clusters, by)
    if said is not None:
        yield Finding(*said, "methods.csv")
