"""The sentence about methods: which agrees best with the measured cause, beside rollout, mean attention and chance."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from harness.attribution.evaluate.method_table import ranked
from harness.stats import clusters_needed, reachable

_CAUSE = {
    "occlude_mask": "putting a mask token in a token’s place",
    "occlude_unk": "putting the unknown token in a token’s place",
    "occlude_mean": "putting the mean embedding in a token’s place",
    "occlude_token": "putting another token in a token’s place",
    "delete": "deleting a token",
    "knockout": "attention knockout",
}
_POLICY = {
    "keep": "over all {}s that the target can attend to",
    "drop": "over {}s that are neither special, nor first, nor where the prediction is made",
}
_NAMES = {"rollout": "attention rollout", "attention_mean": "mean attention", "random": "a random order"}


class Answer(NamedTuple):
    """A sentence, the number it states and its interval."""

    text: str
    value: float
    low: float
    high: float


def nearest(
    table: pd.DataFrame, cause: str, policy: str, confidence: float, level: float, n_clusters: int, by: str = "token"
) -> Answer | None:
    """State which method of ``methods.csv`` agrees best with one cause, `by` token or word; None without a method."""
    rows = ranked(table, "spearman", policy, cause)
    methods = [row for row in rows if row["method"] != "random"]
    if not methods:
        return None
    first, interval = methods[0], f"{100 * confidence:g} % interval "
    text = f"{first['method']} agrees best with the measured cause ({_CAUSE.get(cause, cause)}): Spearman "
    text += f"{_number(first, interval)}, {_POLICY[policy].format(by)}"
    shown = [row for row in rows if row["method"] in _NAMES and row is not first]
    if shown:
        text += "; " + ", ".join(f"{_NAMES[row['method']]} {_number(row)}" for row in shown)
    tested = [row["q_value"] for row in methods if np.isfinite(row["q_value"])]
    if tested and reachable(n_clusters, level):
        beyond = sum(q < level for q in tested)
        verb = "differs" if beyond == 1 else "differ"
        text += f". {beyond} of {len(tested)} method{'' if len(tested) == 1 else 's'} {verb} from a random order "
        text += f"(q < {level:g})"
    elif tested:
        needed = clusters_needed(level)
        text += f". Whether that is beyond chance takes at least {needed} clusters of prompts, here are {n_clusters}"
    return Answer(text + ".", float(first["mean"]), float(first["ci_low"]), float(first["ci_high"]))


def _number(row: dict[str, Any], interval: str = "") -> str:
    known = np.isfinite([row["ci_low"], row["ci_high"]]).all()
    spread = f" ({interval}{row['ci_low']:.2f} to {row['ci_high']:.2f})" if known else ""
    return f"{row['mean']:.2f}{spread}".replace("-", "−")
