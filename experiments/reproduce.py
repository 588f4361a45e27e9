"""Run a saved spec again in today's environment and compare, value by value; exit code 1 if one moved.

python -m experiments.reproduce run=results/reference/planted
python -m experiments.reproduce run=results/reference/planted resume=results/ablate_heads/20260101-120000-0123abcd
"""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_type_hints

from experiments._launch import main as launch
from experiments._launch import progress, tell
from harness import config

if TYPE_CHECKING:
    from harness.results.objects import Folder

SHOWN = 20  # moved values on the terminal; all are in reproduction.json


def main() -> None:
    launch("reproduce", rerun)


def rerun(values: dict[str, Any]) -> "Folder":
    """Reproduce a run and return the new directory; exit with code 1 if a value moved."""
    _check_unchanged(values)
    spec = config.parse(config.ReproduceSpec, values)
    config.check_there("run", spec.run)
    if spec.resume:
        config.check_there("resume", spec.resume)
    from harness.study.reproduce import reproduce

    result = reproduce(spec.run, spec.store, progress(), tell, spec.resume)
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


def _check_unchanged(values: Mapping[str, Any]) -> None:
    """Raise `RequestError` for settings of the run itself: the saved spec is reproduced."""
    for key, value in values.items():
        if key not in get_type_hints(config.RunSpec):
            continue
        while isinstance(value, Mapping) and value:  # seed=1, and prompts.seed=1 as it was written
            inner, value = next(iter(value.items()))
            key = f"{key}.{inner}"
        remedy = (
            f"a run is reproduced with its saved settings, so leave this out; for another run: study {key}={value} …"
        )
        raise config.RequestError(key, value, remedy)


if __name__ == "__main__":
    main()
