"""Command line of the runners: the only file that uses Hydra.

Overrides reach Hydra as plain settings, so that only the typed specs in `harness.config` judge keys and values. A
user's mistake is one line on standard error and exit code 2.
"""

import importlib.resources
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_type_hints

import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness import config, metrics
from harness.config import RequestError
from harness.models.config_shape import check_heads

if TYPE_CHECKING:
    from harness.results.objects import Folder

NAMES_CONFIG = {"--config-name", "-cn"}
MAIN_FOLDER, MORE_FOLDER = {"--config-path", "-cp"}, {"--config-dir", "-cd"}
MULTIRUN = {"--multirun", "-m"}
TAKES_VALUE = {"--cfg", "-c", "--package", "-p", "--info", "-i", "--experimental-rerun", *NAMES_CONFIG}
TAKES_VALUE |= MAIN_FOLDER | MORE_FOLDER
#: Flags for which no config is composed beforehand: ``-m`` composes one for each job.
NOT_COMPOSED = {
    "--hydra-help", "--version", "--info", "-i", "--shell-completion", "-sc", "--experimental-rerun", *MULTIRUN,
}  # fmt: skip
#: Errors of Hydra and its YAML readers.
CONFIG_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError)

_FORMAT_WARNING = warnings.formatwarning

Act = Callable[[dict[str, Any]], object]


def launch(runner: str) -> NoReturn:
    """Run a runner that makes a run directory, with the settings of ``sys.argv``."""
    main(runner, lambda values: _run(runner, values))


def main(name: str, act: Act) -> NoReturn:
    """Compose ``conf/<name>.yaml`` with the command line, call `act` on it, and exit with the contract's code.

    The last line on standard output is the path that `act` returns.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    warnings.filterwarnings("ignore", message="resource_tracker")
    warnings.formatwarning = _warning
    sys.exit(_guarded(lambda: _main(name, act)))


def _warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> str:
    """Format a warning of this package as one line, others with their line of code."""
    if category.__module__.startswith("harness."):
        return f"{message}\n"
    return _FORMAT_WARNING(message, category, *where, **more)


def _guarded(work: Callable[[], None], job: str = "") -> int:
    """Run `work` and return its exit code; print a wrong request as one line that begins with `job`."""
    try:
        work()
    except RequestError as error:
        print(f"{job}{error}", file=sys.stderr)
        return 2
    except CONFIG_ERRORS as error:
        print(f"{job}{_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        settings = getattr(stop, "settings", "")  # of `harness.study.Interrupted`, whose module imports torch
        rest = f"; continue with {settings}" if settings else ""
        print("\n" * sys.stderr.isatty() + f"{job}interrupted{rest}", file=sys.stderr)
        return 130
    return 0


def _main(name: str, act: Act) -> None:
    flags, overrides = _split(sys.argv[1:])
    _check_flags(flags)
    name = _value(flags, NAMES_CONFIG) or name
    folders = _folders(name, flags, overrides)
    composed = None if _words(flags) & NOT_COMPOSED else _compose(name, overrides, folders)
    if flags or composed is None:
        return _through_hydra(name, act, flags, overrides, folders)
    _act(act, composed, folders)


def _compose(name: str, overrides: Sequence[str], folders: Sequence[Path]) -> DictConfig:
    settings = _as_settings(name, overrides, folders)
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
    except (*CONFIG_ERRORS, ValueError) as error:
        if not settings:
            raise
        _composed(name, settings[:-1])
        key, _, value = settings[-1].lstrip("+").partition("=")
        remedy = f"this cannot stand there ({_one_line(error)}); --cfg job shows what does"
        raise RequestError(key, value, remedy) from None


def _through_hydra(
    name: str, act: Act, flags: Sequence[str], overrides: Sequence[str], folders: Sequence[Path]
) -> None:
    """Pass ``--help``, ``--cfg job``, ``-m`` and the like to Hydra, after checking the overrides.

    A wrong job of a multirun prints one line with its name and does not stop later ones; the exit code is the highest
    of all jobs.
    """
    import hydra

    many = bool(_words(flags) & MULTIRUN)
    settings, swept = _as_settings(name, overrides, folders), _swept(overrides)
    scratch = tempfile.TemporaryDirectory()  # for Hydra's own record of a multirun, and the exit codes of its jobs
    codes = Path(scratch.name)

    @hydra.main(config_path=str(folders[0]), config_name=name, version_base="1.3")
    def task(composed: DictConfig) -> None:
        code = _code_of_job(lambda: _act(act, composed, folders), _job(swept) if many else "")
        if code and not (many and code != 130 and codes.is_dir()):
            sys.exit(code)
        if code:
            (codes / f"{HydraConfig.get().job.num}.code").write_text(str(code), encoding="utf-8")

    with scratch, _hydra_raises():
        sys.argv[1:] = [*flags, *[f"hydra.sweep.dir='{codes}'"] * many, *settings]
        task()
        worst = max((int(path.read_text(encoding="utf-8")) for path in codes.glob("*.code")), default=0)
    if worst:
        sys.exit(worst)


def _code_of_job(work: Callable[[], None], job: str) -> int:
    """Return the exit code of one job, also after `sys.exit` (`reproduce` exits with 1 where a value moved)."""
    try:
        return _guarded(work, job)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1


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


def _swept(overrides: Sequence[str]) -> set[str]:
    """Return the keys that a multirun sweeps."""
    parsed = OverridesParser.create().parse_overrides([text for text in overrides if text])
    return {each.key_or_group for each in parsed if each.is_sweep_override()}


def _job(swept: Collection[str]) -> str:
    """Name a job of a multirun by its number and its swept values."""
    job = HydraConfig.get()
    settings = [text.lstrip("+") for text in job.overrides.task]
    own = [text for text in settings if text.partition("=")[0] in swept]
    return f"job #{job.job.num} ({' '.join(own or settings)}): "


def _act(act: Act, composed: DictConfig, folders: Sequence[Path]) -> None:
    try:
        values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise RequestError(str(error.full_key), "${…}", f"{str(error).splitlines()[0]}: write a value") from None
    assert isinstance(values, dict)
    done = act(_with_second_model({str(key): value for key, value in values.items() if key != "hydra"}, folders))
    if done is not None:
        print(done, flush=True)


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


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split arguments into Hydra's flags (with their values) and overrides."""
    flags, overrides, before = [], [], ""
    for argument in arguments:
        if argument.startswith("-") or before in TAKES_VALUE:
            flags.append(argument)
        else:
            overrides.append(argument)
        before = argument
    return flags, overrides


