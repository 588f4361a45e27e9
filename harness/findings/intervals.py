"""Intervals for numbers that are not in heads.csv, made as those there are."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from harness.results.run import Estimate, spread
from harness.stats import summarize

if TYPE_CHECKING:
    from harness.results import Run


def summary(run: "Run", values: Float[np.ndarray, "prompt column"], **asked: Any) -> pd.DataFrame:
    """What heads.csv would say of these effects, a row for each column, with the run's own statistics."""
    spec = run.spec.get("stats") or {}
    given = {key: spec[key] for key in ("confidence", "level", "resamples", "seed") if key in spec}
    return summarize(values[:, :, None], run.data["cluster"].values, **given, **asked)


def interval(run: "Run", values: Float[np.ndarray, " prompt"]) -> Estimate:
    """The mean over prompts with the interval that heads.csv would have for it, or else its standard error."""
    row = summary(run, values[:, None]).iloc[0]
    if not np.isfinite(row["ci_low"]):
        return spread(values)
    return Estimate(float(values.mean()), float(row["ci_low"]), float(row["ci_high"]), run.interval_name)
