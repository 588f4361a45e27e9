"""Collect saved runs: their tables in one file, and one page that sets them side by side.

python -m experiments.collect runs='results/ablate_heads/*'
python -m experiments.collect runs=[results/a,results/b] metric=loss by=depth
"""

import time
from typing import TYPE_CHECKING, Any

from experiments._launch import main as launch
from harness import config

if TYPE_CHECKING:
    from harness.results.objects import Folder


def main() -> None:
    launch("collect", collect)


def collect(values: dict[str, Any]) -> "Folder":
    """Write the collected table and page, and return their directory."""
    spec = config.parse(config.CollectSpec, values)
    from harness.compare.many_runs import open_runs
    from harness.results.objects import folder_at
    from harness.views.many_runs_page import write_collected

    runs = open_runs(spec.runs)
    folder = folder_at(spec.store) / "collect" / time.strftime("%Y%m%d-%H%M%S")
    return write_collected(runs, folder, spec.metric, spec.by, spec.top_k)


if __name__ == "__main__":
    main()