def _check_flags(flags: Sequence[str]) -> None:
    """Raise the error of Hydra's flag parser as a `RequestError`."""

    def refuse(message: str) -> NoReturn:
        word, _, value = flags[0].partition("=")
        raise RequestError(word, value, f"{message}; a key is written without dashes: heads=[L5H1]")

    parser = get_args_parser()
    parser.error = refuse
    if not _words(flags) & {"--version"}:
        parser.parse_args(list(flags))


def _words(flags: Sequence[str]) -> set[str]:
    """Return the flags without their values."""
    return {flag.partition("=")[0] for flag in flags}


def _value(flags: Sequence[str], names: set[str]) -> str | None:
    """Return the value of a flag, written ``--flag value`` or ``--flag=value``; ``None`` without it."""
    for flag, after in zip_longest(flags, flags[1:], fillvalue=""):
        word, equals, value = flag.partition("=")
        if word in names:
            return value if equals else after
    return None


def _folders(name: str, flags: Sequence[str], overrides: Sequence[str]) -> tuple[Path, ...]:
    """Return the folders of configs in Hydra's order: the main one, ``--config-dir``, ``hydra.searchpath``."""
    main, more = _value(flags, MAIN_FOLDER), _value(flags, MORE_FOLDER)
    folders = [config.conf_dir().resolve() if main is None else _folder("--config-path", main, Path(__file__).parent)]
    if more is not None:
        folders.append(_folder("--config-dir", more))
    return tuple([*folders, *(_folder("hydra.searchpath", place) for place in _search_path(name, overrides, folders))])


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


def _folder(key: str, place: str, base: Path | None = None) -> Path:
    """Return the folder of a path, ``file://`` or ``pkg://`` address. Raises `RequestError` if it is missing."""
    scheme, there, rest = place.partition("://")
    try:
        path = (
            Path(str(importlib.resources.files(rest))) if there and scheme == "pkg" else Path(rest if there else place)
        )
    except (ImportError, ValueError):
        path = Path(place)
    path = (base or Path()) / path
    if not path.is_dir():
        raise RequestError(key, place, f"there is no such folder (looked for {path.absolute()})")
    return path.resolve()


