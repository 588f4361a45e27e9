"""From a command line to a run: the only file that knows Hydra.

Every override is made a plain "set this" for Hydra, so that one judge, the typed specs in `harness.config`, says what
is wrong with a key or a value. What a person did wrong is one line on standard error and exit code 2.
"""

import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NoReturn, get_type_hints

import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness import config, metrics
from harness.config import RequestError
from harness.models.peek import check_heads

if TYPE_CHECKING:
    from harness.results.objects import Folder

NAMES_CONFIG = {"--config-name", "-cn"}
NAMES_FOLDER = {"--config-path", "-cp", "--config-dir", "-cd"}
MULTIRUN = {"--multirun", "-m"}
TAKES_VALUE = {"--cfg", "-c", "--package", "-p", "--info", "-i", "--experimental-rerun", *NAMES_CONFIG, *NAMES_FOLDER}
#: Where a compose of the whole says nothing (``-m``) or would look in another place than Hydra does.
NOT_COMPOSED = {
    "--hydra-help", "--version", "--info", "-i", "--shell-completion", "-sc", "--experimental-rerun",
    *MULTIRUN, *NAMES_FOLDER,
}  # fmt: skip

Act = Callable[[dict[str, Any]], object]


def launch(runner: str) -> NoReturn:
    """Run a runner that makes a run directory, from ``sys.argv``."""
    main(runner, lambda values: _run(runner, values))


def main(name: str, act: Act) -> NoReturn:
    """Compose ``conf/<name>.yaml`` with the command line, act on it, and exit with the contract's code.

    The last line on standard output is the path that `act` gives.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    warnings.filterwarnings("ignore", message="resource_tracker")
    sys.exit(_guarded(lambda: _main(name, act)))


def _guarded(work: Callable[[], None]) -> int:
    try:
        work()
    except RequestError as error:
        print(error, file=sys.stderr)
        return 2
    except (HydraException, OmegaConfBaseException) as error:
        print(_one_line(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "\n" * sys.stderr.isatty() + "interrupted; a run directory that was begun can be continued with resume=DIR",
            file=sys.stderr,
        )
        return 130
    return 0


def _main(name: str, act: Act) -> None:
    flags, overrides = _split(sys.argv[1:])
    _check_flags(flags)
    composed = None if _words(flags) & NOT_COMPOSED else _compose(_value(flags, NAMES_CONFIG) or name, overrides)
    if flags or composed is None:
        return _through_hydra(name, act, flags, overrides)
    _act(act, composed)


def _compose(name: str, overrides: Sequence[str]) -> DictConfig:
    folder, settings = str(config.conf_dir().resolve()), _as_settings(name, overrides)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(folder, version_base="1.3"):
            return _composed(name, settings)
    finally:
        GlobalHydra.instance().clear()


def _composed(name: str, settings: Sequence[str]) -> DictConfig:
    """The config with these settings; the first that Hydra cannot place is the one that is wrong."""
    try:
        return compose(name, overrides=list(settings))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if not settings:
            raise
        _composed(name, settings[:-1])
        key, _, value = settings[-1].lstrip("+").partition("=")
        remedy = f"this cannot stand there ({_one_line(error)}); --cfg job shows what does"
        raise RequestError(key, value, remedy) from None


def _through_hydra(name: str, act: Act, flags: Sequence[str], overrides: Sequence[str]) -> None:
    """``--help``, ``--cfg job``, ``-m`` and the like are Hydra's own; the overrides are checked first all the same."""
    import hydra

    scratch = tempfile.TemporaryDirectory()  # where a multirun notes what it swept, which nobody asked for
    aside = [f"hydra.sweep.dir='{scratch.name}'"] if _words(flags) & MULTIRUN else []
    sys.argv[1:] = [*flags, *aside, *_as_settings(_value(flags, NAMES_CONFIG) or name, overrides)]

    @hydra.main(config_path=str(config.conf_dir().resolve()), config_name=name, version_base="1.3")
    def task(composed: DictConfig) -> None:
        code = _guarded(lambda: _act(act, composed))
        if code:
            sys.exit(code)

    with scratch:
        task()


def _act(act: Act, composed: DictConfig) -> None:
    try:
        values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise RequestError(str(error.full_key), "${…}", f"{str(error).splitlines()[0]}: write a value") from None
    assert isinstance(values, dict)
    done = act({str(key): value for key, value in values.items() if key != "hydra"})
    if done is not None:
        print(done, flush=True)


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hydra's flags (with the values of those that take one) and the overrides."""
    flags, overrides, before = [], [], ""
    for argument in arguments:
        if argument.startswith("-") or before in TAKES_VALUE:
            flags.append(argument)
        else:
            overrides.append(argument)
        before = argument
    return flags, overrides


def _check_flags(flags: Sequence[str]) -> None:
    """What Hydra's parser of flags says of a wrong one, on one line."""

    def refuse(message: str) -> NoReturn:
        word, _, value = flags[0].partition("=")
        raise RequestError(word, value, f"{message}; a key is written without dashes: heads=[L5H1]")

    parser = get_args_parser()
    parser.error = refuse
    if not _words(flags) & {"--version"}:
        parser.parse_args(list(flags))


def _words(flags: Sequence[str]) -> set[str]:
    """The flags without their values."""
    return {flag.partition("=")[0] for flag in flags}


