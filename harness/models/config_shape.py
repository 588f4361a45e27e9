"""Layers and heads of a model from its config.json, before torch is imported."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.config import GgufModel, ModelSpec, PathModel, PlantedModel, RandomModel, RequestError, WheelModel
from harness.hooks import Layers, parse_heads
from harness.models.sources import cached_wheel

#: Keys of config.json for the number of layers, and of heads in each, in all families.
_LAYERS, _HEADS = ("num_hidden_layers", "n_layer", "num_layers"), ("num_attention_heads", "n_head", "num_heads")


def check_heads(spec: ModelSpec, names: Iterable[str], key: str) -> None:
    """Raise `RequestError` with `key` for heads that the model lacks, where its config.json is at hand."""
    known = _known(spec)
    if known is not None:
        parse_heads(names, spec.name, *known, key)


def check_file(spec: ModelSpec) -> None:
    """Raise `RequestError` where the folder or file of a model is not there."""
    if isinstance(spec, PathModel) and not Path(spec.path).is_dir():
        raise RequestError("model.path", spec.path, "there is no such folder")
    if isinstance(spec, GgufModel) and not Path(spec.path).is_file():
        raise RequestError("model.path", spec.path, "there is no such file")


def is_decoder(spec: ModelSpec) -> bool:
    """Whether a model is known, without loading it, to predict next tokens."""
    if isinstance(spec, PlantedModel | GgufModel):
        return True
    if isinstance(spec, RandomModel):
        return not spec.shape.startswith(("bert", "t5"))
    return "CausalLM" in str(_settings(spec).get("architectures")) or (
        isinstance(spec, WheelModel) and spec.file.endswith(".gguf")
    )


def _settings(spec: ModelSpec) -> dict[str, Any]:
    """Return the config.json of a model; empty without weights on this machine."""
    match spec:
        case WheelModel():
            folder = cached_wheel(spec)
        case PathModel():
            folder = Path(spec.path)
        case _:
            return {}
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _known(spec: ModelSpec) -> tuple[Layers, int] | None:
    """Return layers (of each stack) and heads; ``None`` without weights on this machine or with an unknown config."""
    settings = _settings(spec)
    try:
        n_layers, n_heads = _first(settings, _LAYERS), _first(settings, _HEADS)
        if not settings.get("is_encoder_decoder"):
            return n_layers, n_heads
        written = int(settings.get("num_decoder_layers") or n_layers)
    except (ValueError, TypeError, StopIteration):
        return None
    return {"encoder": n_layers, "decoder": written, "cross": written}, n_heads


def _first(settings: dict[str, Any], names: Iterable[str]) -> int:
    return next(int(settings[name]) for name in names if name in settings)
