"""Units spread over workers: the same values, whoever computes them and whoever dies over them."""

import os
import re
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pools
import pytest
import xarray as xr
from pools import Numbers, Simulated, Sums
from runs import same
from thinned import most

from harness import study
from harness.config import RayExecute, RequestError, RunSpec, parse
from harness.execute import UnitsLost, run_stage
from harness.execute.cluster import Cluster as RayWorkers
from harness.execute.processes import Processes
from harness.execute.spread import TurnResult, spread
from harness.execute.worker import NoWorkers, WorkerFailed, portable
from harness.results import manifest
from harness.results.store import StageFolder
from harness.sweep.division import SplitStage

ROOT = Path(__file__).parents[1]


def asked(**changes):
    values = {"model": {"name": "random", "source": "random"}, "prompts": {"name": "ioi", "n": 12}, **changes}
    return parse(RunSpec, values)


# --- who gets which unit ----------------------------------------------------------------------------------------


def spreading(pool, n):
    made, said = [], []
    spread(pool, "numbers", range(n), made.append, said.append)
    return made, said


def test_every_unit_is_given_once_and_the_last_first():
    pool = Simulated([1.0] * 7, [0, 0])
    made, said = spreading(pool, 7)
    assert [unit for _, unit in pool.given] == [6, 5, 4, 3, 2, 1, 0]
    assert made == [1.0] * 7
    assert said == []
    assert pool.now == 4


def test_a_worker_that_dies_takes_no_unit_with_it():
    pool = Simulated([1.0] * 6, [0, 0, 0], dies={1: 1.5})
    made, said = spreading(pool, 6)
    given = [unit for _, unit in pool.given]
    assert sorted(set(given)) == list(range(6))
    assert len(given) == 7
    assert len(made) == 6
    assert said == [f"numbers: a worker died in unit {given[4]}; another does it again"]


def test_workers_that_join_later_are_used():
    pool = Simulated([1.0] * 10, [0, 3.0])
    spreading(pool, 10)
    assert {worker for worker, _ in pool.given} == {0, 1}
    assert pool.now == 7  # three alone, then seven by two


class Dying(Simulated):
    """A worker that dies of unit 2, and is replaced."""

    def wait(self):
        ended = super().wait()
        if self.given and self.given[-1][1] == 2 and ended:
            return [TurnResult(ended[0].worker, died=True)]
        return ended


def test_a_unit_that_kills_twice_is_left_and_named():
    pool, made, said = Dying([1.0] * 5, [0]), [], []
    with pytest.raises(UnitsLost, match="^numbers: unit 2 killed its worker twice and is not done; all others are$"):
        spread(pool, "numbers", range(5), made.append, said.append)
    assert [unit for _, unit in pool.given] == [4, 3, 2, 1, 0, 2]
    assert len(made) == 4
    assert said[-1] == "numbers: a worker died in unit 2; it is left aside"


def test_an_error_of_a_unit_ends_it_at_once():
    class Failing(Simulated):
        def wait(self):
            return [TurnResult(each.worker, 0, ZeroDivisionError("lightning")) for each in super().wait()]

    with pytest.raises(ZeroDivisionError, match="lightning"):
        spreading(Failing([1.0] * 5, [0]), 5)


# --- cut along the model ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "ablation", "metrics"),
    most(
        [
            ("llama", {"name": "zero"}, ["loss", "kl"]),
            ("gpt2", {"name": "resample", "draws": 2}, ["logit_diff", "kl"]),
            ("neox", {"name": "mean"}, ["kl"]),
        ],
        2,
    ),
)
def test_a_split_sweep_gives_the_same_bits(tmp_path, shape, ablation, metrics):
    spec = asked(model={"name": "random", "source": "random", "shape": shape}, ablation=ablation, metrics=metrics)
    (stage,) = study.prepare("ablate_heads", spec).stages
    stage = type(stage)(**{**vars(stage), "memory": 0.002})  # small chunks: many places to cut
    whole = run_stage(stage, StageFolder(tmp_path / "whole"), lambda *_: None)
    cut = SplitStage(stage, 5)
    plan = cut.plan()
    assert len(plan["batches"]) >= 8
    assert sorted(place for batch, places in plan["parts"] for place in places if batch == 0) == list(range(12))
    parts = run_stage(cut, StageFolder(tmp_path / "parts"), lambda *_: None)
    xr.testing.assert_identical(without_checks(parts), without_checks(whole))
    assert parts.effect.attrs["edits_verified"] >= whole.effect.attrs["edits_verified"]