def _value(flags: Sequence[str], names: set[str]) -> str | None:
    """The value of a flag, written ``--flag value`` or ``--flag=value``."""
    for flag, after in zip_longest(flags, flags[1:], fillvalue=""):
        word, equals, value = flag.partition("=")
        if word in names:
            return value if equals else after
    return None


def _as_settings(name: str, overrides: Sequence[str]) -> list[str]:
    """Overrides that Hydra will not refuse for their key, groups being checked here against what there is."""
    keys, groups = _keys(name)
    return [_as_setting(text, keys, groups) for text in overrides]


def _as_setting(text: str, keys: Collection[str], groups: Collection[str]) -> str:
    chosen, _, value = text.partition("=")
    named = all(part.strip() in _options("prompts") for part in value.split(","))
    if chosen == "prompts" and chosen in groups and config.is_a_text(value) and not named:
        raise RequestError(chosen, value, _as_inline(value))
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:
        override = None
    if override is None or not override.key_or_group:
        key, _, value = text.partition("=")
        remedy = "write key=value, and quote a value that has spaces, commas or signs such as ~: \"key='…'\""
        raise RequestError(key, value or "???", remedy)
    key = override.key_or_group
    if key.startswith("hydra"):
        return text
    if key in groups and not override.is_delete():
        for choice in _choices(override):
            _check_choice(key, str(choice))
        if text[0] == "+":
            raise RequestError(key, text.partition("=")[2], f"this is chosen without +: {text.lstrip('+')}")
        return text
    if (config.conf_dir() / key).is_dir() and key not in groups:
        raise RequestError(key, text.partition("=")[2], f"there is no such key; {config.near(key, (*keys, *groups))}")
    return text if text[0] in "+~" else f"++{text}"


def _as_inline(text: str) -> str:
    """What to write for a text that was given as the name of a prompt set."""
    bare = text.strip("'\"")
    plain = len(bare) <= 60 and not set(bare) & set("'\"\\$`!{}")
    words = bare if plain else "…"
    return f"this is the name of a prompt set; give a text as prompts=inline \"prompts.text=['{words}']\""


def _choices(override: Any) -> list[Any]:
    return list(override.sweep_string_iterator()) if override.is_sweep_override() else [override.value()]


def _check_choice(group: str, choice: str) -> None:
    options = _options(group)
    if choice not in options and not (choice == "None" and group == "experiment"):
        raise RequestError(group, "null" if choice == "None" else choice, config.near(choice, options))


def _keys(name: str) -> tuple[list[str], list[str]]:
    """The keys of a config's own file, and the groups that its defaults list chooses from."""
    path = config.conf_dir() / f"{name}.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    chosen = [group for entry in values.get("defaults", ()) if isinstance(entry, dict) for group in entry]
    return [key for key in values if key not in ("defaults", "hydra")], [group for group in chosen if " " not in group]


def _options(group: str) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in (config.conf_dir() / group).glob("*.yaml")))


def _one_line(error: Exception) -> str:
    """Hydra's own complaint, on one line."""
    return " ".join(str(error).split())


# --- the runners that make a run --------------------------------------------------------------------------------


PLACE = ("store", "run", "resume", "dry_run")


def _run(runner: str, values: dict[str, Any]) -> "Folder | None":
    known = (*get_type_hints(config.RunSpec), *PLACE)
    for key in values:
        if key not in known:
            raise RequestError(key, values[key], f"there is no such key; {config.near(key, known)}")
    where = config.parse(config.Place, {key: values.pop(key) for key in PLACE if key in values})
    asked = config.parse(config.RunSpec, values)
    metrics.check_names(asked.metrics)  # before waiting for torch, as what follows
    for key, heads in (("heads", asked.heads), ("cache.heads", asked.cache.heads), ("show.heads", asked.show.heads)):
        if heads:
            check_heads(asked.model, heads, key)
    if where.resume:
        config.check_there("resume", where.resume)

    from harness import study
    from harness.results.objects import folder_at

    if where.resume and not _changed_by_hand():
        saved = study.saved_spec(folder_at(where.resume))
        asked = replace(saved, execute=asked.execute) if _named("execute") else saved
    folder = study.run(runner, asked, where, progress(), tell)
    if folder is not None:
        _summarize(folder)
    return folder


def _summarize(folder: "Folder") -> None:
    """The answer to the question, or the strongest heads, on standard error."""
    from harness.questions import asked
    from harness.results import open_run
    from harness.views.terminal import strongest

    run = open_run(folder)
    question = asked(run)
    said = strongest(run) if question is None else f"{question.asks}\n{question.answer(run).text}"
    if said:
        tell(said)


def _changed_by_hand() -> bool:
    """Whether the command line asks for anything beside the directory to resume and where to do it."""
    _, overrides = _split(sys.argv[1:])
    aside = ("resume=", "store=", "dry_run=", "execute=", "execute.")
    return any(not text.lstrip("+").startswith(aside) for text in overrides)


def _named(group: str) -> bool:
    """Whether the command line says something of this group."""
    return any(text.lstrip("+").startswith((f"{group}=", f"{group}.")) for text in _split(sys.argv[1:])[1])


def tell(line: str) -> None:
    """One line on standard error."""
    print(line, file=sys.stderr, flush=True)


def progress() -> Callable[[str, int, int], None]:
    """On standard error: the stage and its units done of all; on a terminal as a bar with rate and time left,
    elsewhere a line each with the time so far."""
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
