"""Run many jobs (``-m``): check all before the first, name what is wrong, run the others, and end with a table.

With ``resume=STORE`` a job whose run is complete in that store is not done twice, and an unfinished one goes on.
"""

import json
import re
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import config
from harness.command.checks import Request, checked, describe_repeat
from harness.command.composition import Composer, key_of, setting
from harness.command.launch import guarded, show
from harness.command.terminal import tell
from harness.config import Place

if TYPE_CHECKING:
    from harness.results.objects import Folder

#: How a job ended, by its exit code.
_STATUS = {0: "complete", 1: "failed", 2: "refused", 130: "interrupted"}


@dataclass
class Job:
    """A job of a multirun: its number and settings, those that are swept as a title, its request where that is right,
    and how it ended."""

    number: int
    settings: tuple[str, ...]
    title: str
    request: Request | None = None
    code: int | None = None
    seconds: float = 0.0
    path: str = ""
    status: str = "not started"

    @property
    def name(self) -> str:
        """The job in a message."""
        return f"job #{self.number} ({self.title}): "


def run_jobs(runner: str, composer: Composer, program: str) -> int:
    """Run the jobs of a multirun, and return the highest exit code of all. An interrupt ends it."""
    jobs, swept = [], composer.swept()
    for number, settings in enumerate(composer.jobs()):
        own = [text.lstrip("+") for text in settings if key_of(text) in swept]
        jobs.append(Job(number, settings, " ".join(own or settings)))
    for job in jobs:
        _check(runner, composer, program, job)
        if job.code == 130:
            return 130
    _tell_repeats(jobs)
    if any(job.request for job in jobs):
        _run_by_plugin(runner, composer, program, jobs) if composer.plugin() else _run_here(program, jobs)
        _tell_table(jobs)
        _collect(jobs)
        if _is_unfinished(jobs):
            tell(f"to go on: {_going_on(composer, program)}")
    return max(job.code or 0 for job in jobs)


def _collect(jobs: Sequence[Job]) -> None:
    """Set the runs of the jobs side by side, where at least two ablated single heads in a store on disk."""
    stores = [job.request.where for job in jobs if job.request and job.request.where and job.path]
    folders = [job.path for job in jobs if job.path and (Path(job.path) / "heads.csv").is_file()]
    if len(folders) < 2 or not stores or any(job.code for job in jobs if job.path):
        return
    from harness.command.actions import collect

    def act() -> None:
        where = stores[0]
        page = collect(config.CollectSpec(runs=tuple(folders), store=where.resume or where.store)) / "report.html"
        tell(f"side by side: {page}")

    guarded(act, "", "side by side: ")


def _check(runner: str, composer: Composer, program: str, job: Job) -> None:
    """Compose and check a job; print what is wrong with it."""

    def check() -> None:
        job.request = checked(runner, composer.values(job.settings), composer.named())

    job.code = guarded(check, program, job.name) or None
    if job.code:
        job.status = _STATUS[job.code]


def _tell_repeats(jobs: Sequence[Job]) -> None:
    """Name each job that has the settings of an earlier one but for seeds that nothing reads."""
    right = [job for job in jobs if job.request]
    for at, job in enumerate(right):
        for before in right[:at]:
            differing = " and ".join(_differing(job, before))
            if repeat := describe_repeat(_request(job), _request(before), differing):
                tell(f"job #{job.number} {repeat.format(f'job #{before.number}')}")
                break


def _request(job: Job) -> Request:
    assert job.request is not None
    return job.request


def _differing(job: Job, before: Job) -> list[str]:
    """Return the keys of the command line whose values differ."""
    return [key_of(mine) for mine, its in zip(job.settings, before.settings, strict=True) if mine != its]


def _run_here(program: str, jobs: Sequence[Job]) -> None:
    """Run the jobs one after the other in this process."""
    for job in jobs:
        if job.request is None:
            continue
        tell(f"job #{job.number} of {len(jobs)}: {job.title}")
        _run(program, job)
        if job.code == 130:
            return


