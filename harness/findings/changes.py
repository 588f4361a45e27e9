"""Findings about what changed from one model to another."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.compare.change_table import by_role
from harness.findings.finding import Finding
from harness.findings.format import chance, count, listed, named, number, signed, with_spread
from harness.findings.intervals import interval
from harness.hooks import Head

if TYPE_CHECKING:
    from harness.results import Run

_NAMED = 5
_SCORES = ("role_score", "other_role_score")
_NOT_NAMED = ("weights", "sha256")  # keys of a model's spec that do not go into its name


def changed(run: "Run") -> Iterator[Finding]:
    """Yield what the two models differ in: predictions, effects, patterns, roles, weights."""
    if "clean_change" not in run.data:
        return
    for metric in sorted(map(str, run.data["metric"].values), key=lambda name: name != run.lead_metric):
        yield _predictions(run, metric)
    if len(run.changes):
        yield _effects(run, run.lead_metric)
        yield _patterns(run)
        yield _gained(run)
        yield from _weights(run)
    else:
        yield from _by_role(run)


def other_name(run: "Run") -> str:
    """Return the other model's name; of the same model, with the keys that differ."""
    mine, its = run.spec.get("model") or {}, (run.spec.get("compare") or {}).get("model") or {}
    if named(mine) != named(its):
        return named(its)
    differing = [f"{key}={its[key]}" for key in its if its[key] != mine.get(key) and key not in _NOT_NAMED]
    return f"{named(its)} ({', '.join(differing)})" if differing else f"{named(its)} again"


def _predictions(run: "Run", metric: str) -> Finding:
    base, other = (run.data[name].sel(metric=metric).values.astype(float) for name in ("clean", "other_clean"))
    n, change = len(base), run.data["clean_change"].sel(metric=metric).values.astype(float)
    if not change.any():
        text = f"Unablated, {metric} is exactly the same on each of {count(n, 'prompt')}."
        return Finding(text, 0.0, 0.0, 0.0, "clean_change")
    about = interval(run, change)
    text = f"Unablated, the mean {metric} is {_plain(base.mean())} in {named(run.spec.get('model'))} and "
    text += f"{_plain(other.mean())} in {other_name(run)}: "
    text += f"{with_spread(about, run.unit(metric))}, up on {int((change > 0).sum())} and down on "
    text += f"{int((change < 0).sum())} of {count(n, 'prompt')}; most on prompt {int(np.abs(change).argmax())}, "
    return Finding(
        text + f"{signed(change[np.abs(change).argmax()])}.", about.mean, about.low, about.high, "clean_change"
    )


def _plain(value: float) -> str:
    return number(value) if value >= 0 else signed(value)


def rows_of(run: "Run", metric: str) -> list[tuple[Head, Mapping[str, Any]]]:
    """Return the rows of ``changes.csv`` by one metric, each with its head."""
    rows = [row for row in run.changes.to_dict("records") if row["metric"] == metric]
    return [(Head(int(row["layer"]), int(row["head"]), str(row.get("stack", ""))), row) for row in rows]


def _effects(run: "Run", metric: str) -> Finding:
    rows = [(head, row) for head, row in rows_of(run, metric) if np.isfinite(row["change_mean"])]
    head, row = max(rows, key=lambda each: abs(each[1]["change_mean"]))
    if row["change_mean"] == 0:
        text = f"By {metric}, every head's effect is exactly the same."
        return Finding(text, 0.0, 0.0, 0.0, "effect_change")
    sure = [each for each, row in rows if row["p_adjusted"] < run.level]
    text = f"By {metric}, {head}'s effect changed most: from {signed(row['effect_base'])} to "
    text += f"{signed(row['effect_other'])}{run.unit(metric)}, {signed(row['change_mean'])}"
    if np.isfinite(row["ci_low"]):
        text += f" ({run.interval_name} {signed(row['ci_low'])} to {signed(row['ci_high'])})"
    text += f", max-T {chance(row['p_adjusted'])}. {len(sure)} of {count(len(rows), 'head')} changed beyond chance "
    text += f"(max-T p < {run.level:g})."
    return Finding(text, row["change_mean"], row["ci_low"], row["ci_high"], "effect_change")


