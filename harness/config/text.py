"""Spec of texts that are written with heads ablated."""

from typing import Annotated

from pydantic import Field

from harness.config.errors import RequestError
from harness.config.types import PositiveInt, spec


@spec
class TextSpec:
    """How the clean and the ablated model continue a text."""

    max_new_tokens: PositiveInt = 20
    """Largest number of tokens written; an end-of-text token ends a text before."""
    sample: bool = False
    """Draw each token, with the run's seed for every model alike; false: take the most likely one."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of the draws."""
    singly: bool = False
    """Also ablate each head of a set alone, and name the one that changes a text soonest."""

    def __post_init__(self) -> None:
        if self.temperature != 1 and not self.sample:
            raise RequestError("text.temperature", self.temperature, "it is of draws: set text.sample=true")
