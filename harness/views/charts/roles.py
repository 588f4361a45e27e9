"""Scores of every head for each role: one map of heads with a switch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from harness.findings.roles import heads_by_role
from harness.hooks import Head
from harness.roles import meaning_of
from harness.views.charts.describe import Described, chart, numbers
from harness.views.text import visible

if TYPE_CHECKING:
    from harness.results import Run


@dataclass(frozen=True)
class RoleMap:
    """The scores of one stack's heads for a role, [head, layer], and the heads with the role."""

    role: str
    stack: str
    scores: Float[np.ndarray, "head layer"]
    heads: list[Head]

    @property
    def name(self) -> str:
        return visible(f"{self.stack} {self.role}".strip())


def role_maps(run: "Run") -> list[RoleMap]:
    """Return the map of each role and stack that was scored, those with a head that has the role first."""
    having, maps = heads_by_role(run), []
    for role in dict.fromkeys([*having, *map(str, run.data["role"].values)]):
        score = run.data["role_score"].sel(role=role)
        for stack, n_layers in run.layers.items():
            values = (score.sel(stack=stack) if stack else score).transpose("head", "layer").values[:, :n_layers]
            heads = [head for head in having.get(role, []) if head.stack == stack]
            if np.isfinite(values).any():
                maps.append(RoleMap(role, stack, values, heads))
    return sorted(maps, key=lambda each: not each.heads)


def roles(run: "Run") -> Iterator[Described]:
    """Describe the maps of all roles as one chart."""
    maps = role_maps(run) if any(run.roles().values()) else []
    if not maps:
        return
    rows = [int(number) for number in run.data["head"].values]
    yield chart(
        run,
        "heat",
        "roles",
        "roles",
        "Score of each head for each role",
        "Layers across, heads down; scores from 0 to 1; a dot marks a head with the role.",
        panels=[_panel(each, rows) for each in maps],
        scale="score",
        most=1.0,
        value="score",
        axes=["head", "layer"],
        switch="Role",
        dot="has the role",
    )


def _panel(of: RoleMap, rows: list[int]) -> Described:
    return {
        "name": of.name,
        "about": f"{of.name}: {visible(meaning_of(of.role))}",
        "rows": rows,
        "columns": list(range(of.scores.shape[1])),
        "values": numbers(of.scores),
        "cells": of.stack,
        "dots": [[rows.index(head.head), head.layer] for head in of.heads],
    }
