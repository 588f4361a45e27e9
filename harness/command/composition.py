"""Compose configs: the only file that uses Hydra.

Overrides reach Hydra as plain settings, so that only the typed specs in `harness.config` judge keys and values. What
Hydra refuses becomes a one-line `RequestError`.
"""

import importlib.resources
import itertools
import json
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast, get_type_hints

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness import config
from harness.command.arguments import Arguments
from harness.config import RequestError

#: Errors of Hydra and its YAML readers.
CONFIG_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError)
#: Hydra writes nothing of its own: no log, no folder.
_QUIET = (
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
    "hydra.output_subdir=null",
    "hydra.run.dir=.",
    "hydra.sweep.subdir=.",
    "hydra.job.chdir=false",
)


@dataclass(frozen=True)
class Composer:
    """A command line to be composed: the primary config's name, the settings, and the folders of configs in Hydra's
    order (the main one, ``--config-dir``, ``hydra.searchpath``)."""

    name: str
    arguments: Arguments
    folders: tuple[Path, ...]

    @classmethod
    def of(cls, runner: str, arguments: Arguments) -> "Composer":
        """Return the composer of a runner's command line. Raises `RequestError` for a folder that is missing."""
        name = arguments.flags["config_name"] or runner
        main, more = arguments.flags["config_path"], arguments.flags["config_dir"]
        folders = [config.conf_dir().resolve() if main is None else _folder("--config-path", main)]
        if more is not None:
            folders.append(_folder("--config-dir", more))
        own = (_folder("hydra.searchpath", place) for place in _search_path(name, arguments.settings, folders))
        return cls(name, arguments, (*folders, *own))

    def values(self, settings: Sequence[str] | None = None) -> dict[str, Any]:
        """Return the plain values of the config with these settings (default: those of the command line)."""
        chosen = self.arguments.settings if settings is None else settings
        return _plain(_compose(self.name, self.as_settings(chosen), self.folders), self.folders)

    def as_settings(self, settings: Sequence[str]) -> list[str]:
        """Rewrite settings so that Hydra accepts any key; check choices of groups against their options."""
        keys, groups = self._known
        return [made for text in settings for made in _as_setting(text, keys, groups, self.folders)]

    @cached_property
    def _known(self) -> tuple[list[str], list[str]]:
        return _keys(self.name, self.folders)

    def jobs(self) -> list[tuple[str, ...]]:
        """Return the settings of each job of a multirun: the product of all sweeps, in Hydra's order."""
        choices = [_swept(text, self._known[1]) for text in self.arguments.settings]
        return [tuple(job) for job in itertools.product(*choices)]

    def swept(self) -> frozenset[str]:
        """Return the keys that a multirun sweeps."""
        choices = [_swept(text, self._known[1]) for text in self.arguments.settings]
        return frozenset(key_of(some[0]) for some in choices if len(some) > 1)

    def plugin(self) -> bool:
        """Whether jobs are started by a plugin of Hydra's: a launcher, or a sweeper that chooses the jobs."""
        return any(text.startswith(("hydra/launcher=", "hydra/sweeper=")) for text in self.arguments.settings)

    def named(self) -> frozenset[str]:
        """Return the top-level keys and groups that the command line sets."""
        return frozenset(re.split(r"[.@=]", text.lstrip("+~"), maxsplit=1)[0] for text in self.arguments.settings)

    def through_hydra(self, task: Callable[[dict[str, Any], int, tuple[str, ...]], None], sweep_dir: str = "") -> None:
        """Pass the command line to Hydra: ``--cfg job`` and the like, or a multirun by one of its plugins.

        `task` is called, in the process of each job, with the values of its config, its number and its settings.
        """
        import hydra

        @hydra.main(config_path=str(self.folders[0]), config_name=self.name, version_base="1.3")
        def run(composed: DictConfig) -> None:
            job = HydraConfig.get()
            number = job.job.num if self.arguments.flags["multirun"] else 0
            task(_plain(composed, self.folders), number, tuple(text.lstrip("+") for text in job.overrides.task))

        before = sys.argv[1:]
        sweep = [f"hydra.sweep.dir='{sweep_dir}'"] if sweep_dir else []
        with _hydra_raises():
            own, completes = self.arguments.settings, self.arguments.flags["shell_completion"]
            settings = own if completes else [*_QUIET, *sweep, *self.as_settings(own)]  # own: install=bash
            sys.argv[1:] = [*self.arguments.written, *settings]
            try:
                run()
            except CONFIG_ERRORS as error:
                raise RequestError("--config-name", self.name, _one_line(error)) from None
            finally:
                sys.argv[1:] = before


