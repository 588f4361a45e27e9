"""`Run`, a saved run: its metrics, heads and prompts, read without the model and without torch."""

import html
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from harness.config import RequestError
from harness.hooks import STACKS, Head
from harness.metrics import Meaning, leading, meaning
from harness.results.objects import Folder
from harness.results.schema import by_head, pattern_variable
from harness.words import labels

#: The path of arrays that are in no run directory.
IN_MEMORY = Path("in memory")
#: Mean effects up to this size are rounding of sums.
ROUNDING = 1e-7
#: Columns of heads.csv that make a `Claim`, in its order.
_CLAIMED = (
    *("ci_low", "ci_high", "direct_mean", "p_value", "p_adjusted", "important", "n_clusters", "n_effective_clusters"),
)
_SHOWN = ("metric", "stack", "layer", "head", "effect_mean", "ci_low", "ci_high", "p_adjusted", "important")


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts, with the table's confidence interval or one standard error each way (named by `kind`)."""

    mean: float
    low: float
    high: float
    kind: str


def spread(values: Float[np.ndarray, " prompt"]) -> Estimate:
    """Return the mean of one number per prompt, plus and minus one standard error."""
    mean = float(values.mean())
    if len(values) < 2:
        return Estimate(mean, np.nan, np.nan, "one prompt")
    error = float(values.std(ddof=1) / np.sqrt(len(values)))
    return Estimate(mean, mean - error, mean + error, "standard error")


@dataclass(frozen=True)
class Claim:
    """A row of heads.csv, one head on one metric; NaN for what was not computed."""

    low: float = np.nan
    high: float = np.nan
    direct: float = np.nan
    p_value: float = np.nan
    p_adjusted: float = np.nan
    important: float = np.nan
    n_clusters: float = np.nan
    n_effective_clusters: float = np.nan


