"""Many runs as one answer: what differs in their settings, and their effects and rankings side by side.

Runs of one model (or of models with as many layers and heads) are compared head by head; others by role or by relative
depth. Nothing here needs a model.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from scipy.stats import kendalltau

from harness.config import RequestError, near, run_folders
from harness.hooks import Head
from harness.results import Run, open_run
from harness.results.schema import by_head
from harness.results.settings import differing, flat
from harness.stats.random_effects import ENOUGH_RUNS, random_effects, variance_of_mean

#: Splits of the prompts into halves for the ceiling of rankings' agreement; all of them where they are no more.
SPLITS = 200
#: Prompt sets whose clusters keep their meaning from run to run: templates, passages, contexts.
_SHARED_CLUSTERS = ("ioi", "prose", "context", "parts", "file")
_BINS = 10


def open_runs(runs: str | Iterable[str | Path]) -> "Runs":
    """Open complete runs, in order of their names, from a pattern (``"results/ablate_heads/*"``) or several, or paths.

    Raises `RequestError` where there is none, for a run that is not complete, and for runs that ablated no single
    heads.

    >>> import tempfile
    >>> import harness
    >>> model = harness.load_model("planted")
    >>> effects = harness.ablate_heads(model, harness.load_prompts("induction", model, n=4), metrics="loss")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     saved = effects.save(f"{folder}/first"), effects.save(f"{folder}/second")
    ...     harness.open_runs(f"{folder}/*")
    Runs(2, differing in nothing)
    """
    patterns = [runs] if isinstance(runs, str) else [str(each) for each in runs]
    return Runs(tuple(open_run(path) for path in run_folders(patterns)))


@dataclass(frozen=True)
class Runs:
    """Several saved runs, in order; all of them ablated single heads. Raises `RequestError` for one that did not.

    `data` has each run's mean effects [run, metric, layer, head], in the metric's unit; `table` has a row for each run,
    metric and head; `agreement`, `important` and `pooled` compare runs head by head, `by_role` and `by_depth` those of
    unlike models.

    >>> from harness.compare.many_runs import Runs
    >>> import harness
    >>> model = harness.load_model("planted")
    >>> effects = harness.ablate_heads(model, harness.load_prompts("induction", model, n=4), metrics="loss")
    >>> runs = Runs((effects, effects))
    >>> runs.data["effect"].dims
    ('run', 'metric', 'layer', 'head')
    >>> runs.agreement("loss", top_k=2)["top_overlap"].tolist()
    [1.0]
    """

    runs: tuple[Run, ...]

    def __post_init__(self) -> None:
        for run in self.runs:
            if "effect" not in run.data:
                raise RequestError("runs", run.path, "this run ablated no single heads: leave it out")

    def __len__(self) -> int:
        return len(self.runs)

    # --- settings -------------------------------------------------------------------------------------------------

    @cached_property
    def names(self) -> list[str]:
        """Each run's differing settings, or its directory where these do not tell it from another."""
        rows = self.settings.to_dict("records")
        texts = [" ".join(f"{_last(key)}={value}" for key, value in row.items() if value != "") for row in rows]
        folders = [str(run.path.name) for run in self.runs]
        return [
            text if text and texts.count(text) == 1 else folder for text, folder in zip(texts, folders, strict=True)
        ]

    @cached_property
    def settings(self) -> pd.DataFrame:
        """The settings that differ, a row for each run and a column for each dotted key; empty where a run lacks the
        key. Of keys that follow from another (``model.id`` from ``model.name``, all seeds from ``seed``) one stays."""
        columns = differing([dict(flat(run.spec)) for run in self.runs])
        table = pd.DataFrame(columns, [run.path.name for run in self.runs], dtype=object)
        numbers: dict[Any, Any] = {key: pd.to_numeric(table[key], errors="coerce") for key in table}
        return table.assign(**{str(key): values for key, values in numbers.items() if values.notna().all()})

    @cached_property
    def common(self) -> dict[str, str]:
        """Of model, prompts, their number and ablation those that are the same in all runs, as on a command line."""
        rows = []
        for run in self.runs:
            values = dict(flat(run.spec))
            named = {section: values.get(f"{section}.name", "") for section in ("model", "prompts", "ablation")}
            rows.append({**named, "prompts.n": str(run.data.sizes["prompt"])})
        return {key: value for key, value in rows[0].items() if value and all(row[key] == value for row in rows)}

    @cached_property
    def shared_texts(self) -> tuple[int, int, int]:
        """How many different texts of prompts there are, how many of them are in all runs, and in more than one."""
        n_runs = Counter(text for run in self.runs for text in {*map(str, run.data["text"].values)})
        counts = [*n_runs.values()]
        return len(counts), counts.count(len(self)), sum(n > 1 for n in counts)

    # --- effects --------------------------------------------------------------------------------------------------

    @cached_property
    def metrics(self) -> list[str]:
        """The metrics that all runs measured, the leading one first."""
        shared = [name for name in self.runs[0].metrics if all(name in run.metrics for run in self.runs)]
        if not shared:
            measured = "; ".join(f"{run.path.name}: {', '.join(run.metrics)}" for run in self.runs)
            raise RequestError("runs", len(self), f"no metric was measured in all of them ({measured})")
        return shared

    def metric(self, name: str | None = None) -> str:
        """Return the metric, or the leading one of those that all runs measured. Raises `RequestError`."""
        if name is not None and name not in self.metrics:
            raise RequestError("metric", name, f"all runs have {', '.join(self.metrics)}")
        return name or self.metrics[0]

    @cached_property
    def same_heads(self) -> bool:
        """Whether the runs' models have as many layers and heads."""
        return len({(tuple(run.layers.items()), run.data.sizes["head"]) for run in self.runs}) == 1

    @cached_property
    def data(self) -> xr.Dataset:
        """`effect` [run, metric, layer, head], each run's mean over its prompts, and `important`, alike; an
        encoder-decoder has `stack` before `layer`. Raises `RequestError` for models with other heads."""
        self._check_heads()
        made = []
        for run in self.runs:
            effect = run.data["effect"].sel(metric=self.metrics).mean("prompt").load()
            made.append(xr.Dataset({"effect": effect, "important": _important(run, effect)}))
        return xr.concat(made, pd.Index(self.names, name="run"))  # pyright: ignore[reportReturnType]

    def table(self) -> pd.DataFrame:
        """Return every run's table of heads under its differing settings, a row for each run, metric and head."""
        parts = []
        for name, run, row in zip(self.names, self.runs, self.settings.to_dict("records"), strict=True):
            table = run.heads
            stacks = table["stack"] if "stack" in table else [""] * len(table)
            heads = [str(Head(*place)) for place in zip(table["layer"], table["head"], stacks, strict=True)]
            first = pd.DataFrame({"run": name, "directory": str(run.path), **row}, index=table.index)
            # a setting may be called as a column: method is both
            own = table.rename(columns={"head": "head_number"}).drop(columns=[key for key in row if key in table])
            parts.append(pd.concat([first, pd.Series(heads, table.index, name="head"), own], axis=1))
        return pd.concat(parts, ignore_index=True)

    # --- agreement ------------------------------------------------------------------------------------------------

    def agreement(self, metric: str | None = None, top_k: int = 10, seed: int = 0) -> pd.DataFrame:
        """Return how well each two runs rank the heads by |effect|: Kendall's τ-b and the share of the `top_k` heads
        that both have, beside their ceilings.

        A ceiling is what a run reaches with itself: the mean over splits of its clusters of prompts into halves (all
        splits where there are at most `SPLITS`), of the two runs' the mean. Halves are noisier than the whole, so two
        runs that rank alike may pass it.
        """
        metric, self_agreement = self.metric(metric), {}
        self._check_heads()
        means = [by_head(run.data["effect"].sel(metric=metric).mean("prompt"))[1] for run in self.runs]
        for at, run in enumerate(self.runs):
            values = by_head(run.data["effect"].sel(metric=metric).transpose("prompt", ...))[1]
            self_agreement[at] = split_half(values.astype(float), run.data["cluster"].values, top_k, seed)
        rows = []
        for a, b in combinations(range(len(self)), 2):
            tau, shared = _alike(means[a], means[b], top_k)
            ceiling = np.mean([self_agreement[a], self_agreement[b]], axis=0)
            rows.append((self.names[a], self.names[b], tau, ceiling[0], shared, ceiling[1]))
        columns = ["run_a", "run_b", "kendall", "kendall_ceiling", "top_overlap", "top_overlap_ceiling"]
        made = pd.DataFrame(rows, columns=columns)
        made.attrs = {"metric": metric, "top_k": top_k}
        return made

    def important(self, metric: str | None = None) -> pd.DataFrame:
        """Return the heads that are important in any run, in how many and in which, those of most runs first; heads
        that are shown (max-T) where a metric has no threshold of importance."""
        metric = self.metric(metric)
        self._check_heads()
        by_run = {name: _claimed(run, metric) for name, run in zip(self.names, self.runs, strict=True)}
        rows = []
        for head in sorted({head for heads in by_run.values() for head in heads}):
            where = [name for name, heads in by_run.items() if head in heads]
            mean = np.mean([float(run.data["effect"].sel(metric=metric, **head.place).mean()) for run in self.runs])
            rows.append((str(head), len(where), float(mean), "; ".join(where)))
        made = pd.DataFrame(rows, columns=["head", "n_runs", "effect_mean", "runs"])
        order = np.lexsort([-made["effect_mean"].abs().to_numpy(), -made["n_runs"].to_numpy()])
        return made.iloc[order].reset_index(drop=True)

    def pooled(self, metric: str | None = None) -> pd.DataFrame:
        """Return each head's mean over the runs: over at least `ENOUGH_RUNS` runs with the same settings but for the
        prompts, and with disjoint clusters, the random-effects mean with its interval (`harness.stats.random_effects`);
        otherwise the mean of the runs' means, and their range. ``attrs["note"]`` says which, and why."""
        metric = self.metric(metric)
        self._check_heads()
        heads, first = by_head(self.runs[0].data["effect"].sel(metric=metric).transpose("prompt", ...))
        values = [first.astype(float)]
        values += [by_head(run.data["effect"].sel(metric=metric).transpose("prompt", ...))[1] for run in self.runs[1:]]
        measured = np.isfinite(np.stack([each.mean(axis=0) for each in values])).all(axis=0)
        mean = np.stack([each[:, measured].mean(axis=0) for each in values]).astype(float)
        table = pd.DataFrame({"head": [str(heads[at]) for at in np.flatnonzero(measured)]})
        if reason := self._why_no_pooling():
            table = table.assign(effect_mean=mean.mean(axis=0), run_low=mean.min(axis=0), run_high=mean.max(axis=0))
            note = f"Mean and range of {len(self)} runs; no interval: {reason}."
        else:
            clusters = [run.data["cluster"].values for run in self.runs]
            variance = [
                variance_of_mean(each[:, measured].astype(float), of) for each, of in zip(values, clusters, strict=True)
            ]
            pooled = random_effects(mean, np.stack(variance), self._confidence)
            table = table.assign(effect_mean=pooled.mean, ci_low=pooled.low, ci_high=pooled.high)
            table = table.assign(tau=pooled.tau, i2=pooled.i2)
            note = f"Random-effects mean of {len(self)} runs (Paule–Mandel, Hartung–Knapp); tau: standard deviation "
            note += "between runs, i2: its share of the variance of the runs' means."
        order = np.argsort(-table["effect_mean"].abs().to_numpy(), kind="stable")
        made = table.iloc[order].reset_index(drop=True)
        made.attrs = {"metric": metric, "note": note}
        return made

    @property
    def _confidence(self) -> float:
        return float((self.runs[0].spec.get("stats") or {}).get("confidence", 0.95))

    def _why_no_pooling(self) -> str:
        """Describe why there is no random-effects mean; empty where there is one."""
        other = [key for key in self.settings if not key.startswith(("prompts.", "seed"))]
        if other:
            return f"the runs differ in {', '.join(other)}, and their effects are of different interventions"
        if len(self) < ENOUGH_RUNS:
            return f"it takes {ENOUGH_RUNS} runs"
        for (a, mine), (b, its) in combinations(zip(self.names, map(_clusters, self.runs), strict=True), 2):
            if shared := sorted(map(str, mine & its)):
                return f"clusters of prompts are shared ({len(shared)} by {a} and {b}, such as {shared[0][:60]})"
        if any(len({*run.data["cluster"].values}) < 2 for run in self.runs):
            return "a run has one cluster of prompts"
        return ""

    def _check_heads(self) -> None:
        if not self.same_heads:
            shapes = "; ".join(
                f"{name}: {run.data.sizes['layer']} × {run.data.sizes['head']}" for name, run in self._each
            )
            remedy = f"their models have other heads ({shapes}): set by=role or by=depth"
            raise RequestError("by", "head", remedy)

    @property
    def _each(self) -> Iterator[tuple[str, Run]]:
        return zip(self.names, self.runs, strict=True)

    # --- unlike models --------------------------------------------------------------------------------------------

    def by_role(self, metric: str | None = None) -> pd.DataFrame:
        """Return for each run and role the heads that have it and their mean effect. Raises `RequestError` where a run
        scored no roles."""
        metric, rows = self.metric(metric), []
        for name, run in self._each:
            if "role_given" not in run.data:
                raise RequestError("by", "role", f"{run.path.name} scored no roles: use runs of study, or by=depth")
            roles = run.roles()
            for role in map(str, run.data["role"].values):
                heads = [head for head, those in roles.items() if role in those]
                effects = [float(run.data["effect"].sel(metric=metric, **head.place).mean()) for head in heads]
                rows.append((name, role, len(heads), float(np.nanmean(effects)) if effects else np.nan))
        return pd.DataFrame(rows, columns=["run", "role", "n_heads", "effect_mean"])

    def by_depth(self, metric: str | None = None, bins: int = _BINS) -> pd.DataFrame:
        """Return for each run the sum of its heads' mean effects in each of `bins` of relative depth, layer / (layers
        − 1), by its middle; of an encoder-decoder in each stack."""
        metric, rows = self.metric(metric), []
        for name, run in self._each:
            for stack, n_layers in run.layers.items():
                effect = run.data["effect"].sel(metric=metric).mean("prompt")
                effect = effect.sel(stack=stack) if stack else effect
                by_layer = effect.isel(layer=slice(n_layers)).sum("head").values
                at = np.minimum((np.arange(n_layers) / max(n_layers - 1, 1) * bins).astype(int), bins - 1)
                for number in range(bins):
                    rows.append(
                        (
                            name,
                            stack,
                            (number + 0.5) / bins,
                            int((at == number).sum()),
                            float(by_layer[at == number].sum()),
                        )
                    )
        return pd.DataFrame(rows, columns=["run", "stack", "depth", "n_layers", "effect_sum"])

    def __repr__(self) -> str:
        return f"Runs({len(self)}, differing in {', '.join(self.settings) or 'nothing'})"

    def _repr_html_(self) -> str:
        return self.settings.assign(run=self.names).set_index("run").to_html(escape=True)


