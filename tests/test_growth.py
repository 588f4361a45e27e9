"""Many prompts, many heads, many workers: on a simulated clock, with unit times that were recorded."""

import json
import random
from pathlib import Path

import pytest
from pools import Simulated

from harness.execute.spread import spread

ROOT = Path(__file__).parents[1]
#: Seconds of each unit (8 prompts, in the order of the plan) of a sweep of the last layers of SmolLM2.
RECORDED = json.loads((ROOT / "tests/data/unit_seconds.json").read_text())
JOIN = 4.0  # seconds until a worker has loaded its model


def times(n, seed=0):
    """So many unit times, drawn from those recorded, the longest prompts last as in a plan."""
    chance = random.Random(seed)
    return sorted(chance.choice(RECORDED["seconds"]) for _ in range(n))


@pytest.mark.parametrize("n_workers", [2, 3, 4, 8, 16, 32, 64])
@pytest.mark.parametrize("n_units", [125, 1250])
def test_workers_stay_near_the_ideal(n_workers, n_units):
    seconds = times(n_units)
    pool = Simulated(seconds, [JOIN] * n_workers)
    spread(pool, "sweep", range(n_units), lambda _: None, lambda _: None)
    ideal = JOIN + max(sum(seconds) / n_workers, max(seconds))
    assert ideal <= pool.now <= 1.10 * ideal


def test_in_the_order_in_which_units_come_it_would_not_do():
    """The check can fail: shortest first, one long unit last."""
    seconds = [1.0] * 64 + [40.0]
    pool = Simulated(list(reversed(seconds)), [0.0] * 64)  # spread begins with the last, here the shortest
    spread(pool, "sweep", range(65), lambda _: None, lambda _: None)
    assert pool.now > 1.02 * max(sum(seconds) / 64, 40)
    pool = Simulated(seconds, [0.0] * 64)
    spread(pool, "sweep", range(65), lambda _: None, lambda _: None)
    assert pool.now == 40


def test_with_workers_that_die_and_join_no_unit_is_lost():
    seconds = times(400)
    chance = random.Random(1)
    joins = [JOIN] * 4 + [chance.uniform(10, 100) for _ in range(12)]
    pool = Simulated(seconds, joins, dies={worker: joins[worker] + chance.uniform(1, 60) for worker in range(1, 12)})
    made = []
    spread(pool, "sweep", range(400), made.append, lambda _: None)
    assert len(made) == 400
    assert {unit for _, unit in pool.given} == set(range(400))


DRIVER = """
import sys
import numpy as np
import torch  # a driver has it, for its plan
from transformer_lens.model_bridge import TransformerBridge
sys.path[:0] = [sys.argv[2], sys.argv[2] + "/tests"]
from pathlib import Path
from pools import Many, Writing
from harness.execute import run_stage
from harness.results.manifest import peak_memory_gb
from harness.results.store import StageFolder

stage, folder = Many(10_000, 1_000), StageFolder(Path(sys.argv[1]) / "stages/many")
data = run_stage(stage, folder, lambda *_: None, None, Writing(stage, folder), print)
assert data.effect.shape == (1, 10_000, 1_000)
assert float(data.effect[0, 4321, 123]) == stage.value(4321, 123)
print(peak_memory_gb())
"""


@pytest.mark.soak
def test_the_driver_of_10000_prompts_and_1000_heads_stays_under_1_gb(launch, tmp_path):
    done = launch.python(DRIVER, str(tmp_path), str(ROOT))
    assert done.returncode == 0, done.stderr
    assert 0.4 < float(done.stdout.split()[-1]) < 1
