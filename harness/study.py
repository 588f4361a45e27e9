"""A run from end to end: request, stages, arrays, tables, figures, report.

Everything that can be wrong with a request is found before its directory is made; ``status`` becomes ``complete``
last.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml

from harness import ablation, attribution, config, stats
from harness.attention import PatternStage
from harness.config import Place, RequestError, RunSpec
from harness.execute import Progress, Stage, run_stage
from harness.metrics import choose
from harness.models import Model, load_model
from harness.prompts import Prompts, load_prompts
from harness.results import manifest, open_run, store, tables
from harness.results.store import StageFolder
from harness.sweep import SweepStage, groups
from harness.views.draw import draw

#: Which parts each runner has.
PARTS = {
    "study": ("patterns", "sweep", "rollout"),
    "cache_attention": ("patterns", "rollout"),
    "ablate_heads": ("sweep",),
}


@dataclass
class Work:
    """A request that was found right: model, prompts and stages, ready to run."""

    runner: str
    spec: RunSpec
    model: Model
    prompts: Prompts
    stages: list[Stage]
    started: float = field(default_factory=time.time)
    #: The manifest that a resumed run has so far.
    before: Mapping[str, Any] | None = None
    #: What the sweep's arrays say of its checks, once they are there.
    checks: dict[str, Any] | None = None


def run(runner: str, spec: RunSpec, place: Place, progress: Progress) -> Path:
    """Run `runner` (see `PARTS`) and give its directory. Raises `RequestError` before anything is written."""
    started = time.time()
    check_names(spec)
    if place.resume:
        _check_resume(runner, spec, Path(place.resume))
    work = prepare(runner, spec)
    work.started = started
    folder = Path(place.resume) if place.resume else _new_folder(work, place)
    with store.locked(folder):
        if place.resume:
            _check_resume(runner, spec, folder)
            _check_same(work, folder)
            store.remove_parts(folder)
            work.before = manifest.read_manifest(folder) if manifest.begun(folder) else None
        else:
            store.check_empty(folder)
        _carry_out(work, folder, progress)
    return folder


def _carry_out(work: Work, folder: Path, progress: Progress) -> None:
    """From the spec to the status ``complete``, in a directory that is ours."""
    store.write_text(folder / "spec.yaml", yaml.safe_dump(plain(work.spec), sort_keys=False, allow_unicode=True))
    _write_manifest(work, folder, "running")
    try:
        _write_results(work, folder, progress)
    except BaseException as error:
        _write_manifest(work, folder, "failed", f"{type(error).__name__}: {error}".splitlines()[0])
        raise
    for stage in work.stages:
        StageFolder(folder / "stages" / stage.name).drop_units()
    _write_manifest(work, folder, "complete")


def check_names(spec: RunSpec) -> None:
    """What can be found wrong without a model: names of metrics."""
    from harness.metrics import METRICS

    for name in spec.metrics:
        if name not in (*METRICS, "auto"):
            raise RequestError("metrics", name, config.near(name, (*METRICS, "auto")))


def prepare(runner: str, spec: RunSpec) -> Work:
    """Load what the request names and check the one against the other."""
    model = load_model(spec.model)
    prompts = load_prompts(spec.prompts, model)
    parts, stages = PARTS[runner], list[Stage]()
    if "patterns" in parts:
        stages.append(PatternStage(model, prompts, spec.cache.dtype))
    if "sweep" in parts:
        stages.append(_sweep(spec, model, prompts))
    _check_late_parts(parts, spec, model, prompts)
    return Work(runner, spec, model, prompts, stages)


def _check_late_parts(parts: Sequence[str], spec: RunSpec, model: Model, prompts: Prompts) -> None:
    """What the sweep's end would refuse, asked now: statistics and rollout of next to nothing, and what to show."""
    if "sweep" in parts:
        asked = spec.stats
        stats.summarize(
            np.zeros((1, 1, 1)),
            confidence=asked.confidence,
            level=asked.level,
            resamples=asked.resamples,
            min_effect=asked.min_effect,
        )
    if "rollout" in parts:
        attribution.rollout(np.ones((model.shape.n_layers, 1, 1, 1)), **asdict(spec.attribution.rollout))
    for number in spec.show.prompts:
        if not 0 <= number < len(prompts):
            raise RequestError("show.prompts", number, f"the run has prompts 0-{len(prompts) - 1}")
    if spec.show.heads:
        try:
            model.heads(list(spec.show.heads))
        except RequestError as error:
            raise RequestError("show.heads", error.value, error.remedy) from None


def _sweep(spec: RunSpec, model: Model, prompts: Prompts) -> SweepStage:
    made, positions = ablation.build(spec.ablation, model, prompts)
    return SweepStage(
        model,
        prompts,
        groups(model, list(spec.heads), spec.sweep.kind, spec.sweep.sets),
        choose(spec.metrics, prompts),
        made,
        positions,
        kind=spec.sweep.kind,
        memory=spec.sweep.memory,
    )


def plain(spec: RunSpec) -> dict[str, Any]:
    """The spec as YAML holds it."""

    def bare(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: bare(item) for key, item in value.items()}
        return [bare(item) for item in value] if isinstance(value, tuple | list) else value

    return bare(asdict(spec))