def split_half(
    values: Float[np.ndarray, "prompt head"], clusters: np.ndarray, top_k: int = 10, seed: int = 0
) -> tuple[float, float]:
    """Return the mean over splits of the clusters into halves of Kendall's τ-b of the two halves' rankings by |mean|,
    and of the share of their `top_k` heads that both have; NaN with one cluster.

    Of an odd number of clusters one half has one more. All splits are made where there are at most `SPLITS`, else as
    many at random.
    """
    names, of = np.unique(np.asarray(clusters, dtype=object), return_inverse=True)
    splits = [
        _alike(values[np.isin(of, half)].mean(axis=0), values[~np.isin(of, half)].mean(axis=0), top_k)
        for half in _halves(len(names), seed)
    ]
    if not splits:
        return np.nan, np.nan
    tau, shared = np.mean(splits, axis=0)
    return float(tau), float(shared)


def _halves(n: int, seed: int) -> Iterator[Sequence[int]]:
    """Yield the smaller halves of n clusters, each split once."""
    size = n // 2
    if n < 2:
        return
    if comb(n, size) <= SPLITS * (2 if n % 2 == 0 else 1):
        # of an even number each split is there twice: keep the half with cluster 0
        yield from (half for half in combinations(range(n), size) if n % 2 or 0 in half)
        return
    rng = np.random.default_rng(seed)
    for _ in range(SPLITS):
        yield rng.permutation(n)[:size].tolist()


