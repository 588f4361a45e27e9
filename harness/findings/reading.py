"""What a saved run says of its metrics, heads and prompts: the only reader of its arrays and of ``heads.csv``."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import xarray as xr
from jaxtyping import Float, Shaped

from harness.attribution import rollout
from harness.findings.format import signed
from harness.hooks import STACKS, Head
from harness.metrics import Meaning, leading, meaning
from harness.words import joined, labels

if TYPE_CHECKING:
    from harness.results import Run

#: A mean effect that is no larger is the rounding of sums.
ROUNDING = 1e-7
_CLAIMED = (
    "ci_low",
    "ci_high",
    "direct_mean",
    "p_value",
    "p_adjusted",
    "important",
    "n_clusters",
    "n_effective_clusters",
)
_OF_A_HEAD = ("stack", "layer", "head")
#: Where the pattern of each stack stands, and what its dimensions are called there.
PATTERN = {
    "": ("pattern", "query", "key"),
    "decoder": ("pattern", "query", "key"),
    "encoder": ("encoder_pattern", "source_query", "source_key"),
    "cross": ("cross_pattern", "query", "source_key"),
}


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts with its interval: the table's confidence interval, or one standard error each way."""

    mean: float
    low: float
    high: float
    kind: str

    def told(self, mean: str, unit: str) -> str:
        """The written mean with its unit and spread."""
        if self.kind == "one prompt":
            return f"{mean}{unit} (one prompt, so no spread)"
        if self.kind == "standard error":
            return f"{mean} ± {self.high - self.mean:.2g}{unit} (standard error)"
        return f"{mean}{unit} ({self.kind} {signed(self.low)} to {signed(self.high)})"

    def shortly(self) -> str:
        """The mean and its spread, where unit and kind of spread were said before."""
        if self.kind in ("one prompt", "standard error"):
            return signed(self.mean) + ("" if self.kind == "one prompt" else f" ± {self.high - self.mean:.2g}")
        return f"{signed(self.mean)} ({signed(self.low)} to {signed(self.high)})"


# --- metrics ----------------------------------------------------------------------------------------------------


def lead_metric(run: "Run") -> str:
    """The metric a reader meets first."""
    return leading([str(metric) for metric in run.data["metric"].values])


def by_lead(run: "Run") -> list[str]:
    """The metrics of the effects, the leading one first."""
    if "effect" not in run.data:
        return []
    return sorted(map(str, run.data["metric"].values), key=lambda metric: metric != lead_metric(run))


def meaning_of(run: "Run", metric: str) -> Meaning:
    """How to read a metric of this run."""
    return meaning(metric, run.data["clean"].attrs)


def sense(run: "Run", metric: str) -> int:
    """+1 where a positive effect means that the head helped, -1 where a negative one does, 0 where neither does."""
    known = meaning_of(run, metric)
    if known.distance or known.higher_is_better is None:
        return 0
    return -1 if known.higher_is_better else 1


def units(run: "Run", metric: str) -> str:
    """What the metric is counted in, in full."""
    return meaning_of(run, metric).units


def unit(run: "Run", metric: str) -> str:
    """What stands behind a number: `` nats`` or `` logits`` with its space, nothing for a share."""
    first = units(run, metric).partition(" ")[0]
    return f" {first}" if first in ("nats", "logits") else ""


def side(run: "Run", metric: str, effect: float) -> str:
    """Which side an estimate is on, whatever its uncertainty: ``helps``, ``hurts``, ``matters`` where the metric has no
    better direction, ``no effect`` where it is 0. Colours go by it; words by `verdict`."""
    way = sense(run, metric)
    if abs(effect) <= ROUNDING:
        return "no effect"
    return "matters" if way == 0 else "helps" if way * effect > 0 else "hurts"


def shown(run: "Run", metric: str) -> set[Head]:
    """The heads that the run shows to have an effect: their max-T p is below the level. All of them where none was
    tested: a distance without a null."""
    if not tested(run, metric):
        return set(ablated_heads(run))
    return {head for head, each in claims(run, metric).items() if each.p_adjusted < level_of(run)}


def null(run: "Run", metric: str) -> str:
    """What effects were tested against."""
    return "random edits of the same size" if meaning_of(run, metric).distance else "chance"


def rule(run: "Run", metric: str) -> str:
    """What shows an effect, in words."""
    if not tested(run, metric):
        return "not tested"
    return f"max-T p < {level_of(run):g}" + (f" against {null(run, metric)}" * meaning_of(run, metric).distance)


