"""Findings about texts that were written with heads ablated: how many change, how soon, and how surely."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.findings.finding import Finding
from harness.findings.format import count, listed

if TYPE_CHECKING:
    from harness.results import Run

#: Heads of a set that are named; of more, the number.
_NAMED = 3


def written(run: "Run") -> Iterator[Finding]:
    """Yield, for each named set, how many texts change beside random sets, and the head that changes most of them."""
    for name, table in by_set(run) if len(run.texts) else ():
        yield _changed(run, name, table)
        yield from _first_heads(name, table)


def by_set(run: "Run") -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the rows of texts.csv of each named set, without those of random sets."""
    named = run.texts[run.texts["draw"].isna()]
    yield from named.groupby("set", sort=False)  # pyright: ignore[reportReturnType]


def called(name: str, table: pd.DataFrame) -> str:
    """Return the set's name with the number of its heads; a set that is named by its heads as it is."""
    heads = str(table["heads"].iloc[0]).split(";")
    if name.startswith(", ".join(heads[:_NAMED])):
        return name
    return f"{name} ({', '.join(heads) if len(heads) <= _NAMED else count(len(heads), 'head')})"


def _changed(run: "Run", name: str, table: pd.DataFrame) -> Finding:
    n, parts = len(table), table["parts_at"].dropna().to_numpy()
    text = f"Without {called(name, table)} {len(parts)} of {count(n, 'text')} change{'s' if n == 1 else ''}"
    if len(parts):
        text += f", after {count(round(float(np.median(parts))), 'token')}{' in the median' if len(parts) > 1 else ''}"
    random = run.texts[(run.texts["set"] == name) & run.texts["draw"].notna()]
    if len(random):
        changed = random.groupby("draw")["parts_at"].count().to_numpy()
        size = count(len(str(table["heads"].iloc[0]).split(";")), "head")
        text += f"; {np.median(changed):g} of {n} with "
        text += "a random set" if len(changed) == 1 else f"{len(changed)} random sets"
        text += f" of {size}" + (f" (median; {changed.min()} to {changed.max()})" if len(changed) > 1 else "")
    return Finding(f"{text}.", float(len(parts)), np.nan, np.nan, "texts.csv")


def _first_heads(name: str, table: pd.DataFrame) -> Iterator[Finding]:
    heads = Counter(str(head) for head in table["first_head"] if head)
    if heads and ";" in str(table["heads"].iloc[0]):
        times = [f"{head} {n} time{'s' if n > 1 else ''}" for head, n in heads.most_common(_NAMED)]
        text = f"Ablated alone, the heads of {name} that change a text soonest are {listed(times)}."
        yield Finding(text, float(max(heads.values())), np.nan, np.nan, "first_head")