def _alike(first: Float[np.ndarray, " head"], second: Float[np.ndarray, " head"], top_k: int) -> tuple[float, float]:
    """Return Kendall's τ-b of two rankings by size, and the share of the `top_k` heads that both have."""
    there = np.isfinite(first) & np.isfinite(second)
    a, b = np.abs(first[there]), np.abs(second[there])
    tops = [{*np.argsort(-each, kind="stable")[:top_k].tolist()} for each in (a, b)]
    ranked: Any = kendalltau(a, b) if len(a) > 1 else None
    return float(ranked.statistic) if ranked else np.nan, len(tops[0] & tops[1]) / max(1, min(top_k, len(a)))


def _important(run: Run, like: xr.DataArray) -> xr.DataArray:
    made = xr.zeros_like(like, dtype=bool)
    for metric in map(str, like["metric"].values):
        for head in _claimed(run, metric):
            made.loc[{"metric": metric, **head.place}] = True
    return made


def _claimed(run: Run, metric: str) -> set[Head]:
    """Return the important heads; the shown ones where the metric has no threshold."""
    claims = run.claims(metric)
    judged = {head for head, claim in claims.items() if np.isfinite(claim.important)}
    return {head for head in judged if claims[head].important} if judged else run.shown(metric)


def _clusters(run: Run) -> set[tuple[str, ...]]:
    """Return what identifies the clusters of a run beside those of another: their name in a prompt set whose clusters
    keep their meaning, and the texts."""
    spec = run.spec.get("prompts") or {}
    texts = [str(text) for text in run.data["text"].values]
    own = {("text", text) for text in texts}
    if spec.get("name") not in _SHARED_CLUSTERS:
        return own
    where = str(spec.get("name")), str(spec.get("path") or spec.get("language") or "")
    return own | {(*where, str(cluster)) for cluster in run.data["cluster"].values}


def _last(key: str) -> str:
    """The last part of a dotted key, or the section of a name."""
    first, _, last = key.rpartition(".")
    return first.rpartition(".")[2] if last == "name" else last if first in ("", "sweep") else key


def check_by(by: str) -> str:
    """Return the way to compare. Raises `RequestError` for an unknown one."""
    if by not in ("head", "role", "depth"):
        raise RequestError("by", by, near(by, ("head", "role", "depth")))
    return by
