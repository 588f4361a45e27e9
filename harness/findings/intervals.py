"""Intervals for numbers that are not in heads.csv, computed in the same way."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from harness.findings.format import chance, count, signed
from harness.results.run import Estimate, spread
from harness.stats import summarize

if TYPE_CHECKING:
    from harness.results import Run


def summary(run: "Run", values: Float[np.ndarray, "prompt column"], **options: Any) -> pd.DataFrame:
    """Summarise effects as heads.csv does, a row for each column, with the run's own statistics."""
    spec = run.spec.get("stats") or {}
    own = {key: spec[key] for key in ("confidence", "level", "resamples", "seed") if key in spec}
    return summarize(values[:, :, None], run.data["cluster"].values, **own, **options)


def interval(run: "Run", values: Float[np.ndarray, " prompt"]) -> Estimate:
    """Return the mean over prompts with its interval as in heads.csv, or else its standard error."""
    row = summary(run, values[:, None]).iloc[0]
    if not np.isfinite(row["ci_low"]):
        return spread(values)
    return Estimate(float(values.mean()), float(row["ci_low"]), float(row["ci_high"]), run.interval_name)


def beside_random(mean: float, random: Float[np.ndarray, " draw"], size: str) -> str:
    """State what random sets of as many heads do to a mean, and how many of them do at least as much."""
    p = (1 + int((np.abs(random) >= abs(mean)).sum())) / (1 + len(random))
    spread_of = f"{signed(float(np.median(random)))} (median; {signed(random.min())} to {signed(random.max())})"
    return f"{count(len(random), 'random set')} of {size} change it by {spread_of}, {chance(p)}"
