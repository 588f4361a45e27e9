"""What the functions of `harness.interactive.compute` return: arrays that answer like a saved run, and become one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import xarray as xr
import yaml

from harness import views
from harness.config import RequestError, near
from harness.execute.protocols import Closed, Closing, close
from harness.findings.intervals import summary
from harness.hooks import Head
from harness.results import Run, manifest, open_run, store
from harness.results.objects import Folder, folder_at
from harness.results.schema import TABLES
from harness.views.figures import first_figure
from harness.views.figures.base import LOOKS, as_picture
from harness.views.figures.effects import effect_map
from harness.views.notebook import View
from harness.views.selection import checked_metric, checked_prompt
from harness.views.text import markup

_QUOTED = ("head", "effect_mean", "ci_low", "ci_high", "direct_mean", "p_adjusted", "important")
_SUMMARY = ("effect_mean", "ci_low", "ci_high", "p_value", "q_value", "p_adjusted", "n_prompts", "n_clusters")


@dataclass(frozen=True, repr=False)
class Result(Run):
    """Labelled arrays (``data``, or ``result["effect"]``) that every view takes as it takes a saved run.

    Tables are made when they are first read. ``save`` writes a run directory.
    """

    closings: Sequence[Closing] = ()

    def __post_init__(self) -> None:
        for table in ("heads", "methods", "edges", "activations"):  # made when they are read, below
            self.__dict__.pop(table, None)

    def __getitem__(self, name: str) -> xr.DataArray:
        return self.data[name]

    @cached_property
    def heads(self) -> pd.DataFrame:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The table of heads, as ``heads.csv``."""
        return self._closed.tables.get("heads", pd.DataFrame(columns=np.array(TABLES["heads"].columns)))

    @cached_property
    def methods(self) -> pd.DataFrame:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The table of attribution methods, as ``methods.csv``."""
        return self._closed.tables.get("methods", pd.DataFrame(columns=np.array(TABLES["methods"].columns)))

    @cached_property
    def edges(self) -> pd.DataFrame:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The table of edges, as ``edges.csv``."""
        return self._closed.tables.get("edges", pd.DataFrame(columns=np.array(TABLES["edges"].columns)))

    @cached_property
    def activations(self) -> pd.DataFrame:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The table of q, k, v and patterns, as ``activations.csv``."""
        return self._closed.tables.get("activations", pd.DataFrame(columns=np.array(TABLES["activations"].columns)))

    @cached_property
    def _closed(self) -> Closed:
        return close(self.data, self.closings)

    def report(self, path: str | Folder) -> Folder:
        """Write the report of these arrays as one HTML file; returns its path."""
        return views.write_report(self._whole, path)

    def save(self, folder: str | Folder) -> Run:
        """Write a run directory, with report and figures, that `harness.open_run` reads; returns the run.

        Where the model, the prompts, a metric or the ablation were objects of the caller, ``spec.yaml`` names them, and
        the run cannot be run again from it. Raises `RequestError` for a directory that is not empty.
        """
        from harness.study.record import draw_closed, write_closed

        place = store.make_folder(folder_at(folder))
        with store.locked(place, "run"):
            store.check_empty(place)
            store.write_text(place / "spec.yaml", yaml.safe_dump(self.spec, sort_keys=False, allow_unicode=True))
            manifest.write_manifest(place, {**self.manifest, "status": "running"})
            write_closed(place, self._closed)
            draw_closed(place)
            manifest.write_manifest(place, {**self.manifest, "files": store.digests(place)})
        return open_run(place)

    @property
    def _whole(self) -> Run:
        """These arrays as a plain run, with the notes of the tables."""
        names = ("path", "spec", "manifest", "heads", "methods", "edges", "activations")
        own = {name: getattr(self, name) for name in names}
        return Run(data=self._closed.data, **own)

    def _of(self) -> str:
        model, prompts = (str((self.spec.get(key) or {}).get("name")) for key in ("model", "prompts"))
        n = self.data.sizes["prompt"]
        return f"{model} on {n} prompt{'s' * (n != 1)} of {prompts}"

    def _html(self, parts: Sequence[str]) -> str:
        return f"<div><p><b>{markup(repr(self))}</b></p>{''.join(parts)}</div>"


class Patterns(Result):
    """Attention patterns, and other activations where they were requested; `harness.look` shows them too.

    >>> import harness
    >>> model = harness.load_model("random")
    >>> patterns = harness.cache_attention(model, harness.load_prompts("induction", model, n=2, length=4))
    >>> patterns.table(head="L0H1").shape
    (9, 9)
    """

    def table(self, prompt: int = 0, head: Head | str = "mean", level: str = "token") -> pd.DataFrame:
        """Return one prompt's weights of a head, a layer's mean (``"L5"``) or the mean of all, [query, key]."""
        return views.table(self, prompt, head, level)

    def top(self, n: int = 5, prompt: int = 0) -> pd.DataFrame:
        """Return the `n` largest weights of all heads on one prompt, from a query to another token; the first token,
        where attention that is not needed goes, is left out."""
        prompt, rows = checked_prompt(self, prompt), []
        for stack in self.layers:
            pattern = self.pattern(prompt, stack).transpose("layer", "head", "query", "key")
            queries, keys = self.tokens(prompt, stack)
            values = pattern.values.astype(float)
            values[..., 0] = 0
            if stack != "cross":
                values[..., np.arange(len(queries)), np.arange(len(queries))] = 0
            for at in np.argsort(-values, axis=None, kind="stable")[:n]:
                layer, head, query, key = (int(index) for index in np.unravel_index(at, values.shape))
                name = str(Head(int(pattern["layer"][layer]), int(pattern["head"][head]), stack))
                rows.append((name, query, queries[query], key, keys[key], float(values[layer, head, query, key])))
        made = pd.DataFrame(rows, columns=["head", "query_at", "query", "key_at", "key", "weight"])
        return made.nlargest(n, "weight").reset_index(drop=True)

    def plot(self, prompt: int = 0, layer: int | None = None) -> View:
        """Show every head's pattern on one prompt, of a layer or of all."""
        return views.model_view(self, prompt) if layer is None else views.layer_view(self, prompt, layer)

    def __repr__(self) -> str:
        size = self.data.nbytes / 1e6
        return f"Patterns({self._of()}: {len(self.all_heads)} heads, {size:.1f} MB; {', '.join(self._kept())})"

    def _kept(self) -> list[str]:
        kinds = ("pattern", "encoder_pattern", "cross_pattern", "z", "q", "k", "v", "scores", "resid", "sink")
        return [name for name in kinds if name in self.data]

    def _repr_html_(self) -> str:
        n = self.data.sizes["prompt"]
        texts = "".join(f"<li>{markup(self.text(prompt))}</li>" for prompt in range(min(n, 5)))
        more = f"<p>and {n - 5} more</p>" if n > 5 else ""
        return self._html([f'<ol start="0">{texts}</ol>{more}', "<p>harness.look(patterns, prompt=0) shows one.</p>"])


