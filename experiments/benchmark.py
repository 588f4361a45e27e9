"""Time a sweep against loops of whole forwards in one process, or the opening of a saved run's report.

python -m experiments.benchmark prompts=ioi metric=logit_diff positions=last
python -m experiments.benchmark page=results/study/…
"""

import json
import time
from typing import TYPE_CHECKING, Any

from experiments._launch import main as launch
from experiments._launch import tell
from harness import config

if TYPE_CHECKING:
    from harness.results.objects import Folder


def main() -> None:
    launch("benchmark", run_benchmark)


def run_benchmark(values: dict[str, Any]) -> "Folder":
    """Run the benchmark and return the JSON file of its rounds."""
    spec = config.parse(config.BenchmarkSpec, values)
    if spec.page is None:
        from harness.prompts import check_prompts

        check_prompts(spec.prompts)  # before the slow import of torch
    from harness.benchmark import benchmark, page_times
    from harness.results import store
    from harness.results.objects import folder_at

    results = benchmark(spec, tell) if spec.page is None else page_times.measure(spec.page, spec.rounds, tell)
    path = folder_at(spec.store) / "benchmark" / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    store.write_text(path, json.dumps(results, indent=1))
    return path


if __name__ == "__main__":
    main()