def without_checks(data):
    """The arrays, without how often they were checked."""
    data = data.copy()
    for array in data.values():
        for name in ("edits_verified", "plain_forward_difference"):
            array.attrs.pop(name, None)
    return data


def test_only_few_prompts_are_split():
    (stage,) = study.prepare("ablate_heads", asked(prompts={"name": "ioi", "n": 3})).stages
    assert stage.divided(1) is stage
    assert isinstance(stage.divided(2), SplitStage)
    (many,) = study.prepare("ablate_heads", asked(prompts={"name": "ioi", "n": 64})).stages
    assert many.divided(2) is many
    plan = stage.divided(2).plan()
    assert isinstance(stage.as_planned(plan), SplitStage)  # also where it would not be cut now
    assert stage.as_planned(stage.plan()) is stage


# --- processes --------------------------------------------------------------------------------------------------


@pytest.fixture
def pool_of(tmp_path):
    """Processes that build what is given; stopped at the end."""
    made = []

    def start_workers(build, n=2):
        made.append(Processes(build, tmp_path, n, threads=n))
        return made[-1]

    yield start_workers
    for pool in made:
        pool.stop()


def carried_out(stage, tmp_path, pool):
    said = []
    folder = StageFolder(tmp_path / "stages" / stage.name)
    return run_stage(stage, folder, lambda *_: None, None, pool, said.append), said


def test_processes_compute_what_this_process_would(tmp_path, pool_of):
    pool = pool_of(partial(pools.numbers, 9, {}, str(tmp_path)))
    data, _ = carried_out(Numbers(9), tmp_path, pool)
    assert data.value.values.tolist() == [number**2 for number in range(9)]
    by = {mark.name.split("-")[2] for mark in tmp_path.glob("made-*")}
    assert str(os.getpid()) not in by
    chain, _ = carried_out(Sums(5), tmp_path, pool)
    assert chain.value.values.tolist() == [1, 2, 4, 8, 16]


def test_a_unit_whose_worker_died_is_done_again(tmp_path, pool_of):
    harm = dict.fromkeys((1, 4, 6), "once")
    pool = pool_of(partial(pools.numbers, 9, harm, str(tmp_path)))
    data, said = carried_out(Numbers(9), tmp_path, pool)
    assert data.value.values.tolist() == [number**2 for number in range(9)]
    assert sorted(said) == [f"numbers: a worker died in unit {unit}; another does it again" for unit in (1, 4, 6)]
    assert len(list(tmp_path.glob("made-*"))) == 9  # none is made twice


def test_a_unit_that_kills_its_workers_is_named_and_the_others_are_done(tmp_path, pool_of):
    pool = pool_of(partial(pools.numbers, 6, {3: "kill"}, str(tmp_path)))
    with pytest.raises(UnitsLost, match="unit 3 killed its worker twice"):
        carried_out(Numbers(6), tmp_path, pool)
    folder = StageFolder(tmp_path / "stages/numbers")
    assert [number for number in range(6) if folder.read(number) is None] == [3]


def test_what_a_unit_raises_comes_home(tmp_path, pool_of):
    with pytest.raises(WorkerFailed, match="numbers, unit 5: ZeroDivisionError: lightning"):
        carried_out(Numbers(6), tmp_path, pool_of(partial(pools.numbers, 6, {5: "raise"}, None)))
    with pytest.raises(RequestError, match="heads=L9H9: no such head"):
        carried_out(Numbers(6), tmp_path, pool_of(partial(pools.numbers, 6, {2: "refuse"}, None)))