class Effects(Result):
    """Effects of ablating heads, prompt by prompt.

    >>> import harness
    >>> model = harness.load_model("random")
    >>> effects = harness.ablate_heads(model, harness.load_prompts("induction", model, n=4, length=4), metrics="loss")
    >>> effects["effect"].dims
    ('metric', 'prompt', 'layer', 'head')
    >>> effects.top(2)["head"].tolist() == [str(head) for head in effects.top_heads("loss", 2)]
    True
    """

    def table(self, effect: str | None = None) -> pd.DataFrame:
        """Return a row for each metric and head with its interval and tests, as ``heads.csv``; for other kinds of sweep
        a row for each layer, MLP, set, step or pair. `effect` chooses among several (``"layer_effect"``)."""
        name = effect or self._names[0]
        if name not in self._names:
            raise RequestError("effect", name, near(name, tuple(self._names)))
        if name == "edge_effect":
            return self.edges
        if name == "activation_effect":
            return self.activations
        return self.heads if name == "effect" else _summarised(self, name)

    def top(self, n: int = 5, metric: str | None = None, effect: str | None = None) -> pd.DataFrame:
        """Return the `n` rows with the largest mean effect on `metric` (default: the leading one)."""
        table, leading = self.table(effect), str(metric or self.lead_metric)
        if leading not in self._metrics:
            raise RequestError("metric", leading, near(leading, self._metrics))
        mine = table.loc[table["metric"] == leading].drop(columns="metric")
        order = mine["effect_mean"].abs().sort_values(ascending=False, kind="stable").index
        first = mine.loc[order].head(n).reset_index(drop=True)
        if "rank" not in first or "layer" not in first:
            return first
        stacks = first["stack"] if "stack" in first else [""] * len(first)
        names = [str(Head(*place)) for place in zip(first["layer"], first["head"], stacks, strict=True)]
        return first.assign(head=names)[[name for name in _QUOTED if first.get(name, pd.Series()).notna().any()]]

    def plot(self, metric: str | None = None) -> View:
        """Show the map of mean effects, of a head by layer; for other kinds of sweep their figure, also where they
        measured single heads to order them."""
        if "effect" in self.data and "single" in self.spec["sweep"]["kind"]:
            chosen = checked_metric(self, metric)
            return views.effects(self._whole, chosen)
        shown = self._whole
        if metric is not None:
            if metric not in self._metrics:
                raise RequestError("metric", metric, near(metric, self._metrics))
            shown = replace(shown, data=shown.data.sel(metric=[metric]))
        return views.figure_view(*first_figure(shown, besides=("map", "strongest")))

    @property
    def _names(self) -> list[str]:
        """The variables of mean effects, single heads first."""
        kinds = ("effect", "layer_effect", "attn_effect", "mlp_effect", "resid_effect", "set_effect", "position_effect")
        others = ("cumulative_effect", "pair_effect", "edge_effect", "activation_effect")
        return [name for name in (*kinds, *others) if name in self.data]

    @property
    def _metrics(self) -> tuple[str, ...]:
        return tuple(map(str, self.data["metric"].values))

    def __repr__(self) -> str:
        what = self.spec["ablation"]["name"]
        kinds = ", ".join(name.replace("_", " ") for name in self._names)
        return f"Effects({self._of()}: {what}-ablation, {kinds} on {', '.join(self._metrics)}{self._largest()})"

    def _largest(self) -> str:
        """The head with the largest mean effect; without intervals, which take longer."""
        if "effect" not in self.data:
            return ""
        head = self.top_heads(self.lead_metric, 1)[0]
        mean = float(self.data["effect"].sel(metric=self.lead_metric, **head.place).mean("prompt"))
        return f"; largest {head} {mean:+.3g}{self.unit(self.lead_metric)}"

    def _repr_html_(self) -> str:
        parts = [self.top(5).to_html(index=False, escape=True, na_rep="", float_format="{:.3g}".format)]
        if "effect" in self.data:
            metric = self.lead_metric
            figure = effect_map(self._whole, metric, LOOKS["screen"])
            uri = as_picture("map", "map", metric, figure, LOOKS["screen"]).uri
            parts.insert(0, f'<img alt="Effect of each head on {markup(metric)}" width="420" src="{uri}">')
        return self._html(parts)


