"""Maps of effects by layer and position: the residual stream, each attention and each MLP; and their strongest cells.

Over prompts a cell is a mean by position where all prompts have one length, else by token role (``token_role``, with
the scored positions apart); prompts of other lengths without roles have a map each.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from harness.findings.finding import Finding
from harness.findings.format import chance, count, number, with_spread
from harness.findings.intervals import interval, summary
from harness.findings.next_tokens import says
from harness.results.run import ROUNDING

if TYPE_CHECKING:
    from harness.results import Run

#: Variables that may have a map, and what is ablated.
MAPPED = {"resid_effect": "residual stream", "attn_effect": "attention", "mlp_effect": "MLP"}
#: The role of tokens without one, and of those among them at which a prediction is scored.
_OTHER, _SCORED = "other", "scored"
#: On the scale from the corrupted run, 0, to the clean one, 1, what is rounding.
_NOTHING = 1e-4


@dataclass(frozen=True)
class PositionMap:
    """Effects of one kind of part, in the metric's unit; NaN where a prompt lacks the column.

    Rows are layers (of the residual stream the end after the last too), columns tokens by position or by role; `at`
    names a column in a sentence, `where` are its positions. The map is of one `prompt`, or of all.
    """

    name: str
    variable: str
    rows: list[str]
    columns: list[str]
    at: list[str]
    values: Float[np.ndarray, "prompt row column"]
    where: list[Bool[np.ndarray, "prompt position"]] = field(default_factory=list)
    prompt: int | None = None
    stack: str = ""

    def place(self, row: int) -> str:
        """Return a row in words: ``before L3``, ``in L3``, ``after the last layer``."""
        if self.rows[row] == "end":
            return "after the last layer"
        return f"{'before' if self.variable == 'resid_effect' else 'in'} {self.rows[row]}"

    @property
    def mean(self) -> Float[np.ndarray, "row column"]:
        """The mean over the prompts that have the column."""
        there = np.isfinite(self.values)
        total = np.where(there, self.values, 0).sum(axis=0)
        return np.where(there.any(axis=0), total / np.maximum(there.sum(axis=0), 1), np.nan)


@dataclass(frozen=True)
class _Column:
    """A column of a map: its label, its name in a sentence, and its positions."""

    label: str
    at: str
    where: Bool[np.ndarray, "prompt position"]


def mapped(run: "Run") -> list[str]:
    """Return the variables of the run that are by position."""
    return [name for name in MAPPED if name in run.data and "position" in run.data[name].dims]


def position_maps(run: "Run", metric: str) -> list[PositionMap]:
    """Return the maps over all prompts; none where positions of prompts do not correspond."""
    columns = _columns(run)
    return [_over(columns, *each) for each in _each(run, metric)] if columns else []


def maps_of_prompt(run: "Run", metric: str, prompt: int) -> list[PositionMap]:
    """Return the maps of one prompt, position by position."""
    labels = run.token_labels(prompt)
    places = np.arange(run.data.sizes["position"])
    columns = [_Column(label, _quoted(label, at), (places == at)[None]) for at, label in enumerate(labels)]
    each = _each(run, metric)
    maps = [_over(columns, name, variable, rows, values[[prompt]]) for name, variable, rows, values in each]
    return [replace(one, prompt=prompt) for one in maps]


def destination(run: "Run", metric: str) -> tuple[str, float] | None:
    """Return which run a patch leads to, ``corrupted`` or ``clean``, and how far its mean is from the patched run's, in
    the metric's unit; None where nothing was patched, or where the two are the same."""
    if "corrupted" not in run.data or not mapped(run):
        return None
    into = run.data[mapped(run)[0]].attrs.get("into", "clean")
    clean, corrupted = (float(run.data[name].sel(metric=metric).mean()) for name in ("clean", "corrupted"))
    to, far = ("corrupted", corrupted - clean) if into == "clean" else ("clean", clean - corrupted)
    return (to, far) if abs(far) > ROUNDING else None


def _each(run: "Run", metric: str) -> Iterator[tuple[str, str, list[str], Float[np.ndarray, "prompt row position"]]]:
    """Yield name, variable, rows and effects of each map, of an encoder-decoder by stack."""
    for variable in mapped(run):
        effect = run.data[variable].sel(metric=metric)
        for stack in map(str, effect["stack"].values) if "stack" in effect.dims else ("",):
            of = effect.sel(stack=stack) if stack else effect
            rows, values = _rows(of, run.layers[stack])
            if np.isfinite(values).any():
                yield f"{stack} {MAPPED[variable]}".strip(), variable, rows, values


