"""Convert quantised weights in a GGUF file to an ordinary model folder, once."""

from pathlib import Path
from typing import Any

from harness.config import RequestError
from harness.models.cache import build_cached, sha256
from harness.models.sources.model_folder import check_whole, first_line


def from_gguf(path: Path) -> Path:
    """Return the cached folder of a GGUF file. Raises `RequestError` for a missing or damaged file."""
    if not path.is_file():
        raise RequestError("model.path", path, "there is no such file")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise RequestError("model.path", path, "this is not a GGUF file: it does not begin with GGUF")
    return build_cached(f"gguf-{sha256(path)[:16]}", lambda folder: convert(path, folder))


def convert(path: Path, folder: Path) -> None:
    """Dequantise to fp32 and save as safetensors, without GGUF's keys in the config."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path.parent, dtype=torch.float32, output_loading_info=True, **options
        )
        quantised, info = loaded
        check_whole(info, "model.path", path)
        tokenizer = AutoTokenizer.from_pretrained(path.parent, **options)
    except RequestError:
        raise
    except Exception as error:  # readers raise errors of any type for a damaged file
        raise RequestError("model.path", path, f"this GGUF file cannot be read ({first_line(error)})") from None
    marks = {"quantization_config", "_name_or_path"}
    plain = {key: value for key, value in quantised.config.to_dict().items() if key not in marks}
    model = type(quantised)(type(quantised.config)(**plain))
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
