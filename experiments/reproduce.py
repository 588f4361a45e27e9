"""Run a saved spec again in today's environment and compare, value by value; exit code 1 if one moved.

python -m experiments.reproduce run=results/reference/planted
"""

import sys
from typing import TYPE_CHECKING, Any

from experiments._launch import main as launch
from experiments._launch import progress, tell
from harness import config

if TYPE_CHECKING:
    from harness.results.objects import Folder

SHOWN = 20  # moved values on the terminal; all are in reproduction.json


def main() -> None:
    launch("reproduce", again)


def again(values: dict[str, Any]) -> "Folder":
    """The directory of the new run; leaves with exit code 1 if it is not what the saved one was."""
    asked = config.parse(config.ReproduceSpec, values)
    config.check_there("run", asked.run)
    from harness.reproduce import reproduce

    result = reproduce(asked.run, asked.store, progress(), tell)
    for line in result.environment:
        tell(f"environment: {line}")
    for moved in result.moved[:SHOWN]:
        tell(f"moved: {moved}")
    if len(result.moved) > SHOWN:
        tell(f"… and {len(result.moved) - SHOWN} more, in {result.run / 'reproduction.json'}")
    tell(f"{result.compared - len(result.moved)} of {result.compared} values hold within {result.tolerance:g}")
    if not result.holds:
        print(result.run, flush=True)
        sys.exit(1)
    return result.run


if __name__ == "__main__":
    main()
