"""Specs of where units of work run; they change the speed of a run, not its numbers."""

from typing import Annotated, Literal

from pydantic import Field

from harness.config.types import PositiveInt, Text, spec


@spec
class LocalExecute:
    """This process, or `workers` processes on this machine, each with its own model and share of the threads."""

    name: Literal["local"] = "local"
    workers: PositiveInt = 1


@spec
class RayExecute:
    """A Ray cluster: at `address` (``auto``: the one this machine belongs to), or one started on this machine.

    At most `workers` actors; by default one per GPU, or without GPUs one per `cpus` processors, also of nodes that join
    later. A worker has `cpus` threads.
    """

    name: Literal["ray"]
    address: Text | None = None
    workers: PositiveInt | None = None
    cpus: PositiveInt = 1


ExecuteSpec = Annotated[LocalExecute | RayExecute, Field(discriminator="name")]