def verdict(run: "Run", metric: str, head: Head) -> str:
    """What the run shows of a head: ``helps``, ``hurts`` or ``matters`` where it is `shown`, ``no effect`` where its
    mean effect is 0, else ``unsure``. The one rule of table, map, sentence and terminal."""
    about = side(run, metric, float(effect_of(run, metric, head).mean()))
    return about if about == "no effect" or head in shown(run, metric) else "unsure"


# --- heads ------------------------------------------------------------------------------------------------------


def layers_of(run: "Run") -> dict[str, int]:
    """How many layers each stack has that the run's arrays have a place for; ``""`` is a model's only stack."""
    n = run.data.sizes.get("layer", 0)
    if "source_length" not in run.data:
        return {"": n} if n else {}
    model = run.manifest.get("model") or {}
    known = {"encoder": model.get("n_encoder_layers", n), "decoder": model.get("n_layers", n)}
    return {stack: min(n, known.get(stack, known["decoder"])) for stack in STACKS} if n else {}


def all_heads(run: "Run") -> list[Head]:
    """Every head that the run's arrays have a place for, in order."""
    numbers = [int(number) for number in run.data["head"].values] if "head" in run.data.coords else []
    return [
        Head(layer, number, stack) for stack, n in layers_of(run).items() for layer in range(n) for number in numbers
    ]


def by_head(array: xr.DataArray) -> tuple[list[Head], Shaped[np.ndarray, "*other head"]]:
    """The heads that an array has a place for, in order, and its values with one last axis for them."""
    dims = [dim for dim in _OF_A_HEAD if dim in array.dims]
    flat = array.stack(which=dims).transpose(..., "which")
    heads = [Head(int(at[-2]), int(at[-1]), *map(str, at[:-2])) for at in flat["which"].values]
    return heads, flat.values


def ablated_heads(run: "Run") -> list[Head]:
    """The heads that have an effect, in order."""
    if "effect" not in run.data:
        return []
    heads, known = by_head(run.data["effect"].notnull().any(["metric", "prompt"]))
    return [head for head, there in zip(heads, known, strict=True) if there]


def top_heads(run: "Run", metric: str, n: int) -> list[Head]:
    """The n heads with the largest absolute mean effect on the metric, largest first."""
    heads, mean = by_head(run.data["effect"].sel(metric=metric).mean("prompt"))
    size = np.where(np.isfinite(mean), np.abs(mean), -1)
    return [heads[at] for at in np.argsort(-size, kind="stable")[:n] if size[at] >= 0]


def effect_of(run: "Run", metric: str, head: Head, of: str = "effect") -> Float[np.ndarray, " prompt"]:
    """One head's effect (or its direct part) on each prompt, in the metric's unit."""
    return run.data[of].sel(metric=metric, **head.place).values.astype(float)


def estimate(run: "Run", metric: str, head: Head) -> Estimate:
    """The head's mean effect: heads.csv's interval where it has one, else the standard error over prompts."""
    effect, claim = effect_of(run, metric, head), claims(run, metric).get(head, Claim())
    if np.isfinite([claim.low, claim.high]).all():
        return Estimate(float(effect.mean()), claim.low, claim.high, kind_of(run))
    return spread(effect)


def spread(values: Float[np.ndarray, " prompt"]) -> Estimate:
    """The mean of one number per prompt, plus and minus one standard error."""
    mean = float(values.mean())
    if len(values) < 2:
        return Estimate(mean, np.nan, np.nan, "one prompt")
    error = float(values.std(ddof=1) / np.sqrt(len(values)))
    return Estimate(mean, mean - error, mean + error, "standard error")


def roles_of(run: "Run", of: Literal["", "other_"] = "") -> dict[Head, list[str]]:
    """The roles that each head has (of the other model: `of`); empty where none were looked for."""
    if f"{of}role_given" not in run.data:
        return {}
    heads, given = by_head(run.data[f"{of}role_given"])
    names = list(map(str, run.data["role"].values))
    return {
        head: [name for name, has in zip(names, row, strict=True) if has]
        for head, row in zip(heads, given.T, strict=True)
    }


# --- what heads.csv claims --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """What heads.csv claims of one head on one metric; NaN for what was not computed."""

    low: float = np.nan
    high: float = np.nan
    direct: float = np.nan
    p_value: float = np.nan
    p_adjusted: float = np.nan
    important: float = np.nan
    n_clusters: float = np.nan
    n_effective_clusters: float = np.nan