def _run(program: str, job: Job) -> None:
    """Run a job and note how it ended. An error of any kind is printed and ends this job only."""
    started = time.monotonic()

    def act() -> None:
        request = _request(job)
        where = request.where
        if where and where.resume:
            earlier, complete = _earlier(request, where.resume)
            if complete:
                job.path, job.status = str(earlier), "was complete"
                show(earlier)
                return
            where = replace(where, store=where.resume, resume=str(earlier) if earlier else None)
        path = request.act(where)
        job.path = "" if path is None else str(path)
        show(path)

    try:
        job.code = guarded(act, program, job.name)
    except SystemExit as stop:
        job.code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception as error:
        traceback.print_exc()
        tell(f"{job.name}{type(error).__name__}: {error}".splitlines()[0])
        job.code = 1
    job.seconds = time.monotonic() - started
    if job.status == "not started":
        job.status = _STATUS.get(job.code, "failed")


def _earlier(request: Request, place: str) -> "tuple[Folder | None, bool]":
    """Return the latest run in a store with a request's settings, code and packages, and whether it is complete; a
    complete one before one that is not."""
    from harness.results import manifest
    from harness.results.objects import folder_at

    root = folder_at(place) / request.name
    if not root.is_dir():
        return None, False
    name = re.compile(rf"\d{{8}}-\d{{6}}-{config.spec_hash(request.name, request.spec)}(-\d+)?")
    now, unfinished = manifest.environment(), None
    for folder in sorted(root.iterdir(), key=lambda each: each.name, reverse=True):
        if not name.fullmatch(folder.name):
            continue
        try:
            record = manifest.read_manifest(folder)
        except config.RequestError:  # damaged, or of another version
            continue
        if any(record[key] != now[key] for key in ("code", "packages", "python")):
            continue
        if record["status"] == "complete":
            return folder, True
        unfinished = unfinished or folder
    return unfinished, False


def _run_by_plugin(runner: str, composer: Composer, program: str, jobs: list[Job]) -> None:
    """Start the jobs by a plugin of Hydra's, which leaves a record of each in a folder."""
    if wrong := [job for job in jobs if job.request is None]:
        tell(f"nothing was started: a launcher of Hydra's starts all jobs or none, and job #{wrong[0].number} is wrong")
        return
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder)

        def task(values: dict[str, Any], number: int, settings: tuple[str, ...]) -> None:
            title = jobs[number].title if number < len(jobs) else " ".join(settings)
            job = Job(number, settings, title, checked(runner, values, composer.named()))
            _run(program, job)
            if records.is_dir() and job.code != 130:  # else on another machine
                text = json.dumps(asdict(replace(job, request=None)))
                (records / f"{number}.json").write_text(text, encoding="utf-8")
            elif job.code:
                sys.exit(job.code)

        composer.through_hydra(task, folder)
        for path in records.glob("*.json"):
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["number"] < len(jobs):
                jobs[record["number"]] = Job(**{**record, "settings": tuple(record["settings"])})


def _tell_table(jobs: Sequence[Job]) -> None:
    """Print a line per job: number, settings, status, seconds, run directory."""
    rows = [("job", "settings", "status", "seconds", "run")]
    rows += [(f"#{job.number}", job.title, job.status, f"{job.seconds:.1f}", job.path) for job in jobs]
    wide = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        tell("  ".join(f"{cell:{width}}" for cell, width in zip(row, wide, strict=True)).rstrip())


def _is_unfinished(jobs: Sequence[Job]) -> bool:
    """Whether some run was not finished that could go on."""
    runs = [job for job in jobs if job.request is None or job.request.where is not None]
    return any(job.status in ("interrupted", "not started", "failed") for job in runs)


def _going_on(composer: Composer, program: str) -> str:
    """Return the command line of the multirun that leaves out what is complete and goes on with the rest."""
    values = {key_of(text): text.partition("=")[2] for text in composer.arguments.settings}
    store = values.get("resume") or values.get("store") or Place().store
    kept = [text for text in composer.arguments.settings if key_of(text) not in ("store", "resume")]
    going_on = f"resume={store}" if "resume" in values or "store" in values else setting("resume", store)
    return f"{program} {shlex.join([*composer.arguments.written, *kept, going_on])}"