class Attributions(Result):
    """Attribution methods beside measured causes.

    >>> import harness
    >>> model = harness.load_model("random")
    >>> prompts = harness.load_prompts("induction", model, n=2, length=4)
    >>> found = harness.compare_attributions(model, prompts, methods=["rollout", "gradient"], causes=["knockout"])
    >>> sorted(found.top(2)["method"])
    ['gradient', 'rollout']
    """

    def table(self) -> pd.DataFrame:
        """Return a row for each method, cause, policy and statistic with its interval, as ``methods.csv``."""
        return self.methods

    def top(self, n: int = 5, statistic: str = "spearman", policy: str | None = None) -> pd.DataFrame:
        """Return the `n` methods that agree best with the first cause, over the tokens of `policy` (default: without
        special, first and predicting tokens where that was measured)."""
        cause = str(self.data["cause_kind"].values[0])
        policy = policy or str(self.data["policy"].values[-1])
        chosen = {"cause": cause, "policy": policy, "statistic": statistic}
        mine = self.methods
        for column, value in chosen.items():
            known = tuple(sorted(set(self.methods[column]) - {""}))
            if value not in known:
                raise RequestError(column, value, near(value, known))
            mine = mine.loc[mine[column] == value]
        return mine.sort_values("mean", ascending=False, kind="stable").head(n).reset_index(drop=True)

    def plot(self) -> View:
        """Show how well each method agrees with each cause."""
        return views.figure_view(*first_figure(self._whole))

    def __repr__(self) -> str:
        methods, causes = (self.data[name].values for name in ("attribution_method", "cause_kind"))
        return f"Attributions({self._of()}: {len(methods)} methods against {', '.join(map(str, causes))})"

    def _repr_html_(self) -> str:
        return self._html([self.top().to_html(index=False, escape=True, na_rep="", float_format="{:.3g}".format)])


def _summarised(run: Effects, name: str) -> pd.DataFrame:
    """Return a row for each metric and each combination of a variable's further dimensions that was measured.

    Where some prompts lack a value (a position in padding) the mean is over the others, and there is no interval.
    """
    array = run.data[name]
    others = [dim for dim in array.dims if dim not in ("metric", "prompt")]
    flat = array.stack(row=others).transpose("metric", "row", "prompt")
    places = flat["row"].to_index().to_frame(index=False)
    coordinates = [key for key in array.coords if array[key].dims == tuple(others) and key not in others]
    for key in coordinates:
        places[str(key)] = array[key].stack(row=others).values
    tables = []
    for metric, values in zip(map(str, flat["metric"].values), flat.values, strict=True):
        there = np.isfinite(values)
        whole = there.all(axis=1)
        table = places.assign(metric=metric, n_prompts=there.sum(axis=1))
        table["effect_mean"] = np.nansum(values, axis=1) / np.maximum(there.sum(axis=1), 1)
        if whole.any():
            made = summary(run, values[whole].T, distance=run.meaning(metric).distance)
            for column in _SUMMARY:
                if column in made:
                    table.loc[whole, column] = made[column].to_numpy()
        tables.append(table.loc[there.any(axis=1)])
    joined = pd.concat(tables, ignore_index=True)
    first = ["metric", *(str(column) for column in places)]
    return joined.reindex(columns=[*first, *(column for column in _SUMMARY if column in joined)])
