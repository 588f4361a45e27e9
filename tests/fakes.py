"""A plausible finished run without a model: what the views and the findings are tested on."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from harness.config import StatsSpec
from harness.results import Run
from harness.results.schema import with_notes
from harness.sweep.head_table import heads_table

METRICS = ("loss", "logit_diff")
WORDS = ("When", " Mary", " and", " John", " went", " to", " the", " store", ",", " gave", " a", " drink")
HEAD_COLUMNS = [
    *("metric", "layer", "head", "effect_mean", "ci_low", "ci_high", "direct_mean", "effect_size", "p_value"),
    *("q_value", "p_adjusted", "significant", "important", "rank", "n_prompts", "n_clusters", "method", "estimate"),
    *("effect_error", "roles"),
]


@dataclass(frozen=True)
class FakeRun(Run):
    """A run whose arrays and table are in memory; `dataclasses.replace` changes one of them."""

    data: xr.Dataset = field()
    heads: pd.DataFrame = field()


def fake_run(
    tmp_path: Path,
    n_prompts: int = 6,
    n_layers: int = 3,
    n_heads: int = 4,
    lengths: Sequence[int] | None = None,
    tokens: Sequence[Sequence[str]] | None = None,
    seed: int = 0,
    metrics: Sequence[str] = METRICS,
    causal: bool = True,
    parts: Sequence[str] = ("pattern", "effect"),
) -> FakeRun:
    """A complete run in memory, its directory empty.

    ``tokens`` gives the prompts' tokens (and so ``n_prompts`` and ``lengths``); ``parts`` leaves patterns or effects
    out. L1H2 is the strongest helper by construction and the last head of the last layer hurts.
    """
    rng = np.random.default_rng(seed)
    if tokens is None:
        lengths = list(lengths or [8] * n_prompts)
        tokens = [[WORDS[i % len(WORDS)] for i in range(n)] for n in lengths]
    data = _prompt_variables(tokens)
    if "pattern" in parts:
        data["pattern"] = _pattern(rng, data["length"].values, n_layers, n_heads, causal)
    if "effect" in parts:
        data |= _effects(rng, metrics, len(tokens), n_layers, n_heads)
    dataset = xr.Dataset(data, coords={"layer": range(n_layers), "head": range(n_heads)})
    if "effect" in parts:
        dataset = dataset.assign_coords(metric=list(metrics))
    return FakeRun(Path(tmp_path), _spec(len(tokens), metrics), _manifest(n_layers, n_heads), dataset, _heads(dataset))


def with_claims(run: FakeRun) -> FakeRun:
    """The run with the table that a real one has: intervals, p-values, what is significant and important."""
    heads = heads_table(run.data, StatsSpec(resamples=2000))
    return replace(run, data=with_notes(run.data, heads), heads=heads)


def fake_t5(tmp_path: Path, n_prompts: int = 3, n_layers: Sequence[int] = (3, 2), n_heads: int = 4) -> FakeRun:
    """A complete run of an encoder-decoder: encoder and decoder layers as given, sources longer than what is written.

    ``cross.L1H2`` is the strongest helper by construction, ``encoder.L0H0`` hurts; layers a stack lacks are NaN.
    """
    rng, depth = np.random.default_rng(3), max(n_layers)
    written = [list(WORDS[:n]) for n in (4, 3, 5)[:n_prompts]]
    read = [[*WORDS[:n], "</s>"] for n in (8, 6, 7)[:n_prompts]]
    data = _prompt_variables(written)
    source = _prompt_variables(read).items()
    data |= {
        f"source_{name}": array
        for name, array in source
        if name in ("token", "token_id", "word", "word_text", "sentence", "special")
    }
    data = {
        name: array.rename({"position": "source_position"} if "source" in name else {}) for name, array in data.items()
    }
    own, length = data["length"].values, np.array([len(row) for row in read])
    data["source_length"] = xr.DataArray(length, dims="prompt")
    for name, (rows, columns), n, causal in (
        ("pattern", (own, own), n_layers[1], True),
        ("encoder_pattern", (length, length), n_layers[0], False),
        ("cross_pattern", (own, length), n_layers[1], False),
    ):
        data[name] = _stack_pattern(rng, name, rows, columns, n, depth, n_heads, causal)
    effect = rng.normal(0, 0.1, (1, n_prompts, 3, depth, n_heads))
    effect[:, :, 2, 1, 2] += 2
    effect[:, :, 0, 0, 0] -= 1
    effect[:, :, 1:, n_layers[1] :] = np.nan
    data["effect"] = xr.DataArray(effect, dims=("metric", "prompt", "stack", "layer", "head"))
    data["clean"] = xr.DataArray(np.full((1, n_prompts), 3.0), dims=("metric", "prompt"))
    stacks = ["encoder", "decoder", "cross"]
    coords = {"metric": ["loss"], "stack": stacks, "layer": range(depth), "head": range(n_heads)}
    dataset = xr.Dataset(data, coords=coords)
    manifest = _manifest(n_layers[1], n_heads)
    manifest["model"]["n_encoder_layers"] = n_layers[0]
    table = heads_table(dataset, StatsSpec(resamples=200))
    return FakeRun(Path(tmp_path), _spec(n_prompts, ["loss"]), manifest, dataset, table)


def _stack_pattern(
    rng: np.random.Generator,
    name: str,
    rows: np.ndarray,
    columns: np.ndarray,
    n_layers: int,
    depth: int,
    n_heads: int,
    causal: bool,
) -> xr.DataArray:
    """A pattern [prompt, layer, head, query, key] whose layers beyond its stack's are NaN."""
    weights = rng.gamma(0.3, size=(len(rows), depth, n_heads, max(rows), max(columns))) + 1e-3
    inside = (np.arange(max(rows)) < rows[:, None])[:, :, None] & (np.arange(max(columns)) < columns[:, None])[:, None]
    weights = np.where(inside[:, None, None], np.tril(weights) if causal else weights, 0)
    weights = weights / np.maximum(weights.sum(-1, keepdims=True), 1e-9)
    weights[:, n_layers:] = np.nan
    axes = {"pattern": ("query", "key"), "encoder_pattern": ("source_query", "source_key")}
    return xr.DataArray(weights, dims=("prompt", "layer", "head", *axes.get(name, ("query", "source_key"))))


