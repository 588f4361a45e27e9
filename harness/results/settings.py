"""The settings of saved runs: as on a command line, and those in which runs differ."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from harness.config import RequestError
from harness.results.objects import Folder

#: Keys that change no number.
_NOT_COMPARED = ("execute.", "show.", "published", "sweep.memory", "sweep.attention")


def read_settings(run: Folder) -> dict[str, Any]:
    """Read ``spec.yaml``. Raises `RequestError` where it cannot be read or holds no settings."""
    try:
        values = yaml.safe_load((run / "spec.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RequestError("run", run, f"its spec.yaml cannot be read ({type(error).__name__})") from None
    if not isinstance(values, dict):
        raise RequestError("run", run, "its spec.yaml holds no settings")
    return values


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested settings as dotted keys with their values as on a command line.

    >>> dict(flat({"seed": 0, "ablation": {"name": "zero", "positions": [3, -1]}}))
    {'seed': '0', 'ablation.name': 'zero', 'ablation.positions': '[3,-1]'}
    """
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{key}", f"[{','.join(map(str, value))}]"
        else:
            text = str(value)
            yield f"{prefix}{key}", "null" if value is None else text.lower() if isinstance(value, bool) else text


def differing(settings: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """Return the keys in which runs differ, with each run's value (``""`` where it lacks the key).

    Of keys that follow from another one stays: all seeds from ``seed``, a section's keys from its name.

    >>> differing([{"seed": "0", "prompts.seed": "0"}, {"seed": "1", "prompts.seed": "1"}])
    {'seed': ['0', '1']}
    """
    keys = {key for each in settings for key in each if not key.startswith(_NOT_COMPARED)}
    kept: dict[str, list[str]] = {}
    for key in sorted(keys, key=lambda key: (key != "seed", not key.endswith("name"), key)):
        column = [each.get(key, "") for each in settings]
        if len({*column} - {""}) > 1 and not any(_follows(column, other, key, name) for name, other in kept.items()):
            kept[key] = column
    return {key: kept[key] for key in sorted(kept)}


def _follows(column: Sequence[str], other: Sequence[str], key: str, name: str) -> bool:
    """Whether a column follows from another where it is set: a seed from ``seed``, a key of a section from its name."""
    section = name.removesuffix("name")
    of_section = name.endswith(".name") and key.startswith(section) and "." not in key.removeprefix(section)
    if not (of_section or (name == "seed" and key.endswith("seed"))):
        return False
    pairs = {(its, mine) for its, mine in zip(other, column, strict=True) if mine != ""}
    return len(pairs) == len({its for its, _ in pairs})
