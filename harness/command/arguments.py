"""Split a command line into flags and settings ``key=value``."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from harness.config import RequestError

#: Flags with a value: name, what may follow.
_WITH_VALUE: dict[tuple[str, ...], tuple[str, ...] | None] = {
    ("--cfg", "-c"): ("job", "hydra", "all"),
    ("--info", "-i"): ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    ("--package", "-p"): None,
    ("--config-name", "-cn"): None,
    ("--config-path", "-cp"): None,
    ("--config-dir", "-cd"): None,
}
_ALONE = (
    ("--help", "-h"),
    ("--version",),
    ("--multirun", "-m"),
    ("--resolve",),
    ("--hydra-help",),
    ("--shell-completion", "-sc"),
)


@dataclass(frozen=True)
class Arguments:
    """A command line: its settings in order, the values of its flags by name, and the flags as they were written."""

    settings: tuple[str, ...]
    flags: dict[str, Any]
    written: tuple[str, ...]

    @property
    def for_hydra(self) -> bool:
        """Whether a flag is answered by Hydra itself, without a run."""
        return any(self.flags[name] for name in ("cfg", "info", "hydra_help", "shell_completion"))


def parse_arguments(words: Sequence[str]) -> Arguments:
    """Split words into settings and flags. Raises `RequestError` for an unknown flag or a wrong value of one.

    >>> parse_arguments(["-m", "seed=0,1", "--config-dir", "mine"]).settings
    ('seed=0,1',)
    """
    takes_value = {flag for names in _WITH_VALUE for flag in names}
    settings, written = list[str](), list[str]()
    for before, word in zip(["", *words], words, strict=False):
        (written if word.startswith("-") or before in takes_value else settings).append(word)

    def refuse(message: str) -> NoReturn:
        word, _, value = written[0].partition("=")
        raise RequestError(word, value, f"{message}; a key is written without dashes: heads=[L5H1]")

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.error = refuse
    for names, choices in _WITH_VALUE.items():
        parser.add_argument(*names, choices=choices)
    for names in _ALONE:
        parser.add_argument(*names, action="store_true")
    return Arguments(tuple(settings), vars(parser.parse_args(written)), tuple(written))
