"""Where units of work run. It decides how fast, never what comes out."""

from typing import Annotated, Literal

from pydantic import Field

from harness.config.types import PositiveInt, Text, spec


@spec
class LocalExecute:
    """In this process, or spread over `workers` of its own on this machine, each with a model and its share of the
    threads."""

    name: Literal["local"] = "local"
    workers: PositiveInt = 1


@spec
class RayExecute:
    """Over a Ray cluster: at `address` (``auto``: the one this machine belongs to), or one started on this machine.

    `workers` at most; without it one for each GPU, and where there are none one for every `cpus` processors, also of
    nodes that join later. A worker has `cpus` threads.
    """

    name: Literal["ray"]
    address: Text | None = None
    workers: PositiveInt | None = None
    cpus: PositiveInt = 1


ExecuteSpec = Annotated[LocalExecute | RayExecute, Field(discriminator="name")]
