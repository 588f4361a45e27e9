"""What others have published, held against the run, in sentences."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.findings.format import listed, number, signed
from harness.findings.sentence import Finding
from harness.hooks import Head

if TYPE_CHECKING:
    from harness.results import Run


def published(run: "Run") -> Iterator[Finding]:
    """One sentence for each published value: what it was, what it is here, and whether that is the same."""
    for value in run.spec.get("published") or ():
        yield _role(run, value) if value["what"] == "role" else _value(run, value)


def _value(run: "Run", said: Mapping[str, Any]) -> Finding:
    what = f"{said['what']} {said['metric']}" + (f" of {said['head']}" if said["head"] else "")
    text = f"Published: {what} {number(said['value'])} ({said['source']})"
    here = _here(run, said)
    if np.isnan(here):
        return Finding(f"{text}; this run did not measure it.", np.nan, np.nan, np.nan, "published")
    same = "the same" if abs(here - said["value"]) <= said["tolerance"] else "not the same"
    text += f". Here: {number(here) if here >= 0 else signed(here)}, {same} within {said['tolerance']:g}."
    return Finding(text, here, np.nan, np.nan, said["what"])


def _here(run: "Run", said: Mapping[str, Any]) -> float:
    """The mean over the prompts that the run has for it; NaN if none."""
    if said["what"] not in run.data or said["metric"] not in run.data["metric"].values:
        return np.nan
    place = Head.parse(said["head"]).place if said["head"] else {}
    try:
        return float(run.data[said["what"]].sel(metric=said["metric"], **place).mean())
    except KeyError:
        return np.nan


def _role(run: "Run", said: Mapping[str, Any]) -> Finding:
    text = f"Published: {said['head']} is a {said['role']} head ({said['source']})"
    here = run.roles().get(Head.parse(said["head"]))
    if here is None:
        return Finding(f"{text}; this run gave no roles.", np.nan, np.nan, np.nan, "published")
    found = said["role"] in here
    told = "the same" if found else listed(here) if here else "no role"
    return Finding(f"{text}. Here: {told}.", found, np.nan, np.nan, "role_given")
