"""Snapshots of the Hugging Face hub, from its local cache or fetched."""

import json
import re
from pathlib import Path
from typing import Any

from harness.config import HubModel, RequestError
from harness.models.cache import sha256
from harness.models.sources.model_folder import checked_folder, first_line, has_tokenizer, weight_files

#: What may be fetched from the hub: weights that cannot run code, and the text files beside them.
HUB_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja")


def from_hub(spec: HubModel) -> Path:
    """Return the snapshot in the local Hugging Face cache, or fetch it. Raises `RequestError` if neither works."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [*HUB_FILES, "*.py"] if spec.trust_remote_code else list(HUB_FILES)
    files: dict[str, Any] = {"revision": spec.revision, "allow_patterns": patterns}
    try:
        folder = Path(snapshot_download(spec.id, local_files_only=True, **files))
        if _complete(folder) or (folder / "adapter_config.json").is_file():
            return _unharmed(folder, spec.id)
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise RequestError("model.id", spec.id, f"this is not a repository name ({error})") from None
    try:
        folder = Path(snapshot_download(spec.id, etag_timeout=10, **files))
    except HfHubHTTPError as error:
        raise RequestError("model.id", spec.id, f"the hub refuses it ({first_line(error)})") from None
    except Exception as error:  # the hub's client passes on errors of its HTTP library
        fetch = f"hf download {spec.id}" + (f" --revision {spec.revision}" if spec.revision else "")
        why = f"it is not cached and the hub does not answer ({first_line(error)})"
        raise RequestError("model.id", spec.id, f"{why}; where there is a network, run: {fetch}") from error
    return _unharmed(folder, spec.id)


def _unharmed(folder: Path, hub: str) -> Path:
    """Return the snapshot if its weights have their checksums: the cache names large files by SHA-256."""
    for path in weight_files(checked_folder(folder, "model.id", hub)):
        kept = path.resolve()
        if re.fullmatch("[0-9a-f]{64}", kept.name) and sha256(kept) != kept.name:
            remedy = f"{path.name} in the cache is not what the hub has: remove it, and it is fetched anew: rm {kept}"
            raise RequestError("model.id", hub, remedy)
    return folder


def _complete(folder: Path) -> bool:
    """Whether a snapshot has config, tokenizer and every weight file of its index: a fetch can be interrupted."""
    if not ((folder / "config.json").is_file() and weight_files(folder) and has_tokenizer(folder)):
        return False
    index = folder / "model.safetensors.index.json"
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index.is_file() else ()
    except (OSError, ValueError, KeyError, AttributeError):
        return False
    return all((folder / shard).is_file() for shard in shards)