def saved_spec(folder: Path) -> RunSpec:
    """The spec that a run directory was made from."""
    try:
        return config.parse(RunSpec, yaml.safe_load((folder / "spec.yaml").read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise RequestError("resume", folder, "there is no run here: it has no spec.yaml") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RequestError("resume", folder, f"its spec.yaml is damaged ({error})") from None


# --- the directory ----------------------------------------------------------------------------------------------


def _new_folder(work: Work, place: Place) -> Path:
    """``run``, if it is empty, or ``store/runner/date-time-hash``; a second run within a second gets a number."""
    if place.run:
        return store.make_folder(Path(place.run))
    stamp = datetime.fromtimestamp(work.started, UTC).strftime("%Y%m%d-%H%M%S")
    name = Path(place.store) / work.runner / f"{stamp}-{config.spec_hash(work.runner, work.spec)}"
    candidate, taken = name, 0
    while not store.make_new_folder(candidate):
        taken += 1
        candidate = name.with_name(f"{name.name}-{taken}")
    return candidate


def _check_resume(runner: str, spec: RunSpec, folder: Path) -> None:
    if not folder.is_dir():
        raise RequestError("resume", folder, "there is no such directory")
    differing = _differences(_decisive(plain(saved_spec(folder))), _decisive(plain(spec)))
    if differing:
        raise RequestError("resume", folder, f"this run was started with another {', '.join(differing)}")
    if not manifest.begun(folder):
        return
    record = manifest.read_manifest(folder)
    if record["status"] == "complete":
        raise RequestError("resume", folder, "this run is complete; draw it again with experiments.render run=DIR")
    if record["runner"] != runner:
        raise RequestError("resume", folder, f"this is a run of {record['runner']}, not of {runner}")


def _decisive(values: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a plain spec that decides numbers: what `config.spec_hash` is of."""
    kept = {key: value for key, value in values.items() if key not in config.NOT_IN_HASH}
    kept["sweep"] = {key: value for key, value in values["sweep"].items() if key != "memory"}
    return kept


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(prefix + key)
    return found


def _check_same(work: Work, folder: Path) -> None:
    """A resumed run goes on with the weights and prompts it was begun with."""
    if not manifest.begun(folder):
        return
    old = manifest.read_manifest(folder)
    if old["model"]["weights"] != work.model.identity["weights"]:
        raise RequestError("resume", folder, "the model's weights are no longer those of this run; start a new one")
    if old["prompts_sha256"] != work.prompts.sha256:
        raise RequestError("resume", folder, "the prompts are no longer those of this run; start a new one")


def _write_results(work: Work, folder: Path, progress: Progress) -> None:
    parts = [work.prompts.dataset()]
    for stage in work.stages:
        parts.append(run_stage(stage, StageFolder(folder / "stages" / stage.name), progress))
        _write_manifest(work, folder, "running")  # a process that is killed leaves the time it has taken so far
    data = xr.merge(parts, join="exact", compat="no_conflicts", combine_attrs="drop_conflicts")
    work.checks = _checks_of(data)
    if "rollout" in PARTS[work.runner]:
        data["rollout"] = _rollout(data["pattern"], work.spec)
    store.write_data(folder, data)
    if "effect" in data:
        tables.write_heads(folder, tables.heads_table(data, work.spec.stats))
    _write_manifest(work, folder, "running")
    draw(open_run(folder, incomplete=True))


def _rollout(pattern: xr.DataArray, spec: RunSpec) -> xr.DataArray:
    options = asdict(spec.attribution.rollout)
    rolled = np.stack([attribution.rollout(one.values, **options) for one in pattern])
    note = {"units": "share of attention", "method": f"attention rollout {options}"}
    return xr.DataArray(rolled.astype(np.float32), dims=("prompt", "query", "key"), attrs=note)


def _checks_of(data: xr.Dataset) -> dict[str, Any] | None:
    """What the arrays say of all units' checks, those of an earlier process too."""
    found = [array.attrs for array in data.data_vars.values() if "edits_verified" in array.attrs]
    if not found:
        return None
    return {
        "edits_verified": sum(int(each["edits_verified"]) for each in found),
        "plain_forward_difference": max(float(each["plain_forward_difference"]) for each in found),
    }


def _checks_so_far(work: Work) -> dict[str, Any] | None:
    """What this process has checked."""
    sweeps = [stage for stage in work.stages if isinstance(stage, SweepStage)]
    if not sweeps:
        return None
    off = max((off for stage in sweeps for off in stage.check.spot_checks), default=None)
    return {"edits_verified": sum(stage.check.fired for stage in sweeps), "plain_forward_difference": off}


def _write_manifest(work: Work, folder: Path, status: str, error: str | None = None) -> None:
    import torch

    model, before = work.model, work.before or {}
    started = datetime.fromtimestamp(work.started, UTC).isoformat(timespec="seconds")
    manifest.write_manifest(
        folder,
        {
            "status": status,
            "runner": work.runner,
            "hash": config.spec_hash(work.runner, work.spec),
            "started": before.get("started") or started,
            **manifest.environment(),
            "threads": torch.get_num_threads(),
            "device": model.device,
            "dtype": model.spec.dtype,
            "model": {"name": model.name, "source": model.spec.source, **asdict(model.shape), **model.identity},
            "prompts_sha256": work.prompts.sha256,
            "bos_first": int((work.prompts.token_id[:, 0] == model.tokens.bos_id).sum()),
            "seed": work.spec.seed,
            "intervention_check": work.checks or _checks_so_far(work),
            "wall_seconds": round((before.get("wall_seconds") or 0) + time.time() - work.started, 1),
            "peak_memory_gb": manifest.peak_memory_gb(),
            "files": store.digests(folder) if status == "complete" else {},
            "error": error,
        },
    )
