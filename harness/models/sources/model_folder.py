"""Check a model folder: required files, and formats that are refused."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from harness.config import RequestError


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model folder."""
    return sorted(folder.glob("*.safetensors"))


def checked_folder(folder: Path, key: str = "model.path", hub: str | None = None) -> Path:
    """Return the folder if its model can be read without running code; `hub` is its repository.

    Raises `RequestError` with `key` for a missing folder or config, an adapter, a quantised model, pickles and damaged
    safetensors.
    """
    if not folder.is_dir():
        raise RequestError(key, folder, "there is no such folder")
    if (folder / "adapter_config.json").is_file():
        raise RequestError(key, hub or folder, _merge(folder, hub))
    if not (folder / "config.json").is_file():
        raise RequestError(key, folder, "this folder has no config.json: give one that save_pretrained wrote")
    if not weight_files(folder):
        raise RequestError(key, hub or folder, _no_weights(folder, hub))
    method = quantisation(_settings(folder))
    if method and method not in _DEQUANTISED:
        raise RequestError(key, hub or folder, quantised(method))
    for path in weight_files(folder):
        _check_safetensors(path, key)
    return folder


#: Methods whose weights transformers turns into ordinary ones where their kernels are missing.
_DEQUANTISED = ("fp8", "mxfp4")


def quantisation(settings: Mapping[str, Any]) -> str:
    """Return the name of a config's quantisation method; empty without one."""
    how = settings.get("quantization_config")
    if not how:
        return ""
    of = how if isinstance(how, Mapping) else vars(how)
    return str(getattr(of.get("quant_method"), "value", of.get("quant_method")) or "quantization_config")


def quantised(method: str) -> str:
    """Describe what to do about a quantised model."""
    return f"it is quantised ({method}), and heads are studied in plain weights: pass the model before quantisation"


def _settings(folder: Path) -> Mapping[str, Any]:
    """Return the values of config.json; none of a damaged one, which its loader reports."""
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return values if isinstance(values, Mapping) else {}


def _merge(folder: Path, hub: str | None) -> str:
    """Describe how to merge a LoRA adapter, which is no model by itself, into its base model."""
    new = f"{PurePosixPath(hub).name if hub else folder}-merged"
    old, to = (json.dumps(name, ensure_ascii=False) for name in (hub or str(folder), new))
    code = (
        f"peft.AutoPeftModelForCausalLM.from_pretrained({old}).merge_and_unload().save_pretrained({to}), "
        f"and transformers.AutoTokenizer.from_pretrained({old}).save_pretrained({to})"
    )
    what = "this is a LoRA adapter (adapter_config.json), not a model"
    return f"{what}: merge it first, with {code}; then set model=path model.path={shlex.quote(new)}"


def _no_weights(folder: Path, hub: str | None) -> str:
    """Describe what a folder has in place of safetensors, with the command that converts head and tokenizer too."""
    pickles = sorted(path.name for end in ("bin", "pt", "pth", "ckpt") for path in folder.glob(f"*.{end}"))
    if not pickles and not hub:
        return "this folder has no .safetensors file: save the model there"
    what = f"{pickles[0]} is a pickle" if pickles else "it has no .safetensors file: perhaps its weights are a pickle"
    new = f"{PurePosixPath(hub).name if hub else folder}-safe"
    names = ", ".join(json.dumps(name, ensure_ascii=False) for name in (hub or str(folder), new))
    code = (
        f"import transformers as t; old, new = {names}; "
        f"t.{_class_of(folder)}.from_pretrained(old, use_safetensors=False).save_pretrained(new); "
        "t.AutoTokenizer.from_pretrained(old).save_pretrained(new)"
    )
    command = f"python -c {shlex.quote(code)}"
    return (
        f"{what}, which can run code, and is not read: convert it once, where you trust it, with {command}, "
        f"then set model=path model.path={shlex.quote(new)}"
    )


def _class_of(folder: Path) -> str:
    """Return the transformers class that a config names; another class would drop the head."""
    try:
        named = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]
    except (OSError, ValueError, LookupError, TypeError):
        return "AutoModelForCausalLM"
    return named if isinstance(named, str) and named.isidentifier() else "AutoModelForCausalLM"


def has_tokenizer(folder: Path) -> bool:
    """Whether a vocabulary is there. Without one, transformers may silently make an empty tokenizer."""
    patterns = ("tokenizer.json", "*.model", "vocab*", "*.tiktoken")
    return any(path.is_file() for pattern in patterns for path in folder.glob(pattern))


def check_whole(info: dict[str, Any], key: str, value: object, kind: str = "decoder") -> None:
    """Raise `RequestError` where transformers filled in weights that the files lack or have in another shape."""
    missing = sorted(name for name in info["missing_keys"] if not (kind == "embedding" and "pooler" in name.split(".")))
    if missing:
        raise RequestError(
            key,
            value,
            f"its file lacks {len(missing)} of the model's weights, such as {missing[0]}: "
            "they would be random; save or fetch it again",
        )
    if other := sorted(str(each[0]) for each in info["mismatched_keys"]):
        raise RequestError(key, value, f"{len(other)} weights are of another shape than in its config: {other[0]}")


def _check_safetensors(path: Path, key: str) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            list(file.keys())
    except (SafetensorError, OSError) as error:
        raise RequestError(key, path, f"this is not a whole safetensors file ({error})") from None


def first_line(error: Exception) -> str:
    """Return the first line of an error's text (and the second, where the first ends in a colon), or its name."""
    first, *rest = str(error).splitlines() or [type(error).__name__]
    return " ".join([first, *rest[: first.endswith(":")]])
