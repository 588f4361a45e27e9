"""Specs of where units of work run; they change the speed of a run, not its numbers."""

from typing import Annotated, Literal

from pydantic import Field

from harness.config.types import PositiveInt, Text, spec


@spec
class Execute:
    """What all ways have."""

    keep_memory: bool = True
    """Keep freed memory in the process until the stages are done, which saves page faults (with glibc)."""


@spec
class LocalExecute(Execute):
    """Units are computed on this machine."""

    name: Literal["local"] = "local"
    """Which of the options this is."""
    workers: PositiveInt = 1
    """Processes on this machine, each with its own model and share of the threads; 1: this process."""


@spec
class RayExecute(Execute):
    """A Ray cluster; actors also start on nodes that join later."""

    name: Literal["ray"]
    """Which of the options this is."""
    address: Text | None = None
    """Address of the cluster: auto (the one of this machine) or HOST:PORT; null starts one here."""
    workers: PositiveInt | None = None
    """Largest number of actors; null: one for each GPU, or for every execute.cpus processors."""
    cpus: PositiveInt = 1
    """Processors, and threads, of each worker."""


ExecuteSpec = Annotated[LocalExecute | RayExecute, Field(discriminator="name")]
