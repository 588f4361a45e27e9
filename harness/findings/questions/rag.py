"""Answer which document an answer used."""

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from harness.findings.finding import Finding
from harness.findings.format import count
from harness.findings.questions.pattern_statistics import unanswered
from harness.findings.segments import candidates, lead_cause, of_measure, used

if TYPE_CHECKING:
    from harness.results import Run


def rag(run: "Run") -> Finding:
    """Name the part with the largest cause, in how many contexts it leads, and in how many attention agrees."""
    known = candidates(of_measure(run, lead_cause(run)))
    if not known:
        return unanswered("The contexts have no parts but the question and the answer.")
    about, names = used(run, known), [str(row["part"]) for row in known]
    cause = _first(run, run.data["part_cause"].sel(taken=lead_cause(run), part=names))
    looked = _first(run, run.data["part_attention"].sel(part=names).mean(["layer", "head"]))
    name, times = Counter(cause).most_common(1)[0]
    same = sum(a == b for a, b in zip(cause, looked, strict=True))
    text = f"{about.text} Context by context the largest cause is most often {name}’s, in {times} of "
    text += f"{count(len(cause), 'context')}; attention puts the same part as the cause "
    return Finding(f"{text}first in {same}.", about.value, about.low, about.high, about.source)


def _first(run: "Run", array) -> list[str]:
    """Return the part with the largest mean over scored tokens, prompt by prompt."""
    mean = array.mean("traced").transpose("prompt", "part").values.astype(float)
    at = np.where(np.isfinite(mean), mean, -np.inf).argmax(axis=1)
    return [str(array["part"].values[each]) for each in at]
