"""Repetitions and products of which `make test` runs a part, and `make soak` the rest."""

from itertools import combinations

import pytest

#: Files whose tests run commands, studies or many models: `make test` runs them, `make test-quick` does not.
WHOLE_RUNS = frozenset(
    f"test_{name}"
    for name in (
        *(
            "browser",
            "command",
            "compare",
            "contract",
            "execute",
            "faithfulness",
            "families",
            "faults",
            "guides",
            "hub",
            "list",
        ),
        *("notebook", "objects", "questions", "quick_sweeps", "readme", "reproduce", "requests", "results"),
        *("sentences", "smollm2", "together", "truth"),
    )
)


def most(values, first):
    """Values to parametrize by: the `first` in every run, those after it in the soak."""
    rows = [value if isinstance(value, tuple) else (value,) for value in values]
    return [pytest.param(*row, marks=[pytest.mark.soak] * (at >= first)) for at, row in enumerate(rows)]


def seeds(n, first=3):
    """Seeds to parametrize by: the `first` in every run, those after it in the soak."""
    return most(range(n), first)


def thin(items):
    """Leave to the soak what a test marked ``covering(t)`` has beyond a covering array of strength t: every t values of
    its parameters together at least once; and of a test marked ``always(values)`` all that have no such parameter."""
    for item in items:
        mark = item.get_closest_marker("always")
        if mark and not {*item.callspec.params.values()} & {*mark.args[0]}:
            item.add_marker("soak")
    products = {}
    for item in items:
        if item.get_closest_marker("covering") and not item.get_closest_marker("soak"):
            products.setdefault((item.path, item.originalname), []).append(item)
    for cases in products.values():
        strength = cases[0].get_closest_marker("covering").args[0]
        for case in {*cases} - {*_covering(cases, strength)}:
            case.add_marker("soak")


def quick(items):
    """What an edit needs: one case of each test, and none of the files that are about whole runs."""
    chosen = {}
    for item in items:
        if item.path.stem not in WHOLE_RUNS:
            chosen.setdefault((item.path, item.originalname), item)
    return list(chosen.values())


def _covering(cases, strength):
    """Greedily, and in the same order on every worker: the case with the most that none before it had."""
    left, chosen = list(cases), []
    seen = set()
    while left:
        best = max(left, key=lambda case: len(_together(case, strength) - seen))
        if not _together(best, strength) - seen:
            break
        left.remove(best)
        chosen.append(best)
        seen |= _together(best, strength)
    return chosen


def _together(case, strength):
    """Each `strength` parameters of a case with their values."""
    return {*combinations(sorted((name, repr(value)) for name, value in case.callspec.params.items()), strength)}