def test_workers_have_the_environment_of_who_asks(tmp_path, pool_of, monkeypatch):
    for key in ("first", "second"):
        monkeypatch.setenv("HARNESS_TEST_KEY", key)
        with pytest.raises(RequestError, match=f"key={key}: this it has"):
            carried_out(Numbers(6), tmp_path / key, pool_of(pools.keyed))


def test_workers_that_cannot_begin(tmp_path, pool_of):
    with pytest.raises(RequestError, match="model=x: there is none"):
        carried_out(Numbers(6), tmp_path, pool_of(pools.unbuildable))
    with pytest.raises(NoWorkers, match="3 workers died one after the other while they loaded the model"):
        carried_out(Numbers(6), tmp_path, pool_of(pools.stillborn))


ORPHANS = """
import os, signal, sys
from functools import partial
from pathlib import Path
import pools
from harness.execute.processes import Processes

place = Path(sys.argv[1])
pool = Processes(partial(pools.numbers, 4, {}, None), place, 2, 2)
pool.start_workers(2)
while len([hand for hand in pool._hands.values() if hand.ready]) < 2:
    pool.wait()
print(*(hand.process.pid for hand in pool._hands.values()), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.soak
def test_workers_leave_with_whoever_asked_them(launch, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))}
    started = launch.start(None, str(tmp_path), env=environment, code=ORPHANS)
    workers = [Path("/proc") / pid for pid in started.stdout.readline().split()]
    done = started.end()
    assert done.returncode == -signal.SIGKILL
    assert len(workers) == 2
    ends = time.monotonic() + 30
    while any(worker.exists() for worker in workers) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not any(worker.exists() for worker in workers)


def test_an_error_travels():
    import pickle

    error = pickle.loads(pickle.dumps(portable(RequestError("a", 3, "b"))))
    assert (str(error), error.key, error.value, error.remedy) == ("a=3: b", "a", "3", "b")
    assert str(pickle.loads(pickle.dumps(portable(KeyError("x"), "here: ")))) == "here: KeyError: 'x'"


# --- whole runs -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A study in one process."""
    where = tmp_path_factory.mktemp("alone")
    return study.run("study", asked(sweep={"kind": ["single", "pairs"]}), study.Place(str(where)), lambda *_: None)


@pytest.mark.soak
@pytest.mark.launch
def test_a_study_by_two_processes_one_of_which_is_killed_has_the_same_bits(tmp_path, alone, monkeypatch):
    monkeypatch.setattr("harness.study.record.draw", lambda run: None)
    hands, said = {}, []
    start_workers = Processes.start_workers

    def watched(self, units):
        start_workers(self, units)
        hands.update(self._hands)

    def kill_one(stage, there, total):
        if (stage, there) == ("sweep", 1):
            os.kill(next(hand for hand in hands.values() if hand.process.is_alive()).process.pid, signal.SIGKILL)

    monkeypatch.setattr(Processes, "start_workers", watched)
    spec = asked(sweep={"kind": ["single", "pairs"]}, execute={"name": "local", "workers": 2})
    run = study.run("study", spec, study.Place(str(tmp_path)), kill_one, said.append)
    same(run, alone)
    assert len(hands) == 3
    assert manifest.read_manifest(run)["status"] == "complete"


def test_a_worker_that_finds_another_model_is_refused(tmp_path):
    work = study.prepare("study", asked())
    identity = {**study._identity(work), "prompts": "0"}
    with pytest.raises(RequestError, match="execute=local: a worker finds another prompts than this run"):
        study._built("study", asked(), identity)


def test_a_stage_that_goes_by_what_was_lost_is_left_and_the_others_are_done(tmp_path, monkeypatch):
    def losing(stage, folder, *rest):
        if stage.name == "sweep":
            raise UnitsLost("sweep", [1])
        return run_stage(stage, folder, *rest)

    monkeypatch.setattr(study, "run_stage", losing)
    spec = asked(sweep={"kind": ["single", "pairs", "layer"]})
    with pytest.raises(UnitsLost, match="sweep: unit 1 killed"):
        study.run("study", spec, study.Place(run=str(tmp_path / "run")), lambda *_: None)
    assert manifest.read_manifest(tmp_path / "run")["status"] == "failed"
    done = {path.parent.name for path in (tmp_path / "run/stages").glob("*/units")}
    assert done == {"patterns", "roles", "sweep_layer", "attribution"}


