"""The only speller of hook-point names and axis orders, and the name of a head.

TransformerLens renames a hook point: this is the file that changes.
"""

import re
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from harness.config import RequestError

Kind = Literal["pattern", "z", "q", "k", "v", "scores"]

#: Which axes a hook point's tensor has, after the batch.
AXES: dict[str, tuple[str, ...]] = {
    "pattern": ("head", "query", "key"),
    "scores": ("head", "query", "key"),
    "z": ("position", "head", "d_head"),
    "q": ("position", "head", "d_head"),
    "k": ("position", "kv_head", "d_head"),
    "v": ("position", "kv_head", "d_head"),
}


class Head(NamedTuple):
    """A query head: layer and head, both zero-based. ``str(Head(5, 1)) == "L5H1"``."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head}"

    @classmethod
    def parse(cls, text: str) -> "Head":
        """``"L5H1"`` to ``Head(5, 1)``; anything else is a `RequestError`."""
        match = re.fullmatch(r"[Ll](\d+)[Hh](\d+)", text.strip())
        if not match:
            raise RequestError("heads", text, "a head is written L5H1 (layer 5, head 1)")
        return cls(int(match[1]), int(match[2]))


def check_head(head: Head, model: str, n_layers: int, n_heads: int) -> Head:
    """The head itself, if the model has it; otherwise a `RequestError` that says what it has."""
    if not 0 <= head.layer < n_layers:
        raise RequestError("heads", str(head), f"{head} is outside {model}: it has layers 0-{n_layers - 1}")
    if not 0 <= head.head < n_heads:
        raise RequestError("heads", str(head), f"{head} is outside {model}: it has heads 0-{n_heads - 1} in each layer")
    return head


def parse_heads(asked: str | Head | Iterable[str | Head], model: str, n_layers: int, n_heads: int) -> tuple[Head, ...]:
    """``"all"``, one head, or names such as ``["L5H1", "L7"]`` (a whole layer), to heads in order, each once."""
    names = [asked] if isinstance(asked, str | Head) else list(asked)
    if names == ["all"]:
        return tuple(Head(layer, head) for layer in range(n_layers) for head in range(n_heads))
    wanted: set[Head] = set()
    for name in names:
        layer = re.fullmatch(r"[Ll](\d+)", name.strip()) if isinstance(name, str) else None
        if layer:
            wanted |= {check_head(Head(int(layer[1]), head), model, n_layers, n_heads) for head in range(n_heads)}
        else:
            head = Head.parse(name) if isinstance(name, str) else Head(*name)
            wanted.add(check_head(head, model, n_layers, n_heads))
    if not wanted:
        raise RequestError("heads", "[]", "name at least one head, or say heads=all")
    return tuple(sorted(wanted))


def hook_name(kind: Kind, layer: int) -> str:
    """The hook point that carries `kind` in this layer of a decoder."""
    return f"blocks.{layer}.attn.hook_{'attn_scores' if kind == 'scores' else kind}"


def blocks(bridge: Any) -> list[Any]:
    """The layers of a decoder, in order, as torch modules."""
    return list(bridge.blocks)


def output_projection(bridge: Any, layer: int) -> Any:
    """The torch module W_O itself, below TransformerLens: it reads z with the heads side by side."""
    return bridge.blocks[layer].attn.o.original_component
