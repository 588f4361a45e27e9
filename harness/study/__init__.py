"""A run from end to end: request, stages, arrays, tables, figures, report.

`request` finds a request right before its directory is made, `forecast` says what it will cost, `folder` finds that
directory, `record` writes what is known of the run as it goes on; ``status`` becomes ``complete`` last.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import xarray as xr
import yaml

from harness import attribution, faithfulness, trace
from harness.config import Place as Place
from harness.config import RunSpec
from harness.execute import Progress, run_stage
from harness.faithfulness.heads import with_top_head
from harness.results import manifest, open_run, store, tables
from harness.results.store import StageFolder
from harness.study.folder import check_resume, check_same, new_folder, plain
from harness.study.folder import saved_spec as saved_spec
from harness.study.forecast import forecast
from harness.study.record import checks_of, write_manifest
from harness.study.request import Work, check_names
from harness.study.request import prepare as prepare
from harness.views.draw import draw


def run(
    runner: str, spec: RunSpec, place: Place, progress: Progress, say: Callable[[str], None] = lambda _: None
) -> Path | None:
    """Run `runner` (see `harness.study.request.PARTS`) and give its directory; `None` if it was to be a dry run.

    `say` is told what the run will cost before it begins. Raises `RequestError` before anything is written.
    """
    started = time.time()
    check_names(runner, spec)
    if place.resume:
        check_resume(runner, spec, Path(place.resume))
    work = prepare(runner, spec)
    work.started = started
    cost = forecast(work, place)
    folder = None if place.dry_run else Path(place.resume) if place.resume else new_folder(work, place)
    for line in cost:
        say(line)
    if folder is None:
        return None
    with store.locked(folder):
        if place.resume:
            check_resume(runner, spec, folder)
            check_same(work, folder)
            store.remove_parts(folder)
            work.before = manifest.read_manifest(folder) if manifest.begun(folder) else None
        else:
            store.check_empty(folder)
        _carry_out(work, folder, progress)
    return folder


def _carry_out(work: Work, folder: Path, progress: Progress) -> None:
    """From the spec to the status ``complete``, in a directory that is ours."""
    store.write_text(folder / "spec.yaml", yaml.safe_dump(plain(work.spec), sort_keys=False, allow_unicode=True))
    write_manifest(work, folder, "running")
    try:
        _write_results(work, folder, progress)
    except BaseException as error:
        write_manifest(work, folder, "failed", f"{type(error).__name__}: {error}".splitlines()[0])
        raise
    for stage in work.stages:
        StageFolder(folder / "stages" / stage.name).drop_units()
    write_manifest(work, folder, "complete")


def _write_results(work: Work, folder: Path, progress: Progress) -> None:
    data = work.prompts.dataset()
    for stage in work.stages:
        found = run_stage(stage, StageFolder(folder / "stages" / stage.name), progress, data)
        data = xr.merge([data, found], join="exact", compat="no_conflicts", combine_attrs="drop_conflicts")
        write_manifest(work, folder, "running")  # a process that is killed leaves the time it has taken so far
    work.checks = checks_of(data)
    if work.has_rollout:
        data["rollout"] = _rollout(data["pattern"], work.spec)
    if "attribution" in data:
        data = _with_agreement(data, work.spec)
    store.write_data(folder, data)
    if {"effect", "role_given"} & set(data):
        tables.write(folder, "heads", tables.heads_table(data, work.spec.stats))
    if "attribution" in data:
        _write_methods(data, work, folder)
    if "part_cause" in data:
        tables.write(folder, "parts", trace.parts_table(data, work.spec.stats))
    if "part_head_cause" in data:
        tables.write(folder, "part_heads", trace.parts_heads_table(data, work.spec.stats))
    write_manifest(work, folder, "running")
    draw(open_run(folder, incomplete=True))


def _rollout(pattern: xr.DataArray, spec: RunSpec) -> xr.DataArray:
    options = asdict(spec.attribution.rollout)
    rolled = np.stack([attribution.rollout(one.values, **options) for one in pattern])
    note = {"units": "share of attention", "method": f"attention rollout {options}"}
    return xr.DataArray(rolled.astype(np.float32), dims=("prompt", "query", "key"), attrs=note)


def _with_agreement(data: xr.Dataset, spec: RunSpec) -> xr.Dataset:
    """The arrays with the head that matters most beside the methods, and each method's agreement with each cause."""
    wider = with_top_head(data)
    return wider.assign(agreement=faithfulness.agreement(wider, spec.attribution.top))


def _write_methods(data: xr.Dataset, work: Work, folder: Path) -> None:
    """What is claimed of the methods, and (where they are what is asked) of each two of them."""
    asked = (data, work.spec.attribution, work.spec.stats)
    tables.write(folder, "methods", faithfulness.methods_table(*asked))
    if work.runner == "compare_attributions":
        tables.write(folder, "method_pairs", faithfulness.pairs_table(*asked))