def key_of(setting: str) -> str:
    """Return the key of a setting ``key=value``."""
    return setting.lstrip("+~").partition("=")[0]


def setting(key: str, value: str) -> str:
    """Return ``key=value``, the value in quotation marks where Hydra would not read it as it is.

    >>> setting("resume", "results/a b, c")
    "resume='results/a b, c'"
    """
    plain = f"{key}={value}"
    parsed = _parsed(plain)
    if "${" not in value and parsed is not None and parsed.value() == value and not parsed.is_sweep_override():
        return plain
    return f"{key}={_quoted(value)}"


def _quoted(value: str) -> str:
    """Return a text in quotation marks, as Hydra reads it back: nothing in it is an interpolation."""
    escaped = re.sub(r"(\\*)('|\Z)", lambda each: each[1] * 2 + each[2].replace("'", "\\'"), value)
    return f"'{escaped}'".replace("${", "\\${")


def _parsed(text: str) -> Override | None:
    """Parse a setting; ``None`` where Hydra cannot."""
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        return None


def _swept(text: str, groups: Collection[str]) -> list[str]:
    """Return the settings that one setting of a multirun stands for."""
    override = _parsed(text)
    key = key_of(text)
    if override is None or not override.is_sweep_override() or key.startswith("hydra"):
        return [text]
    if key in groups and ", " in text:
        return [text]  # a sentence with a comma is one text
    sign, value = text[0] if text[0] in "+~" else "", text.partition("=")[2]
    if not override.is_discrete_sweep() or isinstance(override.value(), Glob):
        raise RequestError(key, value, "write the values: key=a,b or key=range(0,3)")
    values = [*override.sweep_string_iterator()]
    if not values:
        raise RequestError(key, value, "there is no value in it: write key=a,b or key=range(0,3)")
    return [f"{sign}{override.get_key_element().lstrip('+~')}={each}" for each in values]


def _plain(composed: DictConfig, folders: Sequence[Path]) -> dict[str, Any]:
    """Return a composed config as plain values, its second model completed. Raises `RequestError`."""
    try:
        values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise RequestError(str(error.full_key), "${…}", f"{str(error).splitlines()[0]}: write a value") from None
    assert isinstance(values, dict)
    return _with_second_model({str(key): value for key, value in values.items() if key != "hydra"}, folders)


def _compose(name: str, settings: Sequence[str], folders: Sequence[Path]) -> DictConfig:
    outer = GlobalHydra.instance().hydra  # that of a multirun, of which this may be a job
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folders[0]), version_base="1.3"):
            _look_in(folders[1:])
            return _composed(name, settings)
    finally:
        GlobalHydra.instance().hydra = outer


def _look_in(folders: Sequence[Path]) -> None:
    """Add folders to Hydra's search path. Not by ``hydra.searchpath``, which excludes primary configs."""
    loader: Any = GlobalHydra.instance().config_loader()
    places = loader.get_search_path()
    for folder in folders:
        places.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema", path=None))
    loader.repository.initialize_sources(places)


def _composed(name: str, settings: Sequence[str]) -> DictConfig:
    """Compose the config with these settings. Raises `RequestError` for the first that Hydra refuses."""
    try:
        return compose(name, overrides=list(settings))
    except (*CONFIG_ERRORS, ValueError, RecursionError) as error:
        if not settings:
            raise RequestError("--config-name", name, _one_line(error)) from None
        _composed(name, settings[:-1])
        key, _, value = settings[-1].lstrip("+").partition("=")
        override = _parsed(settings[-1])
        if override is not None and override.is_discrete_sweep():
            own = "seed" if key == "seeds" else key
            remedy = f"these are several values: for one run each: -m {own}={value}; for a list: {own}=[{value}]"
            raise RequestError(key, value, remedy) from None
        remedy = f"this cannot stand there ({_one_line(error)}); --cfg job shows what does"
        raise RequestError(key, value, remedy) from None