def _patterns(run: "Run") -> Finding:
    rows = rows_of(run, run.lead_metric)
    known = [(head, row) for head, row in rows if np.isfinite(row["distance_mean"])]
    head, row = max(known, key=lambda each: each[1]["distance_mean"])
    if row["distance_mean"] == 0:
        text = f"Patterns are exactly the same in all {count(len(known), 'head')}."
        return Finding(text, 0.0, 0.0, 0.0, "pattern_distance")
    same = sum(row["distance_mean"] == 0 for _, row in known)
    first = min(each.layer for each, row in known if row["distance_mean"] > 0)
    text = f"Patterns are furthest apart in {head}: a Jensen–Shannon distance of {number(row['distance_mean'])} "
    text += f"(standard deviation over prompts {number(row['distance_sd'])}); the median head's is "
    text += f"{number(float(np.median([row['distance_mean'] for _, row in known])))}. The first that differ are in "
    text += f"layer {first}; {same} of {count(len(known), 'head')} {'looks' if same == 1 else 'look'} exactly alike."
    return Finding(text, row["distance_mean"], row["distance_low"], row["distance_high"], "pattern_distance")


def _gained(run: "Run") -> Finding:
    before = run.roles()
    after = run.roles("other_")
    moved = {head: ({*after[head]} - {*names}, {*names} - {*after[head]}) for head, names in before.items()}
    moved = {head: each for head, each in moved.items() if any(each)}
    if not moved:
        return Finding("No head has other roles than before.", 0.0, np.nan, np.nan, "other_role_given")
    texts = [_moved(run, head, *each) for head, each in list(moved.items())[:_NAMED]]
    more = f", and {len(moved) - _NAMED} more" if len(moved) > _NAMED else ""
    text = f"{count(len(moved), 'head')} {'has' if len(moved) == 1 else 'have'} other roles: {'; '.join(texts)}{more}."
    return Finding(text, float(len(moved)), np.nan, np.nan, "other_role_given")


def _moved(run: "Run", head: Head, gained: set[str], lost: set[str]) -> str:
    parts = [f"{head} now is {_scored(run, head, gained)}"] if gained else []
    parts += [f"{'' if gained else f'{head} '}no longer is {_scored(run, head, lost)}"] if lost else []
    return " and ".join(parts)


def _scored(run: "Run", head: Head, roles: set[str]) -> str:
    """List the roles with the head's score in both models."""
    scores = [[float(run.data[name].sel(role=role, **head.place)) for name in _SCORES] for role in sorted(roles)]
    return listed([f"{role} ({_score(a)} → {_score(b)})" for role, (a, b) in zip(sorted(roles), scores, strict=True)])


def _weights(run: "Run") -> Iterator[Finding]:
    """State in which blocks the parameters differ."""
    if "weight_change" not in run.data:
        return
    change = run.data["weight_change"].values.astype(float)
    where = np.flatnonzero(change > 0)
    most = int(change.argmax())
    if not len(where):
        text = "The parameters of all blocks are exactly the same."
    elif len(where) <= _NAMED and len(where) < len(change):
        which = listed([str(at) for at in where])
        text = f"Parameters differ in block{'s' if len(where) > 1 else ''} {which} only"
        text += f" (by {number(change[most])} of their length{f' in block {most}' if len(where) > 1 else ''})."
    else:
        text = f"Parameters differ in {len(where)} of {count(len(change), 'block')}, most in block {most} "
        text += f"(by {number(change[most])} of their length; median {number(float(np.median(change)))})."
    yield Finding(text, float(change[most]), np.nan, np.nan, "weight_change")


def _by_role(run: "Run") -> Iterator[Finding]:
    """Compare models with other numbers of heads, role by role."""
    for row in by_role(run.data).to_dict("records"):
        are = f"is a {row['role']} head" if row["heads_base"] == 1 else f"are {row['role']} heads"
        text = f"{row['heads_base']} of {row['of_base']} heads of {named(run.spec.get('model'))} {are}, "
        text += f"and {row['heads_other']} of {row['of_other']} of {other_name(run)}; their largest scores are "
        text += f"{_score(row['score_base'])} and {_score(row['score_other'])}."
        yield Finding(text, row["score_other"] - row["score_base"], np.nan, np.nan, "other_role_score")


def _score(value: float) -> str:
    return number(value) if np.isfinite(value) else "not known"