def _as_settings(name: str, overrides: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Rewrite overrides so that Hydra accepts any key; check choices of groups against their options."""
    keys, groups = _keys(name, folders)
    return [_as_setting(text, keys, groups, folders) for text in overrides]


def _as_setting(text: str, keys: Collection[str], groups: Collection[str], folders: Sequence[Path]) -> str:
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:
        override = None
    if override is None or not override.key_or_group:
        key, _, value = text.partition("=")
        if key == "prompts" and value:
            raise RequestError(key, value, _unknown(key, value, _options(key, folders)))
        remedy = "write key=value, and quote a value that has spaces, commas or signs such as ~: \"key='…'\""
        raise RequestError(key, value or "???", remedy)
    key = override.key_or_group
    if key.startswith("hydra"):
        return text
    if key in groups and not override.is_delete():
        for choice in _choices(override, text):
            _check_choice(key, str(choice), folders)
        if text[0] == "+":
            raise RequestError(key, text.partition("=")[2], f"this is chosen without +: {text.lstrip('+')}")
        return text
    if key not in groups and any((folder / key).is_dir() for folder in folders):
        if text[0] == "+" and not (folders[0] / key).is_dir():
            return text  # a group of the user's own, appended to the defaults
        raise RequestError(key, text.partition("=")[2], f"there is no such key; {config.near(key, (*keys, *groups))}")
    return text if text[0] in "+~" else f"++{text}"


def _choices(override: Any, text: str) -> list[Any]:
    """Return the chosen options of a group; a sentence with a comma is one text, not a sweep over two."""
    if override.is_sweep_override() and ", " not in text:
        return list(override.sweep_string_iterator())
    return [text.partition("=")[2] if override.is_sweep_override() else override.value()]


def _check_choice(group: str, choice: str, folders: Sequence[Path]) -> None:
    options = _options(group, folders)
    if new := config.RENAMED.get(f"{group}.name={choice}"):
        raise RequestError(group, choice, f"this value is now {new}")
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
    escaped = re.sub(r"(\\*)('|\Z)", lambda each: each[1] * 2 + each[2].replace("'", "\\'"), text)
    setting = f"prompts.text=['{escaped}']"
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
    return " ".join(str(error).split())


# --- the runners that make a run --------------------------------------------------------------------------------


PLACE = ("store", "run", "resume", "dry_run")


def _run(runner: str, values: dict[str, Any]) -> "Folder | None":
    config.check_names(values)
    known = (*get_type_hints(config.RunSpec), *PLACE)
    for key in values:
        if key not in known:
            raise RequestError(key, values[key], f"there is no such key; {config.near(key, known)}")
    where = config.parse(config.Place, {key: values.pop(key) for key in PLACE if key in values})
    spec = config.parse(config.RunSpec, values)
    metrics.check_names(spec.metrics)  # this and what follows before the slow import of torch
    for key, heads in (("heads", spec.heads), ("cache.heads", spec.cache.heads), ("show.heads", spec.show.heads)):
        if heads:
            check_heads(spec.model, heads, key)
    resumed = where.resume and not _changed_by_hand()  # then the directory's spec counts, not the defaults here
    if where.resume:
        config.check_there("resume", where.resume)
    if not resumed:
        from harness.prompts import check_prompts

        check_prompts(spec.prompts)

    from harness import study
    from harness.results.objects import folder_at

    if where.resume and resumed:
        saved = study.saved_spec(folder_at(where.resume))
        spec = replace(saved, execute=spec.execute) if _named("execute") else saved
    folder = study.run(runner, spec, where, progress(), tell)
    if folder is not None:
        _summarize(folder)
    return folder


def _summarize(folder: "Folder") -> None:
    """Print the answer to the question, or the strongest heads, on standard error."""
    from harness.findings.questions import question_of
    from harness.results import open_run
    from harness.views.terminal import strongest

    run = open_run(folder)
    question = question_of(run)
    summary = strongest(run) if question is None else f"{question.asks}\n{question.answer(run).text}"
    if summary:
        tell(summary)


def _changed_by_hand() -> bool:
    """Whether the command line has settings other than the directory to resume and where to compute."""
    _, overrides = _split(sys.argv[1:])
    aside = ("resume=", "store=", "dry_run=", "execute=", "execute.")
    return any(not text.lstrip("+").startswith(aside) for text in overrides)


def _named(group: str) -> bool:
    """Whether the command line sets a group or one of its keys."""
    return any(text.lstrip("+").startswith((f"{group}=", f"{group}.")) for text in _split(sys.argv[1:])[1])


def tell(line: str) -> None:
    """Print one line on standard error."""
    print(line, file=sys.stderr, flush=True)


def progress() -> Callable[[str, int, int], None]:
    """Return a function that prints a stage's progress on standard error: on a terminal a bar with rate and time left,
    elsewhere a line with the time so far."""
    import time

    start, seen = time.monotonic(), dict[str, tuple[float, int]]()

    def show(stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        since, before = seen.setdefault(stage, (now, done))
        if not sys.stderr.isatty():
            print(f"{stage} {done}/{total}  {now - start:.0f} s", file=sys.stderr, flush=True)
            return
        from harness.views.terminal import bar

        line = bar(stage, done, total, now - since, before, shutil.get_terminal_size().columns)
        print(f"\r\x1b[K{line}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return show
