"""What may be looked at: one text, or a pair of sentences."""

from typing import Annotated, Literal

from pydantic import Field

from harness.config.models import ModelSpec
from harness.config.types import PathText, Text, spec


@spec
class LookSpec:
    """A `text` (with its second sentence `pair`, or the `target` that an encoder-decoder writes), the model that reads
    it, and the page: the heads of one `layer` or of all, by ``token`` or by ``word``."""

    model: ModelSpec
    text: Annotated[Text, Field(min_length=1)]
    pair: Text | None = None
    target: Text | None = None
    layer: Annotated[int, Field(ge=0)] | None = None
    level: Literal["token", "word"] | None = None
    store: PathText = "results"
