"""List the runs in a store, newest first, or delete runs by name.

python -m experiments.list where.model=smollm2 where.status=complete
python -m experiments.list delete=[study/20260101-120000-0123abcd] confirm=true
"""

import time
from typing import Any

from experiments._launch import main as launch
from experiments._launch import tell
from harness import config


def main() -> None:
    launch("list", list_runs)


def list_runs(values: dict[str, Any]) -> None:
    """Print the table of runs on standard output, and deleted runs on standard error."""
    spec = config.parse(config.ListSpec, values)
    from harness.results.runs import delete, format_table, runs

    for name, size in delete(spec):
        tell(f"deleted {name} ({size})")
    print("\n".join(format_table(runs(spec), time.time())), flush=True)


if __name__ == "__main__":
    main()
