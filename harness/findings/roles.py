"""Findings about roles: the heads of each, and the effect of ablating them together."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from harness.findings.finding import Finding
from harness.findings.format import chance, count, listed, number, with_spread
from harness.findings.intervals import beside_random, interval
from harness.hooks import Head
from harness.results.schema import by_head
from harness.roles import meaning_of

if TYPE_CHECKING:
    from harness.results import Run

_NAMED = 4  # heads in one sentence


def roles(run: "Run") -> Iterator[Finding]:
    """Yield one sentence for each role of some head, and one about ablating its heads where that was measured."""
    if "role_given" not in run.data:
        return
    having = heads_by_role(run)
    for role, heads in having.items():
        yield _of_role(run, role, heads)
        if role in run.data.get("having", ()):
            yield _worth(run, role, heads)
    if not having:
        n = len(run.data["role"])
        yield Finding(f"No head has one of {count(n, 'role')} beyond chance.", 0.0, np.nan, np.nan, "role_given")


def heads_by_role(run: "Run") -> dict[str, list[Head]]:
    """Return the heads of each role, the highest score first; roles without heads are left out."""
    heads_of = {}
    for role in map(str, run.data["role"].values):
        heads, score = by_head(run.data["role_score"].sel(role=role))
        having = [head for head, names in run.roles().items() if role in names]
        if having:
            heads_of[role] = sorted(having, key=lambda head: -score[heads.index(head)])
    return heads_of


def _of_role(run: "Run", role: str, heads: list[Head]) -> Finding:
    first, row = heads[0], run.data.sel(role=role)
    score, low, high, by_chance, p = (
        float(row[f"role_{name}"].sel(first.place)) for name in ("score", "low", "high", "chance", "p")
    )
    n = int(row["role_score"].notnull().sum())
    others = f"; then {listed([str(head) for head in heads[1:_NAMED]])}" if len(heads) > 1 else ""
    more = " and others" if len(heads) > _NAMED else ""
    sure = f" ({run.interval_name} {number(low)} to {number(high)})" if np.isfinite([low, high]).all() else ""
    text = (
        f"Role {role} ({meaning_of(role)}): {len(heads)} of {count(n, 'head')}. {first} scores {number(score)}{sure}, "
    )
    text += f"by chance {number(by_chance)}, max-T {chance(p)}{others}{more}."
    return Finding(text, score, low, high, "role_score")


def _worth(run: "Run", role: str, heads: list[Head]) -> Finding:
    """State the effect of ablating a role's heads, beside random sets of as many heads, by the leading metric."""
    metric = run.lead_metric
    effect = run.data["role_effect"].sel(metric=metric, having=role).values.astype(float)
    random = run.data["random_effect"].sel(metric=metric, having=role).mean("prompt").values.astype(float)
    about = interval(run, effect)
    what = f"the {role} head" if len(heads) == 1 else f"all {len(heads)} {role} heads together"
    text = f"By {metric}, ablating {what} changes the mean by "
    text += f"{with_spread(about, run.unit(metric))}; {beside_random(about.mean, random, count(len(heads), 'head'))}."
    return Finding(text, about.mean, about.low, about.high, "role_effect")
