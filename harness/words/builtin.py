"""The words of the built-in IOI prompts."""

from collections.abc import Iterator
from functools import cache
from importlib.resources import files

import yaml


@cache
def ioi_data() -> dict[str, list[str]]:
    """The names and templates of the IOI prompts."""
    return yaml.safe_load(files("harness").joinpath("data/ioi.yaml").read_text(encoding="utf-8"))


def builtin_words() -> Iterator[str]:
    """The words of the built-in IOI prompts as byte-level BPE writes them, a leading space being ``Ġ``."""
    data = ioi_data()
    text = " ".join([*data["names"], *data["templates"]]).replace("{", " {").replace("}", "} ")
    plain = {word.strip(",") for word in text.split() if not word.startswith("{")}
    yield from (f"Ġ{word}" for word in sorted(plain))
