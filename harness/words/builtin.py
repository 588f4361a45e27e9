"""The words of the built-in IOI prompts."""

from collections.abc import Iterator
from functools import cache
from importlib.resources import files

import yaml


@cache
def ioi_data() -> dict[str, list[str]]:
    """Load the names and templates of the IOI prompts."""
    return yaml.safe_load(files("harness").joinpath("data/ioi.yaml").read_text(encoding="utf-8"))


def builtin_words() -> Iterator[str]:
    """Yield the words of the built-in IOI prompts as byte-level BPE writes them, with ``Ġ`` for a leading space."""
    data = ioi_data()
    text = " ".join([*data["names"], *data["templates"]]).replace("{", " {").replace("}", "} ")
    plain = {word.strip(",") for word in text.split() if not word.startswith("{")}
    yield from (f"Ġ{word}" for word in sorted(plain))