def _prompt_variables(tokens: Sequence[Sequence[str]]) -> dict[str, xr.DataArray]:
    size, over = max(map(len, tokens)), ("prompt", "position")
    padded = np.array([[*row, *[""] * (size - len(row))] for row in tokens], dtype=object).astype(str)
    length = np.array([len(row) for row in tokens])
    position = np.arange(size)
    inside = position < length[:, None]
    return {
        "token": xr.DataArray(padded, dims=over),
        "token_id": xr.DataArray(np.where(inside, position + 100, -1), dims=over),
        "word": xr.DataArray(np.where(inside, position, -1), dims=over),
        "word_text": xr.DataArray(padded, dims=over),
        "sentence": xr.DataArray(np.where(inside, 0, -1), dims=over),
        "text": xr.DataArray(["".join(row) for row in tokens], dims="prompt"),
        "special": xr.DataArray(np.zeros_like(inside), dims=over),
        "target": xr.DataArray(position == length[:, None] - 1, dims=over),
        "length": xr.DataArray(length, dims="prompt"),
        "cluster": xr.DataArray([f"template {i % 4}" for i in range(len(tokens))], dims="prompt"),
        "answer": xr.DataArray([" Mary"] * len(tokens), dims="prompt"),
        "distractor": xr.DataArray([" John"] * len(tokens), dims="prompt"),
    }


def _pattern(rng: np.random.Generator, lengths: np.ndarray, n_layers: int, n_heads: int, causal: bool) -> xr.DataArray:
    size = max(lengths)
    weights = rng.gamma(0.3, size=(len(lengths), n_layers, n_heads, size, size)) + 1e-3
    weights[:, 1 % n_layers, 2 % n_heads, :, 1 % size] += 20  # the top head looks at the second token
    inside = np.arange(size) < np.asarray(lengths)[:, None]
    allowed = inside[:, None, None, :, None] & inside[:, None, None, None, :]
    weights = np.where(allowed, np.tril(weights) if causal else weights, 0)
    weights = weights / np.maximum(weights.sum(-1, keepdims=True), 1e-9)
    return xr.DataArray(weights.astype(np.float16), dims=("prompt", "layer", "head", "query", "key"))


def _effects(
    rng: np.random.Generator, metrics: Sequence[str], n_prompts: int, n_layers: int, n_heads: int
) -> dict[str, xr.DataArray]:
    clean = np.array([_clean(rng, metric, n_prompts) for metric in metrics])
    base = rng.normal(0, 0.1, (n_layers, n_heads))
    base[1 % n_layers, 2 % n_heads] = 2.0
    base[-1, -1] = -0.8
    effect = np.empty((len(metrics), n_prompts, n_layers, n_heads))
    for index, metric in enumerate(metrics):
        noise = rng.normal(0, 0.15, (n_prompts, n_layers, n_heads))
        effect[index] = (base + noise) * (1 if metric == "loss" else -1.3)
        if metric == "kl":
            effect[index] = np.abs(effect[index])
    over = ("metric", "prompt", "layer", "head")
    ablated = clean[:, :, None, None] + effect
    return {
        "clean": xr.DataArray(clean, dims=over[:2]),
        "ablated": xr.DataArray(ablated.astype(np.float32), dims=over),
        "effect": xr.DataArray(effect.astype(np.float32), dims=over),
    }


def _clean(rng: np.random.Generator, metric: str, n_prompts: int) -> np.ndarray:
    if metric == "kl":
        return np.zeros(n_prompts)
    return {"logit_diff": 5.0, "loss": 0.5}.get(metric, 0.8) + rng.normal(0, 0.1, n_prompts)


def _heads(data: xr.Dataset) -> pd.DataFrame:
    if "effect" not in data:
        return pd.DataFrame(columns=HEAD_COLUMNS)
    mean = data["effect"].mean("prompt").rename("effect_mean").to_dataframe().reset_index()
    mean["rank"] = mean.groupby("metric")["effect_mean"].transform(lambda e: e.abs().rank(ascending=False)).astype(int)
    table = mean.assign(n_prompts=data.sizes["prompt"], n_clusters=4, method="exact")
    return table.reindex(columns=HEAD_COLUMNS).sort_values(["metric", "rank"], ignore_index=True)


def _spec(n_prompts: int, metrics: Sequence[str]) -> dict:
    return {
        "model": {"name": "smollm2"},
        "prompts": {"name": "ioi", "n": n_prompts, "seed": 0},
        "ablation": {"name": "zero"},
        "metrics": list(metrics),
        "stats": {"min_effect": 0.05},
        "attribution": {"rollout": {"residual": 0.5, "head_fusion": "mean", "start_layer": 0, "discard_ratio": 0.0}},
        "show": {"prompts": [], "heads": [], "level": "token"},
    }


def _manifest(n_layers: int, n_heads: int) -> dict:
    return {
        "status": "complete",
        "commit": "0123abc",
        "dirty": False,
        "versions": {"harness": "0.1.0", "numpy": np.__version__},
        "model": {"name": "smollm2", "sha256": "ab" * 32, "dtype": "float32", "n_layers": n_layers, "n_heads": n_heads},
        "hf_difference": 0.0,
        "wall_time": 71.5,
    }
