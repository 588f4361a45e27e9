"""Findings about the parts of a prompt: the measured cause of each, beside attention, rollout and gradient."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.findings.finding import Finding
from harness.findings.format import chance, count, listed, mean_with_spread, number, with_spread
from harness.hooks import Head
from harness.results.run import Estimate

if TYPE_CHECKING:
    from harness.results import Run

#: A row of parts.csv or part_heads.csv.
Row = Mapping[str, Any]
#: Parts that are not candidates.
_EXCLUDED = ("question", "answer", "special", "other")
_NAMED = 3
#: Measures of a part without an intervention, in words.
ESTIMATES = {
    "attention": "attention (mean over layers and heads)",
    "rollout": "rollout",
    "gradient": "the gradient's norm",
}
#: How a part is taken away, in words.
TAKEN = {"delete": "it is removed", "knockout": "attention to it is knocked out"}


def traced(run: "Run") -> Iterator[Finding]:
    """Yield the part that was used, those that attention, rollout and gradient put first, and the carrying heads."""
    if "part_cause" not in run.data:
        return
    known = candidates(of_measure(run, lead_cause(run)))
    if known:
        yield used(run, known)
        yield from _disagreement(run, str(known[0]["part"]))
        yield from _carriers(run)


def lead_cause(run: "Run") -> str:
    """Return the cause by which parts are compared: the last in the request."""
    return str(run.data["taken"].values[-1])


def of_measure(run: "Run", measure: str) -> list[Row]:
    """Return the rows of parts.csv of one measure, the largest first."""
    rows = [row for row in run.parts.to_dict("records") if row["measure"] == measure]
    return sorted(rows, key=lambda row: row["rank"])


def candidates(rows: Sequence[Row]) -> list[Row]:
    """Return the rows without question, answer, special tokens and text outside the parts."""
    return [row for row in rows if row["part"] not in _EXCLUDED]


def about(run: "Run", row: Row) -> Estimate:
    """Return a row's mean with its interval, if it has one."""
    kind = run.interval_name if np.isfinite(row["ci_low"]) else "one prompt"
    return Estimate(float(row["mean"]), float(row["ci_low"]), float(row["ci_high"]), kind)


def used(run: "Run", known: Sequence[Row]) -> Finding:
    """Name the part with the largest cause, and the next ones."""
    cause, first, most = lead_cause(run), known[0], about(run, known[0])
    over = f"over {count(int(first['n_prompts']), 'prompt')}" if first["over"] == "prompts" else "over scored tokens"
    loss = "nats" in run.data["traced_value"].attrs["units"]
    text = f"Of {count(len(known), 'part')} the prediction used {first['part']} most"
    if not most.low > 0:
        text = f"No part is shown to be used; the largest cause is {first['part']}’s"
    text += f": when {TAKEN.get(cause, cause)}, {'the loss' if loss else 'the distance of the vector'} changes by "
    text += f"{with_spread(most, ' nats per token' if loss else '')}, {over}"
    others = [f"{row['part']} {mean_with_spread(about(run, row))}" for row in known[1 : 1 + _NAMED]]
    text += f". Next: {listed(others)}" if others else ""
    return Finding(f"{text}.", most.mean, most.low, most.high, "part_cause")


def _disagreement(run: "Run", part: str) -> Iterator[Finding]:
    """State the part that each estimate puts first, and whether that is the part that was used."""
    texts, agree = [], []
    for measure, words in ESTIMATES.items():
        known = candidates(of_measure(run, measure))
        if known:
            agree.append(known[0]["part"] == part)
            texts.append(f"{words} puts {known[0]['part']} first ({number(known[0]['mean'])} of all)")
    if texts:
        other = agree.count(False)
        verdict = f"{other} of {len(texts)} {'disagrees' if other == 1 else 'disagree'}" if other else "all agree"
        text = listed(texts)
        text = f"{text[0].upper()}{text[1:]}: {verdict} with the measured cause, which puts {part} first."
        yield Finding(text, float(np.mean(agree)), np.nan, np.nan, "parts.csv")


def _carriers(run: "Run") -> Iterator[Finding]:
    """Name, for each part whose heads were knocked out, those that carry most of it."""
    rows = sorted(run.part_heads.to_dict("records"), key=lambda row: row["rank"])
    unit = " nats" if "nats" in run.data["traced_value"].attrs["units"] else ""
    for part in dict.fromkeys(map(str, run.part_heads["part"])):
        mine = [row for row in rows if row["part"] == part and row["mean"] > 0][:_NAMED]
        if not mine:
            continue
        most, names = about(run, mine[0]), [str(Head(int(row["layer"]), int(row["head"]))) for row in mine]
        text = f"{part} comes most through {names[0]}: attention knockout of {part} in this head alone costs "
        text += f"{with_spread(most, unit)}, max-T {chance(mine[0]['p_adjusted'])}"
        text += "" if mine[0]["p_adjusted"] < run.level else " (it may be chance)"
        others = [f"{name} {mean_with_spread(about(run, row))}" for name, row in zip(names[1:], mine[1:], strict=True)]
        text += f". Next: {listed(others)}." if others else "."
        yield Finding(text, most.mean, most.low, most.high, "part_head_cause")