def _rows(effect: xr.DataArray, n_layers: int) -> tuple[list[str], np.ndarray]:
    """Return the names of a stack's rows and its effects [prompt, row, position]."""
    down = "depth" if "depth" in effect.dims else "layer"
    names = [f"L{layer}" for layer in range(n_layers)] + ["end"] * (down == "depth")
    return names, effect.transpose("prompt", down, "position").values[:, : len(names)].astype(float)


def _over(columns: list[_Column], name: str, variable: str, rows: list[str], values: np.ndarray) -> PositionMap:
    """Return the map whose cells are means over the positions of a column."""
    made = np.full((*values.shape[:2], len(columns)), np.nan)
    for at, column in enumerate(columns):
        for prompt, where in enumerate(column.where):
            if where.any():
                made[prompt, :, at] = values[prompt][:, where].mean(axis=1)
    labels, at, where = ([getattr(each, key) for each in columns] for key in ("label", "at", "where"))
    stack = name.removesuffix(MAPPED[variable]).strip()
    return PositionMap(name, variable, rows, labels, at, made, where, stack=stack)


def _columns(run: "Run") -> list[_Column]:
    """Return the columns that all prompts share."""
    length, n = run.data["length"].values, run.data.sizes["position"]
    if (length == length[0]).all():
        token = np.array([run.token_labels(prompt) for prompt in range(len(length))])
        places = np.arange(n)
        labels = [_shared(token[:, at]) or _shared(_roles(run)[:, at]) or f"token {at}" for at in range(length[0])]
        where = [np.tile(places == at, (len(length), 1)) for at in range(length[0])]
        return [_Column(label, _quoted(label, at), where[at]) for at, label in enumerate(labels)]
    role = _roles(run)
    relative = np.arange(n) / np.maximum(length[:, None] - 1, 1)
    known = sorted({*role.ravel()} - {""}, key=lambda name: float(relative[role == name].mean()))
    return [_Column(name, f"at {_named(name)}", role == name) for name in known]


def _roles(run: "Run") -> np.ndarray:
    """Return the role of each token [prompt, position], scored ones without one apart; empty where there are none."""
    if "token_role" not in run.data:
        return np.full(run.data["token"].shape, "", dtype=object)
    role = run.data["token_role"].values.astype(object)
    return np.where((role == _OTHER) & run.data["target"].values, _SCORED, role)


def _shared(labels: np.ndarray) -> str:
    """Return the label that all prompts have, or nothing."""
    return str(labels[0]) if len({*labels}) == 1 else ""


def _named(role: str) -> str:
    return {_SCORED: "the scored position", _OTHER: "other tokens"}.get(role, f"the {role}")


def _quoted(label: str, at: int) -> str:
    return f"at position {at} (“{label.strip()}”)"


# --- findings ---------------------------------------------------------------------------------------------------


def strongest_cells(run: "Run") -> Iterator[Finding]:
    """Yield the cell of each map with the largest mean effect, by the leading metric."""
    if not mapped(run):
        return
    metric = run.lead_metric
    maps = position_maps(run, metric)
    if not maps:
        text = (
            f"The maps of {count(run.data.sizes['prompt'], 'prompt')} are not averaged: the prompts differ in length, "
        )
        yield Finding(f"{text}and their tokens have no roles.", np.nan, np.nan, np.nan, mapped(run)[0])
    for each in maps:
        yield _strongest(run, metric, each)
    yield from filter(None, (says(run, each) for each in maps))


def _strongest(run: "Run", metric: str, of: PositionMap) -> Finding:
    """State the strongest cell of those that every prompt has, tested with all of them together."""
    cells = np.flatnonzero(np.isfinite(of.values).all(axis=0))
    at = int(np.abs(of.mean.ravel()[cells]).argmax())
    row, column = np.unravel_index(cells[at], of.mean.shape)
    about = interval(run, of.values[:, row, column])
    done = "patching" if "corrupted" in run.data else "ablating"
    text = f"By {metric}, {done} the {of.name} does most {of.place(row)} {of.at[column]}: the mean changes by "
    text += with_spread(about, run.unit(metric))
    if not run.meaning(metric).distance:
        each = of.values.reshape(len(of.values), -1)[:, cells]
        p = float(summary(run, each)["p_adjusted"].iloc[at])
        text += f", max-T {chance(p)} over all cells" if np.isfinite(p) else ""
    if (leads := destination(run, metric)) is not None:
        share = about.mean / leads[1]
        place = 1 - share if leads[0] == "corrupted" else share
        scale = number(place if abs(place) > _NOTHING else 0.0)  # at an end of the scale rounding is left
        text += f"; from 0, the corrupted run, to 1, the clean one, the mean is then at {scale}"
    return Finding(f"{text}.", about.mean, about.low, about.high, of.variable)
