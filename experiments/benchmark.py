"""How fast a sweep is beside a loop of whole TransformerLens forwards, in one process, side by side; or how soon the
report of a saved run opens.

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
    launch("benchmark", timed)


def timed(values: dict[str, Any]) -> "Folder":
    """The file in which every round stands."""
    asked = config.parse(config.BenchmarkSpec, values)
    if asked.page is None:
        from harness.prompts import check_prompts

        check_prompts(asked.prompts)  # before waiting for torch and a model
    from harness.benchmark import benchmark, page
    from harness.results import store
    from harness.results.objects import folder_at

    found = benchmark(asked, tell) if asked.page is None else page.measured(asked.page, asked.rounds, tell)
    path = folder_at(asked.store) / "benchmark" / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    store.write_text(path, json.dumps(found, indent=1))
    return path


if __name__ == "__main__":
    main()
