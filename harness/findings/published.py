"""Findings about published values: each beside the run's own."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.findings.finding import Finding
from harness.findings.format import listed, number, signed
from harness.hooks import Head

if TYPE_CHECKING:
    from harness.results import Run


def published(run: "Run") -> Iterator[Finding]:
    """Yield one sentence for each published value: the value, the run's own, and whether they are the same."""
    for value in run.spec.get("published") or ():
        yield _role(run, value) if value["what"] == "role" else _value(run, value)


def _value(run: "Run", value: Mapping[str, Any]) -> Finding:
    what = f"{value['what']} {value['metric']}" + (f" of {value['head']}" if value["head"] else "")
    text = f"Published: {what} {number(value['value'])} ({value['source']})"
    here = _here(run, value)
    if np.isnan(here):
        return Finding(f"{text}; this run did not measure it.", np.nan, np.nan, np.nan, "published")
    same = "the same" if abs(here - value["value"]) <= value["tolerance"] else "not the same"
    text += f". Here: {number(here) if here >= 0 else signed(here)}, {same} within {value['tolerance']:g}."
    return Finding(text, here, np.nan, np.nan, value["what"])


def _here(run: "Run", value: Mapping[str, Any]) -> float:
    """Return the run's mean over prompts; NaN if it was not measured."""
    if value["what"] not in run.data or value["metric"] not in run.data["metric"].values:
        return np.nan
    place = Head.parse(value["head"]).place if value["head"] else {}
    try:
        return float(run.data[value["what"]].sel(metric=value["metric"], **place).mean())
    except KeyError:
        return np.nan


def _role(run: "Run", value: Mapping[str, Any]) -> Finding:
    text = f"Published: {value['head']} is a {value['role']} head ({value['source']})"
    here = run.roles().get(Head.parse(value["head"]))
    if here is None:
        return Finding(f"{text}; this run scored no roles.", np.nan, np.nan, np.nan, "published")
    same = value["role"] in here
    verdict = "the same" if same else listed(here) if here else "no role"
    return Finding(f"{text}. Here: {verdict}.", same, np.nan, np.nan, "role_given")
