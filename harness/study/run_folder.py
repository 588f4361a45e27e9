"""Directories of runs: make a new one, or check the one to resume against the request."""

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass, replace
from datetime import UTC, datetime
from typing import Any

import yaml

from harness import config
from harness.config import Place, RequestError, RunSpec, SweepSpec
from harness.results import manifest, store
from harness.results.objects import Folder, folder_at
from harness.study.request import Request

#: Keys of the environment that decide the numbers.
_CODE = ("code", "packages", "python")


def plain(spec: Any) -> Any:
    """Return a spec, or a mapping of specs and values, as plain values for YAML."""
    if is_dataclass(spec) and not isinstance(spec, type):
        return plain(asdict(spec))
    if isinstance(spec, Mapping):
        return {key: plain(item) for key, item in spec.items()}
    return [plain(item) for item in spec] if isinstance(spec, tuple | list) else spec


def saved_spec(folder: Folder, key: str = "resume") -> RunSpec:
    """Read the spec of a run directory. Raises `RequestError` where there is none or it is damaged."""
    try:
        values = yaml.safe_load((folder / "spec.yaml").read_text(encoding="utf-8"))
        if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
            raise ValueError("it holds no settings")
    except (FileNotFoundError, NotADirectoryError):
        raise RequestError(key, folder, "there is no run here: it has no spec.yaml") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RequestError(key, folder, f"its spec.yaml is damaged ({error})") from None
    try:
        return config.parse(RunSpec, values)
    except RequestError as error:
        raise RequestError(key, folder, f"its spec.yaml cannot be run ({error})") from None


def new_folder(work: Request, place: Place) -> Folder:
    """Make ``run``, if it is empty, or ``store/runner/date-time-hash``; a second run within a second gets a number."""
    if place.run:
        return store.make_folder(folder_at(place.run))
    stamp = datetime.fromtimestamp(work.started, UTC).strftime("%Y%m%d-%H%M%S")
    name = folder_at(place.store) / work.runner / f"{stamp}-{config.spec_hash(work.runner, work.spec)}"
    candidate, taken = name, 0
    while not store.make_new_folder(candidate):
        taken += 1
        candidate = name.with_name(f"{name.name}-{taken}")
    return candidate


def as_begun(spec: RunSpec, folder: Folder) -> RunSpec:
    """Return the spec with the method that a run was begun with, where the request says ``auto``: a forecast of a
    busier machine may choose another."""
    if spec.sweep.method != "auto" or not folder.is_dir():
        return spec
    return replace(spec, sweep=replace(spec.sweep, method=saved_spec(folder).sweep.method, minutes=SweepSpec.minutes))


def check_resume(runner: str, spec: RunSpec, folder: Folder) -> None:
    """Raise `RequestError` for a run that is complete, of another runner, or of another spec."""
    if is_complete(runner, spec, folder):
        raise RequestError("resume", folder, "this run is complete; draw it again with experiments.render run=DIR")


def is_complete(runner: str, spec: RunSpec, folder: Folder) -> bool:
    """Whether the run in a directory is complete. Raises `RequestError` where it is not a run of this spec."""
    if not folder.is_dir():
        raise RequestError("resume", folder, "there is no such directory")
    differing = differences(_decisive(plain(saved_spec(folder))), _decisive(plain(spec)))
    if differing:
        raise RequestError("resume", folder, f"this run was started with another {', '.join(differing)}")
    if not manifest.begun(folder):
        return False
    record = manifest.read_manifest(folder)
    if record["runner"] != runner:
        raise RequestError("resume", folder, f"this is a run of {record['runner']}, not of {runner}")
    if record["status"] == "complete":
        return True
    if record["hash"] != config.spec_hash(runner, spec):
        raise RequestError("resume", folder, "its spec.yaml is not what the run was started with; start a new one")
    return False


def _decisive(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a plain spec that decides numbers, as in `config.spec_hash`."""
    kept = {key: value for key, value in values.items() if key not in config.NOT_IN_HASH}
    kept["sweep"] = {key: value for key, value in values["sweep"].items() if key not in config.OF_SPEED}
    return kept


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted keys whose values differ."""
    differing = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            differing += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            differing.append(prefix + key)
    return differing


def check_same(work: Request, folder: Folder) -> None:
    """Raise `RequestError` unless weights, prompts, code and packages are those the run was begun with."""
    if not manifest.begun(folder):
        return
    old = manifest.read_manifest(folder)
    if old["model"]["weights"] != work.model.identity["weights"]:
        raise RequestError("resume", folder, "the model's weights are no longer those of this run; start a new one")
    its = work.other and work.other.model.identity["weights"]
    if its and old["model"]["other"]["weights"] != its:
        raise RequestError(
            "resume", folder, "the other model's weights are no longer those of this run; start a new one"
        )
    if old["prompts_sha256"] != work.prompts.sha256:
        raise RequestError("resume", folder, "the prompts are no longer those of this run; start a new one")
    now = manifest.environment()
    before = {key: old[key] for key in _CODE}
    if differing := differences(before, {key: now[key] for key in _CODE}):
        changes = ", ".join(f"{key} ({_at(before, key)} → {_at(now, key)})" for key in differing)
        raise RequestError(
            "resume", folder, f"this run was begun with other code: {changes}; go back to it, or start anew"
        )


def _at(values: Mapping[str, Any], key: str) -> str:
    """Return the value of a dotted key, cut to 12 characters."""
    for part in key.split(".", 1):
        values = values.get(part) if isinstance(values, Mapping) else None  # pyright: ignore[reportAssignmentType]
    return str(values)[:12]