# --- Ray --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(only_ray):
    """Two nodes of one processor, on this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    ray.init(address=made.address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": paths}})
    made.add_node(num_cpus=1)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def ray_pool(tmp_path, cluster):
    """Workers of the cluster that build what is given; stopped at the end."""
    made = []

    def start_workers(build):
        made.append(RayWorkers(build, tmp_path, RayExecute(name="ray")))
        return made[-1]

    yield start_workers
    for pool in made:
        pool.stop()


@pytest.mark.soak
def test_ray_loses_and_gains_nodes_and_no_unit(tmp_path, cluster, ray_pool):
    pool = ray_pool(partial(pools.numbers, 20, dict.fromkeys(range(20), "slow") | {17: "company"}, str(tmp_path)))
    assert pool.size == 1
    joined, progress = [], []

    def come_and_go(stage, there, total):
        progress.append(there)
        if there == 2:
            joined.append(cluster.add_node(num_cpus=1))
        if there == 10:
            cluster.remove_node(joined[0], allow_graceful=False)

    said = []
    folder = StageFolder(tmp_path / "stages/numbers")
    data = run_stage(Numbers(20), folder, come_and_go, None, pool, said.append)
    assert data.value.values.tolist() == [number**2 for number in range(20)]
    assert progress == list(range(21))
    by = {mark.name.split("-")[2] for mark in tmp_path.glob("made-*")}
    assert len(by) == 2
    assert [line.split(" in ")[0] for line in said] == ["numbers: a worker died"]


@pytest.mark.soak
def test_a_unit_that_kills_its_ray_workers_is_named(tmp_path, ray_pool):
    pool = ray_pool(partial(pools.numbers, 4, {2: "kill", 1: "once"}, str(tmp_path)))
    with pytest.raises(UnitsLost, match="unit 2 killed its worker twice"):
        carried_out(Numbers(4), tmp_path, pool)
    folder = StageFolder(tmp_path / "stages/numbers")
    assert [number for number in range(4) if folder.read(number) is None] == [2]


@pytest.mark.soak
def test_what_a_unit_raises_comes_home_from_ray(tmp_path, ray_pool):
    with pytest.raises(RequestError, match="heads=L9H9: no such head"):
        carried_out(Numbers(3), tmp_path, ray_pool(partial(pools.numbers, 3, {2: "refuse"}, None)))


@pytest.mark.soak
def test_what_keeps_a_ray_worker_from_beginning_comes_home(tmp_path, ray_pool):
    with pytest.raises(RequestError, match="model=x: there is none"):
        carried_out(Numbers(3), tmp_path, ray_pool(pools.unbuildable))


@pytest.mark.soak
def test_a_study_over_ray_has_the_same_bits(tmp_path, cluster, alone, monkeypatch):
    monkeypatch.setattr("harness.study.record.draw", lambda run: None)
    spec = asked(sweep={"kind": ["single", "pairs"]}, execute={"name": "ray"})
    same(study.run("study", spec, study.Place(str(tmp_path)), lambda *_: None), alone)


def test_a_cluster_that_does_not_answer(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def nobody(**_):
        raise ConnectionError("Could not find any running Ray instance. Please …")

    monkeypatch.setattr(ray, "init", nobody)
    says = "execute.address=auto: no cluster answers there (Could not find any running Ray instance)"
    with pytest.raises(RequestError, match=re.escape(says)):
        RayWorkers(pools.numbers, tmp_path, RayExecute(name="ray", address="auto"))


def test_ray_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RequestError, match="execute=ray: Ray is not installed: pip install 'attention-harness.ray.'"):
        RayWorkers(pools.numbers, tmp_path, RayExecute(name="ray"))
