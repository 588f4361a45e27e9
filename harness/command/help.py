"""Write ``--help``: the runners, a runner's keys, or the keys of one of its groups."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

import yaml

from harness import config
from harness.command.runners import RUNNERS, Runner
from harness.config import Place, RequestError
from harness.config.describe import Key, field_lines, first_line, keys_of, options_of, yaml_text

_CODES = "Exit codes: 0 done; 2 the request is wrong (one line names the key); 1 anything else; 130 interrupted."


def overview(command: str) -> str:
    """Return the list of runners, a line each."""
    wide = max(map(len, RUNNERS))
    lines = [f"  {name:{wide}}  {runner.line}" for name, runner in RUNNERS.items()]
    head = "Which attention heads does a language model need, and what do they look at?"
    usage = f"{command} RUNNER [key=value …]; {command} RUNNER --help lists its keys."
    return "\n".join((head, usage, "", *lines, "", _CODES))


def help_text(name: str, program: str, topics: Sequence[str] = ()) -> str:
    """Return the help of a runner, or of the groups that `topics` name: the keys that it reads.

    Raises `RequestError` for a topic that is no group of the runner.
    """
    if topics:
        return "\n\n".join(_group_text(name, topic.partition("=")[0]) for topic in topics)
    runner = RUNNERS[name]
    rows = [*_rows(name, runner)]
    wide = min(44, max(len(setting) for setting, _ in rows))
    last = "-m key=a,b: one run each · --cfg job: the whole config · --help GROUP: the keys of a group such as prompts"
    return "\n".join((f"{runner.line}.", f"{program} [key=value …]", *_table(rows, wide), last, _CODES))


def _table(rows: Sequence[tuple[str, str]], wide: int) -> list[str]:
    return [f"  {setting:{wide}}  {line}" for setting, line in rows]


def _rows(name: str, runner: Runner) -> Iterator[tuple[str, str]]:
    """Yield ``key=default`` and what it is for, of each key that a runner reads."""
    values, groups = _primary(name)
    hints, lines = get_type_hints(runner.spec, include_extras=True), field_lines(runner.spec)
    for field in fields(runner.spec):
        key, hint = field.name, hints[field.name]
        if not runner.reads_key(key):
            continue
        if isinstance(hint, type) and is_dataclass(hint):
            for each in filter(lambda each: runner.reads_key(each.name), keys_of(hint, f"{key}.")):
                name_in = each.name.partition(".")[2]
                follows = _interpolated(key).get(name_in)
                yield _row(each, follows or values.get(key, {}).get(name_in))
        elif key in groups:
            more = f"; --help {key} lists their keys" if options_of(hint) else ""
            yield f"{key}={groups[key]}", f"{lines[key]} One of {', '.join(_choices(key))}{more}."
        else:
            yield _row(next(one for one in keys_of(runner.spec) if one.name == key), values.get(key))
    if runner.makes_run:
        yield "experiment=null", "Preset, a question with its settings: conf/experiment."
        for each in keys_of(Place):
            yield _row(each, None)


def _row(key: Key, value: Any) -> tuple[str, str]:
    """Return a key's default (`value`, where the runner has another), its line, and its type if that says more."""
    default = key.default if value is None else yaml_text(value)
    shown = (
        "" if key.type in ("text", "list of text", "a model") or key.type.startswith("section") else f" ({key.type})"
    )
    return f"{key.name}={'{…}' if len(default) > 40 else default}", f"{key.line}{shown}"


def _group_text(name: str, group: str) -> str:
    """Return the keys of one group of a runner, for each of its options."""
    runner = RUNNERS[name]
    hints = get_type_hints(runner.spec, include_extras=True)
    known = [
        key
        for key, hint in hints.items()
        if (options_of(hint) or is_dataclass(hint)) and key in (runner.reads or hints)
    ]
    if group not in known:
        raise RequestError("--help", group, config.near(group, known) if known else f"{name} has no groups")
    hint: Any = hints[group]
    specs = options_of(hint) or {"": hint}
    parts = []
    for option, kind in specs.items():
        title = f"{group}{'.source' * (group == 'model')}={option}: {first_line(kind)}" if option else first_line(kind)
        follow = _interpolated(group, option)
        rows = [
            (f"{each.name}={follow.get(each.name.partition('.')[2], each.default)}", f"{each.line} ({each.type})")
            for each in keys_of(kind, f"{group}.")
        ]
        parts += [title, *_table(rows, max(len(setting) for setting, _ in rows))]
    options = f"Options: {', '.join(_choices(group))}."
    return "\n".join((*parts, options))


def _interpolated(group: str, option: str = "default") -> dict[str, str]:
    """Return the keys of a group's option that follow another, and which: ``{"seed": "(seed)"}``."""
    path = config.conf_dir() / group / f"{option or 'default'}.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    of = {key: re.fullmatch(r"\$\{([\w.]+)\}", value) for key, value in values.items() if isinstance(value, str)}
    return {key: f"({match[1]})" for key, match in of.items() if match}


def _choices(group: str) -> list[str]:
    """Return the options of a group in ``conf/``."""
    return sorted(path.stem for path in (config.conf_dir() / group).glob("*.yaml"))


def _primary(name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values that a runner's primary config sets, and the options that it chooses."""
    values, groups = {}, {}
    for file in ("config", name) if RUNNERS[name].makes_run else (name,):
        read = yaml.safe_load((config.conf_dir() / f"{file}.yaml").read_text(encoding="utf-8"))
        for entry in read.pop("defaults", ()):
            groups |= entry if isinstance(entry, dict) else {}
        values |= read
    return values, groups
