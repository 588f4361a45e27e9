"""Run a request from end to end: stages, arrays, tables, figures, report.

`request` checks a request before its directory is made, `forecast` estimates its cost, `run_folder` makes or resumes
the directory, `record` writes the manifest, whose ``status`` becomes ``complete`` last.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import xarray as xr
import yaml

from harness.compare.stage import rename_other
from harness.config import Place as Place
from harness.config import RequestError, RunSpec
from harness.execute import Chain, Progress, Stage, UnitsLost, close, pool_of, run_stage
from harness.execute.kept_memory import keep_memory, memory_kept
from harness.results import manifest, store
from harness.results.objects import Folder, folder_at
from harness.results.store import StageFolder
from harness.study.forecast import forecast
from harness.study.record import checks_of, draw_closed, write_closed, write_manifest
from harness.study.request import Request
from harness.study.request import prepare as prepare
from harness.study.run_folder import as_begun, check_resume, check_same, differences, new_folder, plain
from harness.study.run_folder import is_complete as is_complete
from harness.study.run_folder import saved_spec as saved_spec
from harness.sweep import merge

Say = Callable[[str], None]


class Interrupted(KeyboardInterrupt):
    """An interrupt after a run's directory was begun; the keys and values of `settings` continue the run."""

    def __init__(self, folder: Folder, **settings: str):
        self.settings = {**settings, "resume": str(folder)}
        super().__init__(self.settings)


def run(
    runner: str,
    spec: RunSpec,
    place: Place,
    progress: Progress,
    say: Say = lambda _: None,
    parent: str | None = None,
) -> Folder | None:
    """Run `runner` (see `harness.study.request.PARTS`) and return its directory; ``None`` for a dry run.

    `say` is called with each line of the cost forecast before the run; `parent` is the directory of the saved run whose
    settings were changed, for the manifest. Raises `RequestError` before anything is
    written.
    """
    started = time.time()
    if place.resume:
        spec = as_begun(spec, folder_at(place.resume))
        check_resume(runner, spec, folder_at(place.resume))
    work = prepare(runner, spec)
    work.started, work.parent = started, parent
    cost = forecast(work, place)
    folder = None if place.dry_run else folder_at(place.resume) if place.resume else new_folder(work, place)
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
            store.remove_parts(folder)
        _carry_out(work, folder, progress, say)
    return folder


def _carry_out(work: Request, folder: Folder, progress: Progress, say: Say) -> None:
    """Run all stages in a locked directory, up to the status ``complete``."""
    store.write_text(folder / "spec.yaml", yaml.safe_dump(plain(work.spec), sort_keys=False, allow_unicode=True))
    write_manifest(work, folder, "running")
    try:
        _write_results(work, folder, _computed(work, folder, progress, say))
    except BaseException as error:
        write_manifest(work, folder, "failed", f"{type(error).__name__}: {error}".splitlines()[0])
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(folder) from None
        raise
    for stage in work.stages:
        StageFolder(folder / "stages" / stage.name).drop_units()
    write_manifest(work, folder, "complete")


def _computed(work: Request, folder: Folder, progress: Progress, say: Say) -> xr.Dataset:
    """Return the arrays of the prompts and of all stages. Raises `UnitsLost` once all that can be computed is done."""
    data, lost = _prompt_arrays(work), list[UnitsLost]()
    build = partial(_built, work.runner, work.spec, _identity(work))
    execute = work.spec.execute
    with memory_kept(execute.keep_memory), pool_of(execute, build, folder.absolute()) as pool:
        for stage in work.stages:
            try:
                arrays = run_stage(stage, StageFolder(folder / "stages" / stage.name), progress, data, pool, say)
            except UnitsLost as error:
                lost.append(error)
                continue
            except Exception:
                if not lost:
                    raise
                continue  # it failed for lack of the lost stage
            data = merge(data, arrays)
            write_manifest(work, folder, "running")  # so that a killed process leaves its time so far
    if lost:
        raise lost[0]
    return data


def _built(runner: str, spec: RunSpec, identity: Mapping[str, Any]) -> Sequence[Stage | Chain]:
    """Build the stages in a worker. Raises `RequestError` where its model or prompts differ from the run's."""
    if spec.execute.keep_memory:
        keep_memory()  # for good: the worker does nothing else
    work = prepare(runner, spec)
    if differing := differences(identity, _identity(work)):
        raise RequestError("execute", spec.execute.name, f"a worker finds another {', '.join(differing)} than this run")
    return work.stages


def _identity(work: Request) -> dict[str, Any]:
    """Return what must be equal wherever a unit of this run is computed."""
    return {"weights": work.model.identity["weights"], "prompts": work.prompts.sha256}


def _write_results(work: Request, folder: Folder, data: xr.Dataset) -> None:
    """Write arrays, tables and views from the stages' arrays."""
    work.checks = checks_of(data)
    write_closed(folder, close(data, work.closings))
    write_manifest(work, folder, "running")
    draw_closed(folder)


def _prompt_arrays(work: Request) -> xr.Dataset:
    """Return the prompts' arrays, with the other model's where its tokens differ."""
    data, other = work.prompts.dataset(), work.other
    if other is None or other.how.same_tokens:
        return data
    return data.merge(rename_other(other.prompts.dataset().drop_dims("tag", errors="ignore"), other.how))