@dataclass(frozen=True)
class Run:
    """A saved run: its spec and manifest, its labelled arrays (read from disk when they are used) and its tables
    (`harness.results.schema` lists both).

    Derived values are cached: a run is immutable. ``dataclasses.replace`` gives a run with other arrays. A method takes
    a metric by its name, a head as a `Head` and a prompt by its number.

    >>> import harness
    >>> model = harness.load_model("planted")
    >>> run = harness.ablate_heads(model, harness.load_prompts("induction", model, n=4), metrics="loss")
    >>> head = run.top_heads("loss", 1)[0]
    >>> run.effect("loss", head).shape, run.units("loss"), run.sense("loss")
    ((4,), 'nats per target token', 1)
    """

    path: Folder
    spec: dict[str, Any]
    manifest: dict[str, Any]
    data: xr.Dataset
    heads: pd.DataFrame = field(default_factory=pd.DataFrame)
    methods: pd.DataFrame = field(default_factory=pd.DataFrame)
    changes: pd.DataFrame = field(default_factory=pd.DataFrame)
    parts: pd.DataFrame = field(default_factory=pd.DataFrame)
    part_heads: pd.DataFrame = field(default_factory=pd.DataFrame)
    texts: pd.DataFrame = field(default_factory=pd.DataFrame)
    tasks: pd.DataFrame = field(default_factory=pd.DataFrame)
    edges: pd.DataFrame = field(default_factory=pd.DataFrame)
    activations: pd.DataFrame = field(default_factory=pd.DataFrame)

    # --- metrics --------------------------------------------------------------------------------------------------

    @cached_property
    def lead_metric(self) -> str:
        """The metric that is shown first."""
        return leading([str(metric) for metric in self.data["metric"].values])

    @cached_property
    def metrics(self) -> list[str]:
        """The metrics of the effects, the leading one first; none where no heads were ablated."""
        if "effect" not in self.data:
            return []
        return sorted(map(str, self.data["metric"].values), key=lambda metric: metric != self.lead_metric)

    def meaning(self, metric: str) -> Meaning:
        """Return how to read a metric: its unit, better direction, and whether it is a distance."""
        return meaning(metric, self.data["clean"].attrs)

    def sense(self, metric: str) -> int:
        """Return +1 where a positive effect means that the head helped, -1 where a negative one does, else 0."""
        known = self.meaning(metric)
        if known.distance or known.higher_is_better is None:
            return 0
        return -1 if known.higher_is_better else 1

    def units(self, metric: str) -> str:
        """Return the metric's unit in full."""
        return self.meaning(metric).units

    def unit(self, metric: str) -> str:
        """Return the unit to put after a number: `` nats`` or `` logits`` with its space, empty for a share."""
        first = self.units(metric).partition(" ")[0]
        return f" {first}" if first in ("nats", "logits") else ""

    def threshold(self, metric: str) -> tuple[float, float]:
        """Return the smallest important effect: as a share of the clean value, and in the metric's unit."""
        share = float(self.spec.get("stats", {}).get("min_effect", 0.05))
        return share, share * abs(float(self.data["clean"].sel(metric=metric).mean()))

    def normalised(self, metric: str, variable: str = "resid_effect") -> xr.DataArray:
        """Return a patch's mean metric on a scale on which the corrupted run is 0 and the clean run 1, without a unit.

        `variable` is one of effects; its dimensions but the prompts stay. A cell is a mean over the prompts that have
        it. Raises `RequestError` where the run patched nothing. Source: Wang et al. 2022, arXiv:2211.00593, section 3.
        """
        if "corrupted" not in self.data or variable not in self.data:
            raise RequestError("variable", variable, "only a patch (ablation=patch) is between two runs")
        known = {name: self.data[name].sel(metric=metric) for name in ("clean", "corrupted", variable)}
        patched = known[variable] + known[known[variable].attrs.get("into", "clean")]
        apart = float((known["clean"] - known["corrupted"]).mean())
        return (patched - known["corrupted"]).mean("prompt") / apart

    # --- verdicts on effects, for table, map, sentence and terminal -----------------------------------------------

    def side(self, metric: str, effect: float) -> str:
        """Return the side of an estimate, whatever its uncertainty: ``helps``, ``hurts``, ``matters`` where the metric
        has no better direction, ``no effect`` where it is 0. Colours use it; words use `verdict`."""
        sense = self.sense(metric)
        if abs(effect) <= ROUNDING:
            return "no effect"
        return "matters" if sense == 0 else "helps" if sense * effect > 0 else "hurts"

    def shown(self, metric: str) -> set[Head]:
        """Return the heads with a max-T p below the level; all heads where none was tested (a distance without a
        null)."""
        return self._shown[metric]

    @cached_property
    def _shown(self) -> dict[str, set[Head]]:
        return {
            metric: {head for head, each in self.claims(metric).items() if each.p_adjusted < self.level}
            if self.tested(metric)
            else set(self.ablated_heads)
            for metric in self.metrics
        }

    def tested(self, metric: str) -> bool:
        """Whether the heads were tested on this metric."""
        return any(np.isfinite(claim.p_adjusted) for claim in self.claims(metric).values())

    def null(self, metric: str) -> str:
        """Name the null hypothesis of the effects."""
        return "random edits of the same size" if self.meaning(metric).distance else "chance"

    def rule(self, metric: str) -> str:
        """Describe the criterion of `shown`."""
        if not self.tested(metric):
            return "not tested"
        return f"max-T p < {self.level:g}" + f" against {self.null(metric)}" * self.meaning(metric).distance

    def verdict(self, metric: str, head: Head) -> str:
        """Return the verdict on a head: ``helps``, ``hurts`` or ``matters`` where it is `shown`, ``no effect`` where
        its mean effect is 0, else ``unsure``."""
        side = self.side(metric, float(self.effect(metric, head).mean()))
        return side if side == "no effect" or head in self.shown(metric) else "unsure"

    @property
    def level(self) -> float:
        """The significance level."""
        return float(self.spec.get("stats", {}).get("level", 0.05))

    @property
    def interval_name(self) -> str:
        """The name of the table's intervals, such as ``95 % interval``."""
        return f"{100 * self.spec.get('stats', {}).get('confidence', 0.95):g} % interval"

    # --- heads ----------------------------------------------------------------------------------------------------

    @cached_property
    def layers(self) -> dict[str, int]:
        """The number of layers of each stack in the run's arrays; ``""`` is a model's only stack."""
        n = self.data.sizes.get("layer", self.data.sizes.get("depth", 1) - 1)
        if "source_length" not in self.data:
            return {"": n} if n else {}
        model = self.manifest.get("model") or {}
        known = {"encoder": model.get("n_encoder_layers", n), "decoder": model.get("n_layers", n)}
        return {stack: min(n, known.get(stack, known["decoder"])) for stack in STACKS} if n else {}

    @cached_property
    def all_heads(self) -> list[Head]:
        """Every head in the run's arrays, in order."""
        numbers = [int(number) for number in self.data["head"].values] if "head" in self.data.coords else []
        return [Head(layer, head, stack) for stack, n in self.layers.items() for layer in range(n) for head in numbers]

    @cached_property
    def ablated_heads(self) -> list[Head]:
        """The heads that have an effect, in order."""
        if "effect" not in self.data:
            return []
        heads, known = by_head(self.data["effect"].notnull().any(["metric", "prompt"]))
        return [head for head, there in zip(heads, known, strict=True) if there]

    def top_heads(self, metric: str, n: int) -> list[Head]:
        """Return the n heads with the largest absolute mean effect on the metric, largest first."""
        return self._ranked[metric][:n]

    @cached_property
    def _ranked(self) -> dict[str, list[Head]]:
        """The ablated heads by absolute mean effect, for each metric."""
        ranked = {}
        for metric in self.metrics:
            heads, mean = by_head(self.data["effect"].sel(metric=metric).mean("prompt"))
            size = np.where(np.isfinite(mean), np.abs(mean), -1)
            ranked[metric] = [heads[at] for at in np.argsort(-size, kind="stable") if size[at] >= 0]
        return ranked

    def effect(self, metric: str, head: Head, of: str = "effect") -> Float[np.ndarray, " prompt"]:
        """Return one head's effect (or its direct part, ``of="direct"``) on each prompt, in the metric's unit."""
        return self.data[of].sel(metric=metric, **head.place).values.astype(float)

    def estimate(self, metric: str, head: Head) -> Estimate:
        """Return the head's mean effect with heads.csv's interval, or without one the standard error over prompts."""
        effect, claim = self.effect(metric, head), self.claims(metric).get(head, Claim())
        if np.isfinite([claim.low, claim.high]).all():
            return Estimate(float(effect.mean()), claim.low, claim.high, self.interval_name)
        return spread(effect)

    def roles(self, of: Literal["", "other_"] = "") -> dict[Head, list[str]]:
        """Return the roles of each head (of the other model: `of`); empty where roles were not scored."""
        if f"{of}role_given" not in self.data:
            return {}
        heads, has_role = by_head(self.data[f"{of}role_given"])
        names = list(map(str, self.data["role"].values))
        return {
            head: [name for name, has in zip(names, row, strict=True) if has]
            for head, row in zip(heads, has_role.T, strict=True)
        }

    def claims(self, metric: str) -> dict[Head, Claim]:
        """Return heads.csv's claims on each head for the metric; empty for an unknown metric."""
        return self._claims.get(metric, {})

    @cached_property
    def _claims(self) -> dict[str, dict[Head, Claim]]:
        table = self.heads
        if not len(table) or "metric" not in table:
            return {}
        cells = [_numbers(table[name].to_numpy()) if name in table else [np.nan] * len(table) for name in _CLAIMED]
        stacks = table["stack"].astype(str) if "stack" in table else [""] * len(table)
        heads = map(Head, table["layer"].astype(int), table["head"].astype(int), stacks)
        claims: dict[str, dict[Head, Claim]] = {}
        for metric, head, row in zip(table["metric"], heads, zip(*cells, strict=True), strict=True):
            claims.setdefault(str(metric), {})[head] = Claim(*row)
        return claims

    # --- prompts --------------------------------------------------------------------------------------------------

    def last_scored(self, prompt: int) -> int:
        """Return the last position of a prompt whose prediction is scored."""
        return int(np.flatnonzero(self.data["target"].values[prompt])[-1])

    def pattern(self, prompt: int, stack: str = "") -> xr.DataArray:
        """Return the prompt's patterns in one stack, [layer, head, query, key], without padding."""
        name, query, key = pattern_variable(stack)
        ends = {
            dim: int(self.data["source_length" if dim.startswith("source_") else "length"].values[prompt])
            for dim in (query, key)
        }
        cut = self.data[name].isel({"prompt": prompt} | {dim: slice(end) for dim, end in ends.items()}).load()
        whole = cut.rename({query: "query", key: "key"})
        return whole.isel(layer=whole.notnull().all(["head", "query", "key"]).values)

    def mean_pattern(self, prompt: int, stack: str = "") -> Float[np.ndarray, "query key"]:
        """Return the mean of the prompt's patterns over all heads and layers of a stack."""
        return self.pattern(prompt, stack).astype(float).mean(["layer", "head"]).values

    def text(self, prompt: int) -> str:
        """Return the prompt's text, a pair as ``a | b``."""
        return str(self.data["text"].values[prompt])

    def tokens(self, prompt: int, stack: str = "") -> tuple[list[str], list[str]]:
        """Return the token labels of the queries and of the keys of a prompt's patterns in one stack."""
        prefixes = ["source_" if dim.startswith("source_") else "" for dim in pattern_variable(stack)[1:]]
        queries, keys = (self.token_labels(prompt, of) for of in prefixes)
        return queries, keys

    def token_labels(self, prompt: int, of: Literal["", "source_"] | str = "") -> list[str]:
        """Return the labels of a prompt's tokens (`harness.words.labels`)."""
        row = self.data.isel(prompt=prompt)
        end = int(row[f"{of}length"])
        token = [str(each) for each in row[f"{of}token"].values[:end]]
        return labels(token, row[f"{of}word"].values[:end], row[f"{of}word_text"].values[:end])

    @property
    def is_saved(self) -> bool:
        """Whether there is a run directory."""
        return self.path != IN_MEMORY

    # --- notebooks ------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        model, prompts = self.spec.get("model", {}).get("name"), self.spec.get("prompts", {}).get("name")
        return f"Run({self.path}, model={model}, prompts={prompts}, status={self.manifest.get('status')})"

    def _repr_html_(self) -> str:
        """Return HTML for a notebook: the run's settings, and the strongest heads by each metric."""
        facts = {
            "run": self.path,
            **{key: (self.spec.get(key) or {}).get("name") for key in ("model", "prompts", "ablation")},
        }
        facts |= {"status": self.manifest.get("status"), "arrays": ", ".join(sorted(map(str, self.data.data_vars)))}
        rows = "".join(
            f'<tr><th align="left">{name}</th><td align="left">{html.escape(str(value))}</td></tr>'
            for name, value in facts.items()
            if value is not None
        )
        return f"<table>{rows}</table>{self._strongest()}"

    def _strongest(self, n: int = 3) -> str:
        """Return the first rows of heads.csv for each metric, as HTML."""
        if not len(self.heads):
            return ""
        known = [name for name in _SHOWN if name in self.heads]
        first = self.heads.sort_values("rank", kind="stable").groupby("metric", sort=False).head(n)[known]
        return first.to_html(index=False, escape=True, na_rep="", float_format="{:.3g}".format)


def _numbers(column: np.ndarray) -> list[float]:
    """Convert a column of heads.csv to numbers: true and false to 1 and 0, what was not computed to NaN."""
    if column.dtype.kind == "f":
        return column.tolist()
    cells = pd.to_numeric(pd.Series(column).replace({"True": 1, "False": 0}), errors="coerce")
    return np.asarray(cells, dtype=float).tolist()