def claims(run: "Run", metric: str) -> dict[Head, Claim]:
    """What heads.csv claims of each head on the metric."""
    mine = np.asarray(run.heads["metric"] == metric, dtype=bool)
    column = {str(name): np.asarray(run.heads[name])[mine] for name in run.heads.columns}
    cells = [_numbers(column[name]) if name in column else [np.nan] * mine.sum() for name in _CLAIMED]
    stacks = map(str, column["stack"]) if "stack" in column else [""] * mine.sum()
    places = zip(column["layer"].astype(int).tolist(), column["head"].astype(int).tolist(), stacks, strict=True)
    return {Head(*place): Claim(*row) for place, row in zip(places, zip(*cells, strict=True), strict=True)}


def _numbers(column: np.ndarray) -> list[float]:
    """A column of heads.csv as numbers: yes and no as 1 and 0, what was not computed as NaN."""
    if column.dtype.kind == "f":
        return column.tolist()
    known = {"True": 1.0, "False": 0.0}
    return [known.get(str(cell), _number(cell)) for cell in column]


def _number(cell: object) -> float:
    return float(cell) if isinstance(cell, int | float | np.number) else np.nan


def tested(run: "Run", metric: str) -> bool:
    """Whether the heads were tested against chance on this metric."""
    return any(np.isfinite(claim.p_adjusted) for claim in claims(run, metric).values())


def level_of(run: "Run") -> float:
    """The level below which a p counts."""
    return float(run.spec.get("stats", {}).get("level", 0.05))


def kind_of(run: "Run") -> str:
    """What the table's intervals are called."""
    return f"{100 * run.spec.get('stats', {}).get('confidence', 0.95):g} % interval"


def threshold(run: "Run", metric: str) -> tuple[float, float]:
    """The smallest effect that is called important: as a share of the clean value, and in the metric's unit."""
    share = float(run.spec.get("stats", {}).get("min_effect", 0.05))
    return share, share * abs(float(run.data["clean"].sel(metric=metric).mean()))


# --- prompts ----------------------------------------------------------------------------------------------------


def last_scored(run: "Run", prompt: int) -> int:
    """The last position of a prompt whose prediction is scored."""
    return int(np.flatnonzero(run.data["target"].values[prompt])[-1])


def rollout_of(run: "Run", prompt: int) -> Float[np.ndarray, "query key"]:
    """The prompt's rollout: the saved one, or computed from its patterns with the run's own options. Padding off."""
    length = int(run.data["length"].values[prompt])
    if "rollout" in run.data:
        return run.data["rollout"].isel(prompt=prompt).values[:length, :length].astype(float)
    return rollout(pattern_of(run, prompt), **(run.spec.get("attribution", {}).get("rollout") or {}))


def pattern_of(run: "Run", prompt: int, stack: str = "") -> xr.DataArray:
    """The prompt's patterns in one stack, [layer, head, query, key], padding off."""
    name, query, key = PATTERN[stack]
    ends = {
        dim: int(run.data["source_length" if dim.startswith("source_") else "length"].values[prompt])
        for dim in (query, key)
    }
    cut = run.data[name].isel({"prompt": prompt} | {dim: slice(end) for dim, end in ends.items()}).load()
    whole = cut.rename({query: "query", key: "key"})
    return whole.isel(layer=whole.notnull().all(["head", "query", "key"]).values)


def text_of(run: "Run", prompt: int) -> str:
    """The prompt's text as it was given, every character whole, a pair as ``a | b``; in a run that kept no words, its
    tokens."""
    if "word_text" not in run.data:
        return joined(run.data["token"].values[prompt])
    text, sentence = (run.data[name].values[prompt] for name in ("word_text", "sentence"))
    return " | ".join(joined(text[sentence == number]) for number in range(sentence.max() + 1))


def tokens_of(run: "Run", prompt: int, stack: str = "") -> tuple[list[str], list[str]]:
    """The labels of the tokens along the queries and along the keys of a prompt's patterns in one stack."""
    prefixes = ["source_" if dim.startswith("source_") else "" for dim in PATTERN[stack][1:]]
    queries, keys = (token_labels(run, prompt, of) for of in prefixes)
    return queries, keys


def token_labels(run: "Run", prompt: int, of: Literal["", "source_"] | str = "") -> list[str]:
    """What a prompt's tokens are called, every character whole (`harness.words.labels`); in a run that kept no words,
    the tokens as they are."""
    row = run.data.isel(prompt=prompt)
    end = int(row[f"{of}length"])
    token = [str(each) for each in row[f"{of}token"].values[:end]]
    if f"{of}word_text" not in row:
        return token
    return labels(token, row[f"{of}word"].values[:end], row[f"{of}word_text"].values[:end])


def mean_pattern_of(run: "Run", prompt: int, stack: str = "") -> Float[np.ndarray, "query key"]:
    """The plain average of the prompt's patterns over all heads and layers of a stack."""
    return pattern_of(run, prompt, stack).astype(float).mean(["layer", "head"]).values
