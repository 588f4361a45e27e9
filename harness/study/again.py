"""A saved run with other settings: its spec with overrides, as a new run that names its parent."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness import config
from harness.config import RequestError, RunSpec, near
from harness.results import manifest
from harness.results.objects import Folder
from harness.results.settings import flat, read_settings

#: Sections that are chosen by name from a folder of ``conf``.
GROUPS = ("model", "prompts", "ablation", "execute")


@dataclass(frozen=True)
class Again:
    """What is run: the saved run's runner, its settings with the changes, and the keys that changed (old → new)."""

    runner: str
    settings: Mapping[str, Any]
    changed: Mapping[str, tuple[str, str]]


def with_changes(folder: Folder, changes: Mapping[str, Any], folders: Sequence[Path] = ()) -> Again:
    """Return the settings of a saved run with changes: a name for a section of `GROUPS` (``{"ablation": "mean"}``, from
    `folders` of configs or ours), values by key, at any depth, and a ``seed``, which goes to every key that had the old
    one.

    Raises `RequestError` for a directory that is no run, an unknown name, and where nothing changes.
    """
    runner, saved = _saved(folder)
    values = {key: _copied(value) for key, value in saved.items()}
    seeded = dict(_seeds(saved, "")) if "seed" in changes else {}
    for path in (path for path, seed in seeded.items() if seed == saved.get("seed")):
        _set(values, path, changes["seed"])
    for key, change in changes.items():
        values[key] = _changed(key, values.get(key), change, values, folders)
    before, after = dict(flat(saved)), dict(flat(values))
    keys = sorted({*before, *after})
    changed = {key: (before.get(key, "—"), after.get(key, "—")) for key in keys if before.get(key) != after.get(key)}
    if not changed:
        remedy = "nothing changes: add a key, such as ablation=mean; reproduce runs it as it was"
        raise RequestError("run", folder, remedy)
    return Again(runner, values, changed)


def _saved(folder: Folder) -> tuple[str, dict[str, Any]]:
    if not folder.is_dir():
        raise RequestError("run", folder, "there is no such directory")
    record = manifest.read_manifest(folder)
    values = read_settings(folder)
    config.parse(RunSpec, values)  # or what is wrong with the saved settings would seem to be the changes'
    return str(record["runner"]), values


def _changed(key: str, old: Any, change: Any, values: Mapping[str, Any], folders: Sequence[Path]) -> Any:
    """Return one section or value with a change."""
    if key in GROUPS and isinstance(change, str):
        return _named(key, change, values, folders)
    if isinstance(change, Mapping) and isinstance(old, Mapping):
        name = change.get("name")
        if key in GROUPS and isinstance(name, str) and name != old.get("name"):
            old = _named(key, name, values, folders)
        return _merged(old, change)
    return change


def _named(group: str, name: str, values: Mapping[str, Any], folders: Sequence[Path]) -> dict[str, Any]:
    """Load a section from ``conf/<group>/<name>.yaml``; what follows the run's seed there gets the run's seed."""
    places = [Path(folder) / group for folder in (*folders, config.conf_dir())]
    names = sorted({path.stem for place in places for path in place.glob("*.yaml")})
    for place in places:
        if (path := place / f"{name}.yaml").is_file():
            loaded = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            return {key: values.get("seed", 0) if value == "${seed}" else value for key, value in loaded.items()}
    raise RequestError(group, name, near(name, names))


def _merged(old: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(old)
    for key, value in change.items():
        inner = made.get(key)
        if isinstance(value, Mapping) and isinstance(inner, Mapping):
            value = _merged(inner, value)
        made[key] = value
    return made


def _seeds(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of all seeds but the run's and the model's own, which is its weights."""
    for key, value in values.items():
        if isinstance(value, Mapping) and key != "model":
            yield from _seeds(value, f"{prefix}{key}.")
        elif key == "seed" and prefix:
            yield f"{prefix}{key}", value


def _set(values: dict[str, Any], path: str, value: Any) -> None:
    *sections, last = path.split(".")
    for section in sections:
        values = values[section]
    values[last] = value


def _copied(value: Any) -> Any:
    return {key: _copied(item) for key, item in value.items()} if isinstance(value, Mapping) else value
