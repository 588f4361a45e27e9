"""What can be known of a model before torch is imported: how many layers and heads its config.json says it has."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.config import ModelSpec, PathModel, WheelModel
from harness.hooks import Head, Layers, parse_heads
from harness.models.sources import cached_wheel

#: What families call the number of layers, and of heads in each.
_LAYERS, _HEADS = ("num_hidden_layers", "n_layer", "num_layers"), ("num_attention_heads", "n_head", "num_heads")


def check_heads(spec: ModelSpec, asked: str | Head | Iterable[str | Head], key: str) -> None:
    """Refuse heads that the model does not have, where that can be told at once; a `RequestError` names `key`."""
    known = _known(spec)
    if known is not None:
        parse_heads(asked, spec.name, *known, key)


def _known(spec: ModelSpec) -> tuple[Layers, int] | None:
    """Layers (of each stack) and heads; nothing where the weights are not here yet or the config is another's."""
    match spec:
        case WheelModel():
            folder = cached_wheel(spec)
        case PathModel():
            folder = Path(spec.path)
        case _:
            return None
    try:
        said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        n_layers, n_heads = _first(said, _LAYERS), _first(said, _HEADS)
        if not said.get("is_encoder_decoder"):
            return n_layers, n_heads
        written = int(said.get("num_decoder_layers") or n_layers)
    except (OSError, ValueError, TypeError, AttributeError, StopIteration):
        return None
    return {"encoder": n_layers, "decoder": written, "cross": written}, n_heads


def _first(said: dict[str, Any], names: Iterable[str]) -> int:
    return next(int(said[name]) for name in names if name in said)
