"""Joint ablations: named sets, one head after another, and pairs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from harness.hooks import STACKS, Head
from harness.results.run import Estimate, spread
from harness.views.charts.describe import Described, chart, in_full, measured, number, numbers, place, plain_name
from harness.views.text import visible

if TYPE_CHECKING:
    from harness.results import Run

#: Heads in a matrix of pairs; with more, the pairs that matter most are listed instead.
MATRIX = 40
#: Rows of a list.
LISTED = 20


def joint(run: "Run") -> Iterator[Described]:
    """Describe sets, pruning curves and pairs, one chart for each metric."""
    for variable, describe in (("set_effect", _sets), ("cumulative_effect", _pruning), ("pair_effect", _pairs)):
        if variable in run.data:
            yield from (describe(run, metric) for metric in map(str, run.data["metric"].values))


@dataclass(frozen=True)
class SetRow:
    """A set of heads ablated together: its effect on each prompt, and the mean with its standard error."""

    name: str
    effect: Float[np.ndarray, " prompt"]
    about: Estimate


def set_rows(run: "Run", metric: str, n: int = LISTED) -> list[SetRow]:
    """Return the n sets with the largest mean effects, the largest first, each before the mean of its random sets."""
    effect = run.data["set_effect"].sel(metric=metric).transpose("set", "prompt").values.astype(float)
    order = np.argsort(-np.abs(effect.mean(axis=1)), kind="stable")[:n]
    rows = []
    for at in order:
        name = visible(str(run.data["set"].values[at]))
        rows.append(SetRow(name, effect[at], spread(effect[at])))
        if "random_set_effect" in run.data:
            drawn = run.data["random_set_effect"].sel(metric=metric).isel(set=at).mean("draw").values.astype(float)
            rows.append(SetRow(f"as many as {name}, at random", drawn, spread(drawn)))
    return rows


def set_label(run: "Run", metric: str) -> str:
    """Return the label of the axis of sets."""
    kept = "kept" in run.data["set_effect"].attrs.get("together", "")
    return f"effect{' of keeping only the set' if kept else ''} on {measured(run, metric)}"


def _sets(run: "Run", metric: str) -> Described:
    rows = [
        {
            "label": row.name,
            "points": [
                {
                    "series": 0,
                    "mean": number(row.about.mean),
                    "low": number(row.about.low),
                    "high": number(row.about.high),
                    "prompts": numbers(row.effect),
                }
            ],
        }
        for row in set_rows(run, metric)
    ]
    return chart(
        run,
        "dots",
        f"sets_{plain_name(metric)}",
        "sets",
        f"Effect of ablating sets of heads, {in_full(metric)}",
        f"A dot for each prompt, the mean and one standard error each way: {set_label(run, metric)}.",
        panels=[{"name": "", "rows": rows}],
        series=["mean, standard error"],
        x={"label": set_label(run, metric), "unit": run.unit(metric).strip()},
        rows="set",
        sense=run.sense(metric),
        sharedX=True,
    )


@dataclass(frozen=True)
class Orders:
    """Mean effects as heads are ablated one after another: a row for each named order, and all random ones."""

    named: dict[str, Float[np.ndarray, " step"]]
    heads: dict[str, list[str]]
    random: Float[np.ndarray, "order step"]

    @property
    def n_steps(self) -> int:
        return max([self.random.shape[1], *map(len, self.named.values())])


def orders(run: "Run", metric: str) -> Orders:
    """Return the mean effect after each step of each order, and the head that the step ablates."""
    effect = run.data["cumulative_effect"].sel(metric=metric).mean("prompt").transpose("order", "step")
    names = [str(name) for name in effect["order"].values]
    heads = run.data["cumulative_head"].transpose("order", "step").values
    random = [at for at, name in enumerate(names) if name.startswith("random")]
    named = {name: at for at, name in enumerate(names) if at not in random}
    return Orders(
        {name: effect.values[at] for name, at in named.items()},
        {name: [str(head) for head in heads[at]] for name, at in named.items()},
        effect.values[random].astype(float),
    )


def _pruning(run: "Run", metric: str) -> Described:
    of = orders(run, metric)
    series = [
        {"name": visible(name), "values": numbers(values), "notes": of.heads[name], "heads": _places(of.heads[name])}
        for name, values in of.named.items()
    ]
    band = None
    if len(of.random):
        low, high = of.random.min(axis=0), of.random.max(axis=0)
        band = {"name": "random orders, lowest to highest", "low": numbers(low), "high": numbers(high)}
    return chart(
        run,
        "curves",
        f"pruning_{plain_name(metric)}",
        "pruning",
        f"Effect of ablating one head after another, {in_full(metric)}",
        f"Mean effect on {measured(run, metric)}; heads stay ablated."
        + (f" The band is the range of {len(of.random)} random orders." if len(of.random) else ""),
        panels=[
            {
                "x": {"label": "heads ablated", "values": list(range(1, of.n_steps + 1))},
                "series": series,
                "band": band,
            }
        ],
        y={"label": f"effect on {measured(run, metric)}", "unit": run.unit(metric).strip()},
        zero=True,
        lines=True,
    )


def _places(names: list[str]) -> list:
    """Return heads as the page has them; None for a step that ablates no head."""
    return [place(Head.parse(name)) if name and name != "nan" else None for name in names]


@dataclass(frozen=True)
class Pairs:
    """The mean effect of each pair of heads together, less the sum of both single effects."""

    beyond: Float[np.ndarray, " pair"]
    ends: list[tuple[str, str]]

    @property
    def heads(self) -> list[str]:
        """The heads of all pairs, in the order in which they run."""
        return list(map(str, sorted(map(Head.parse, {end for pair in self.ends for end in pair}), key=_as_run)))

    def matrix(self) -> Float[np.ndarray, "head head"]:
        """Return the symmetric matrix over `heads`; NaN for pairs that were not ablated."""
        at = {head: index for index, head in enumerate(self.heads)}
        whole = np.full((len(at), len(at)), np.nan)
        for value, (a, b) in zip(self.beyond, self.ends, strict=True):
            whole[at[a], at[b]] = whole[at[b], at[a]] = value
        return whole

    def largest(self) -> list[int]:
        """Return the pairs furthest from the sum, the largest first."""
        return [int(at) for at in np.argsort(-np.abs(np.nan_to_num(self.beyond)), kind="stable")[:LISTED]]


def _as_run(head: Head) -> tuple[int, int, int]:
    """Return the sort key of heads in the order in which they run."""
    return (*STACKS, "").index(head.stack), head.layer, head.head


def pairs_of(run: "Run", metric: str) -> Pairs:
    """Return the pairs by one metric."""
    beyond = run.data["pair_difference"].sel(metric=metric).mean("prompt")
    ends = zip(beyond["head_a"].values, beyond["head_b"].values, strict=True)
    return Pairs(beyond.values.astype(float), [(str(a), str(b)) for a, b in ends])


def beyond_label(run: "Run", metric: str) -> str:
    """Return the label of what pairs do beyond the sum."""
    return f"effect of both less the sum of each, {measured(run, metric)}"


def _pairs(run: "Run", metric: str) -> Described:
    of, label = pairs_of(run, metric), beyond_label(run, metric)
    heads = of.heads
    name, title = f"pairs_{plain_name(metric)}", f"Effect of ablating heads in pairs, {in_full(metric)}"
    about = f"Mean {label}."
    shared = {"sense": run.sense(metric), "unit": run.unit(metric).strip(), "value": label}
    shared |= {"words": {"helps": "more than the sum", "hurts": "less than the sum"}}
    if len(heads) <= MATRIX:
        places = [place(Head.parse(head)) for head in heads]
        panel = {"name": "", "rows": heads, "columns": heads, "values": numbers(of.matrix()), "rowHeads": places}
        panel |= {"columnHeads": places}
        return chart(run, "heat", name, "pairs", title, about, panels=[panel], scale="effect", axes=["", ""], **shared)
    rows = [
        {
            "label": " + ".join(of.ends[at]),
            "value": number(of.beyond[at]),
            "heads": [place(Head.parse(end)) for end in of.ends[at]],
        }
        for at in of.largest()
    ]
    about += f" The {len(rows)} of {len(of.ends)} pairs furthest from the sum."
    return chart(run, "bars", name, "pairs", title, about, bars=rows, rows="pair", x={"label": label}, **shared)
