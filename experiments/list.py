"""The runs in a store, newest first; or delete those that are named.

python -m experiments.list where.model=smollm2 where.status=complete
python -m experiments.list delete=[study/20260101-120000-0123abcd] confirm=true
"""

import time
from typing import Any

from experiments._launch import main as launch
from experiments._launch import tell
from harness import config


def main() -> None:
    launch("list", listed)


def listed(values: dict[str, Any]) -> None:
    """The table of runs on standard output; what was deleted on standard error."""
    asked = config.parse(config.ListSpec, values)
    from harness.results.runs import delete, described, runs

    for name, size in delete(asked):
        tell(f"deleted {name} ({size})")
    print("\n".join(described(runs(asked), time.time())), flush=True)


if __name__ == "__main__":
    main()