@contextmanager
def _hydra_raises() -> Iterator[None]:
    """Make Hydra raise errors of a config inside, instead of printing several lines and exiting with 1."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def _with_second_model(values: dict[str, Any], folders: Sequence[Path]) -> dict[str, Any]:
    """Fill in the values of the model ``compare.model.name`` where it is in one of the user's own folders."""
    compare = values.get("compare")
    if not isinstance(compare, dict):
        return values
    second = compare.get("model")
    keys = {"name": second} if isinstance(second, str) else second
    if not isinstance(keys, dict) or "name" not in keys or "source" in keys:
        return values
    name, names = str(keys["name"]), _options("model", folders)
    if name not in names:
        raise RequestError("compare.model.name", name, config.near(name, names))
    if name in config.model_names():
        return values
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*missing `_self_`")  # composed as a primary config
        model = OmegaConf.to_container(_compose(f"model/{name}", (), folders), resolve=True)
    assert isinstance(model, dict)
    return {**values, "compare": {**compare, "model": {**model.get("model", model), **keys}}}


def _search_path(name: str, overrides: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Return ``hydra.searchpath`` from the command line, or else from the primary config."""
    settings = [text for text in overrides if text.lstrip("+").partition("=")[0] == "hydra.searchpath"]
    if settings:
        value = OverridesParser.create().parse_override(settings[0]).value()
    else:
        value = ((_read(name, folders).get("hydra") or {}).get("searchpath")) or []
    if not isinstance(value, list) or not all(isinstance(place, str) for place in value):
        raise RequestError("hydra.searchpath", value, "give a list of folders, such as hydra.searchpath=[file:///DIR]")
    return value


def _folder(key: str, place: str) -> Path:
    """Return the folder of a path, ``file://`` or ``pkg://`` address. Raises `RequestError` if it is missing."""
    if not place:
        raise RequestError(key, place, "this is empty: name a folder, or leave it out")
    scheme, there, rest = place.partition("://")
    try:
        path = (
            Path(str(importlib.resources.files(rest))) if there and scheme == "pkg" else Path(rest if there else place)
        )
    except (ImportError, ValueError):
        path = Path(place)
    if not path.is_dir():
        raise RequestError(key, place, f"there is no such folder (looked for {path.absolute()})")
    return path.resolve()


def _as_setting(text: str, keys: Collection[str], groups: Collection[str], folders: Sequence[Path]) -> list[str]:
    override = _parsed(text)
    if override is None or not override.key_or_group:
        key, _, value = text.partition("=")
        if key == "prompts" and value:
            raise RequestError(key, value, _unknown(key, value, _options(key, folders)))
        remedy = "write key=value, and quote a value that has spaces, commas or signs such as ~: \"key='…'\""
        raise RequestError(key, value or "???", remedy)
    key = override.key_or_group
    if key.startswith("hydra"):
        return [text]
    if key in groups and not override.is_delete():
        if text[0] == "+":
            raise RequestError(key, text.partition("=")[2], f"this is chosen without +: {text.lstrip('+')}")
        chosen = None if override.is_sweep_override() else override.value()
        if _section(key) and isinstance(chosen, dict):
            return [f"++{key}.{name}={_element(value)}" for name, value in chosen.items()]
        for choice in _choices(override, text):
            _check_choice(key, str(choice), folders)
        return [text]
    if key not in groups and any((folder / key).is_dir() for folder in folders):
        if text[0] == "+" and not (folders[0] / key).is_dir():
            return [text]  # a group of the user's own, appended to the defaults
        _refuse_group(key, override, (*keys, *groups))
    return [text if text[0] in "+~" else f"++{text}"]


def _refuse_group(group: str, override: Override, known: Sequence[str]) -> None:
    """Raise `RequestError` for a group that the primary config does not choose; some are sections with keys inside."""
    if section := _section(group):
        config.parse(cast(Any, section), cast(Any, override.value()), group)
    raise RequestError(group, override.value(), f"there is no such key; {config.near(group, known)}")


def _section(group: str) -> type | None:
    """Return the spec of a group that is a section of a run's spec, not a choice between several specs."""
    hint = get_type_hints(config.RunSpec).get(group)
    return hint if isinstance(hint, type) and is_dataclass(hint) else None


def _element(value: Any) -> str:
    """Write a value in the grammar of Hydra's settings."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_element(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_element, value))}]"
    return _quoted(value) if isinstance(value, str) else json.dumps(value)


def _choices(override: Any, text: str) -> list[Any]:
    """Return the chosen options of a group; a sentence with a comma is one text, not a sweep over two."""
    if override.is_sweep_override() and ", " not in text:
        return list(override.sweep_string_iterator())
    return [text.partition("=")[2] if override.is_sweep_override() else override.value()]


def _check_choice(group: str, choice: str, folders: Sequence[Path]) -> None:
    options = _options(group, folders)
    if new := config.RENAMED.get(f"{group}.name={choice}"):
        raise RequestError(group, choice, f"this value is now {new}")
    section: Any = _section(group)
    if choice not in options and section:
        config.parse(section, cast(Any, choice), group)
    if choice not in options and not (choice == "None" and group == "experiment"):
        raise RequestError(group, "null" if choice == "None" else choice, _unknown(group, choice, options))


def _unknown(group: str, choice: str, options: Sequence[str]) -> str:
    """Describe what to write instead of an unknown option: a text, a file or a repository has its own keys."""
    near, path = config.near(choice, options), Path(choice)
    ending = path.suffix.lower()
    if group == "prompts" and ending in (".txt", ".csv", ".tsv", ".jsonl", ".parquet"):
        return f"{near}; for this file: prompts=file {shlex.quote(f'prompts.path={choice}')}"
    if group == "model" and (ending == ".gguf" or path.is_dir()):
        what, source = ("file", "gguf") if ending == ".gguf" else ("folder", "path")
        return f"{near}; for this {what}: model={source} {shlex.quote(f'model.path={choice}')}"
    if near.startswith("did you mean") or choice == "None":
        return near
    if group == "prompts":
        return f"{near}; for a text: prompts=inline {_inline(choice)}"
    if group == "model":
        return f"{near}; for a repository of the hub: model=hub {shlex.quote(f'model.id={choice}')}"
    return near


def _inline(text: str) -> str:
    """Format a text as the setting of ``prompts=inline``, quoted for Hydra and for a shell."""
    setting = f"prompts.text=[{_quoted(text)}]"
    return shlex.quote(setting) if set(setting) & set('"$`\\!') else f'"{setting}"'


def _keys(name: str, folders: Sequence[Path], seen: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
    """Return the keys of a config and the groups of its defaults list, including those of the configs it extends."""
    values = _read(name, folders)
    keys, groups = [key for key in values if key not in ("defaults", "hydra")], list[str]()
    for entry in values.get("defaults") or ():
        if isinstance(entry, dict):
            groups += [group for group in (str(each).removeprefix("optional ") for each in entry) if " " not in group]
        elif entry != "_self_" and entry not in (name, *seen):
            more = _keys(str(entry).lstrip("/"), folders, (name, *seen))
            keys, groups = [*keys, *more[0]], [*groups, *more[1]]
    return keys, groups


def _read(name: str, folders: Sequence[Path]) -> dict[str, Any]:
    """Read a config from the first folder that has it; empty where none does, which Hydra reports."""
    path = next((path for folder in folders if (path := folder / f"{name}.yaml").is_file()), None)
    if path is None:
        return {}
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RequestError("--config-name", name, f"{path} cannot be read ({_one_line(error)})") from None
    return values if isinstance(values, dict) else {}


def _options(group: str, folders: Sequence[Path]) -> tuple[str, ...]:
    """Return the options of a group, in subfolders too: ``model=tiny/mine``."""
    paths = ((path, folder / group) for folder in folders for path in (folder / group).rglob("*.yaml"))
    return tuple(sorted({path.relative_to(root).with_suffix("").as_posix() for path, root in paths}))


def _one_line(error: Exception) -> str:
    """Return an error's text on one line."""
    if isinstance(error, RecursionError):
        return "its defaults name itself"
    return " ".join(str(error).split())
