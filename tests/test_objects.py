"""Runs that lie in an object store, against a local S3 server: the same values as on a disk, whoever dies."""

import re
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from drawing import drawn
from runs import same

import harness
from harness import study
from harness.config import RequestError, RunSpec, parse
from harness.results import lease, manifest, store, verify
from harness.results.objects import ObjectPath, folder_at
from harness.results.store import StageFolder

ROOT = Path(__file__).parents[1]
KEYS = {"AWS_ACCESS_KEY_ID": "AKIATESTKEYOFNOBODY", "AWS_SECRET_ACCESS_KEY": "secretofnobody1234567890"}


def asked(**changes):
    values = {"model": {"name": "random", "source": "random"}, "prompts": {"name": "ioi", "n": 12}}
    return parse(RunSpec, values | {"stats": {"resamples": 300}} | changes)


@pytest.fixture(scope="module")
def server():
    """The address of an S3 server on this machine."""
    pytest.importorskip("moto")
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server, monkeypatch, request):
    """An empty bucket, of this test alone."""
    for name, value in {"AWS_ENDPOINT_URL": server, "AWS_DEFAULT_REGION": "us-east-1", **KEYS}.items():
        monkeypatch.setenv(name, value)
    import s3fs

    name = f"b{abs(hash(request.node.name))}"
    s3fs.S3FileSystem(use_listings_cache=False).mkdir(name)
    return f"s3://{name}"


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same sweep on a disk, in one process."""
    return study.run("ablate_heads", asked(), study.Place(str(tmp_path_factory.mktemp("alone"))), lambda *_: None)


def names(folder):
    return {name for name, _ in folder.contents()}


# --- places -----------------------------------------------------------------------------------------------------


def test_a_place_in_a_store_is_used_as_a_folder(bucket):
    folder = folder_at(f"{bucket}/a/b/")
    assert (str(folder), folder.name, str(folder.parent)) == (f"{bucket}/a/b", "b", f"{bucket}/a")
    assert not folder.is_dir()
    assert not (folder / "x").is_file()
    assert folder.iterdir() == []
    (folder / "x").write_text("é")
    (folder / "units/1").write_bytes(b"1")
    assert folder.is_dir()
    assert (folder / "x").is_file()
    assert (folder / "x").read_text() == "é"
    assert {path.name for path in folder.iterdir()} == {"x", "units"}
    assert dict(folder.contents()) == {"x": "é".encode(), "units/1": b"1"}
    (folder / "units").remove()
    (folder / "nothing").remove()
    assert names(folder) == {"x"}
    with pytest.raises(FileNotFoundError):
        (folder / "y").read_bytes()


def test_of_many_that_create_an_object_one_is_told_yes(bucket):
    place, told = ObjectPath(f"{bucket}/once"), []
    threads = [threading.Thread(target=lambda n=n: told.append(place.create(bytes([n])))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == [False] * 7 + [True]


def test_units_are_read_with_their_checksum(bucket):
    folder = StageFolder(folder_at(bucket) / "run/stages/sweep")
    assert folder.plan() is None
    assert folder.read(3) is None
    folder.freeze({"batches": [[0]]})
    folder.write(3, {"x": np.arange(3)})
    assert folder.plan() == {"batches": [[0]]}
    np.testing.assert_array_equal(folder.read(3)["x"], np.arange(3))
    unit = folder.path / "units/00003.unit"
    content = bytearray(unit.read_bytes())
    content[-30] ^= 1
    unit.write_bytes(bytes(content))
    assert folder.read(3) is None
    folder.drop_units()
    assert names(folder.path) == {"plan.json"}


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("gs://bucket/x", "store=gs://bucket/x: name a folder, or an object store as s3://BUCKET/PREFIX"),
        ("s3://", "store=s3://: name a folder, or an object store as s3://BUCKET/PREFIX"),
        ("s3://bucket//x", "store=s3://bucket//x: name a folder, or an object store"),
        ("s3://AKIA:hidden@bucket/x", "store=s3://…: leave keys out of the address: set them in the environment"),
        ("https://bucket/x?sig=hidden", "store=https://…: leave keys out of the address"),
    ],
)
def test_addresses_that_are_refused(place, says):
    with pytest.raises(RequestError, match=re.escape(says)) as refused:
        parse(study.Place, {"store": place})
    assert "hidden" not in str(refused.value)


def test_a_store_that_refuses_is_one_line(bucket):
    says = "store=s3://no-such-bucket/ablate_heads/.*the object store does not do it .*bucket does not"
    with pytest.raises(RequestError, match=says):
        study.run("ablate_heads", asked(), study.Place("s3://no-such-bucket"), lambda *_: None)


def test_s3fs_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    says = "store=s3://b/x: object stores need s3fs: pip install 'attention-harness.s3.'"
    with pytest.raises(RequestError, match=says):
        ObjectPath("s3://b/x").is_dir()


# --- who works on it --------------------------------------------------------------------------------------------


def test_one_process_at_a_time(bucket):
    folder = folder_at(f"{bucket}/run")
    with store.locked(folder):
        says = f"resume={folder}: another process is working on this run; if it has died, this can go on in "
        with pytest.raises(RequestError, match=re.escape(says)), store.locked(folder):
            pass
        store.check_empty(folder)
    assert names(folder) == set()
    with store.locked(folder):
        pass


def test_the_lease_of_a_process_that_died_runs_out_and_one_takes_it(bucket):
    folder, got, refused = folder_at(f"{bucket}/run"), [], []
    assert (folder / ".lock.4").create(b'{"until": 1}')
    together, all_refused = threading.Barrier(6), threading.Event()

    def take():
        together.wait()
        try:
            with lease.leased(folder, "resume"):
                got.append(names(folder))
                assert all_refused.wait(60)
        except RequestError as error:
            refused.append(str(error))
            if len(refused) == 5:
                all_refused.set()

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [{".lock.5"}], "the lease that has run out is removed"
    assert len(refused) == 5
    assert all("another process is working on this run" in said for said in refused)


class Clock:
    """A clock that the test turns: what waits for it wakes when its time has come, and no real time passes."""

    def __init__(self):
        self.now, self.turned, self.waiting = 1e9, threading.Condition(), 0

    def time(self):
        return self.now

    def turn(self, seconds):
        """Turn it on, and return when who woke has done its work and waits again."""
        with self.turned:
            assert self.turned.wait_for(lambda: self.waiting, 60)
            self.now += seconds
            self.waiting = 0
            self.turned.notify_all()
            assert self.turned.wait_for(lambda: self.waiting, 60)


class TurnResult:
    """`threading.Event` on that clock, for one thread that waits."""

    def __init__(self, clock):
        self.clock, self.ended = clock, False

    def set(self):
        with self.clock.turned:
            self.ended = True
            self.clock.turned.notify_all()

    def wait(self, seconds):
        with self.clock.turned:
            due = self.clock.now + seconds
            self.clock.waiting += 1
            self.clock.turned.notify_all()
            self.clock.turned.wait_for(lambda: self.ended or self.clock.now >= due)
            return self.ended


@pytest.fixture
def clock(monkeypatch):
    """The clock of leases."""
    clock = Clock()
    monkeypatch.setattr(lease, "time", clock)
    monkeypatch.setattr(lease, "threading", SimpleNamespace(Event=lambda: TurnResult(clock), Thread=threading.Thread))
    return clock


def test_a_lease_is_renewed_while_its_holder_lives(bucket, clock):
    folder = folder_at(f"{bucket}/run")
    with lease.leased(folder, "resume", length=60):
        for _ in range(6):
            clock.turn(16)  # a quarter of its length, and a little
        with pytest.raises(RequestError, match="another process"), lease.leased(folder, "resume", length=60):
            pass


def test_who_slept_through_its_lease_is_told(bucket):
    folder = folder_at(f"{bucket}/run")

    def sleep():
        with lease.leased(folder, "resume", length=0.1):
            (keeper,) = [each for each in threading.enumerate() if getattr(each, "_target", None) is lease._keep]
            (folder / ".lock.2").write_bytes(b'{"until": 99999999999}')
            keeper.join(60)  # it looks, finds the other, and ends

    with pytest.raises(RequestError, match="another process has taken this run over while this one was stopped"):
        sleep()


# --- whole runs -------------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_a_study_in_a_store_is_the_study_on_a_disk(bucket, tmp_path):
    spec = asked(prompts={"name": "ioi", "n": 3})
    with drawn(figures=False):
        alone = study.run("study", spec, study.Place(str(tmp_path)), lambda *_: None)
        run = study.run("study", spec, study.Place(f"{bucket}/runs"), lambda *_: None)
    assert str(run).startswith(f"{bucket}/runs/study/")
    same(str(run), alone)
    on_disk = {path.relative_to(alone).as_posix() for path in alone.rglob("*") if path.is_file()}
    assert names(run) == on_disk
    opened = harness.open_run(str(run))
    assert opened.manifest["status"] == "complete"
    assert opened.manifest["files"] == manifest.read_manifest(alone)["files"]
    assert opened.heads.equals(harness.open_run(alone).heads)
    assert (run / "report.html").read_bytes()[:15] == b"<!doctype html>"
    verify(str(run))
    everything = b"".join(content for _, content in run.contents())
    assert not [value for value in KEYS.values() if value.encode() in everything]
    chunk = run / "data.zarr/effect/.zarray"
    chunk.write_bytes(chunk.read_bytes() + b" ")
    with pytest.raises(RequestError, match="its data.zarr is not what the run wrote"):
        verify(str(run))
    chunk.remove()
    with pytest.raises(RequestError, match="its data.zarr is damaged: effect is missing"):
        harness.open_run(str(run))


@pytest.mark.soak
@pytest.mark.launch
def test_two_workers_write_straight_to_the_store(bucket, alone):
    seen = []

    def watch(stage, there, total):
        if stage == "sweep" and there < total:
            seen.append({name for name in names(folder_at(f"{bucket}/workers")) if name.startswith("stages/sweep/")})

    spec = asked(execute={"name": "local", "workers": 2})
    run = study.run("ablate_heads", spec, study.Place(run=f"{bucket}/workers"), watch, lambda _: None)
    same(run, alone)
    assert len(seen) > 1
    assert "stages/sweep/plan.json" in seen[0]
    assert all(any(name.startswith("stages/sweep/units/") for name in later) for later in seen[1:])


class Stopped(BaseException):
    """The end of a process, somewhere."""


def test_a_run_goes_on_in_the_store(bucket, alone):
    place = study.Place(run=f"{bucket}/mine")

    def stop(stage, there, total):
        if (stage, there) == ("sweep", 1):
            raise Stopped

    with pytest.raises(Stopped):
        study.run("ablate_heads", asked(), place, stop)
    with pytest.raises(RequestError, match="this run is failed, not complete; finish it with resume=s3://"):
        harness.open_run(place.run)
    with pytest.raises(RequestError, match=r"run=s3://.*: this directory is not empty; continue it with resume=DIR"):
        study.run("ablate_heads", asked(), place, lambda *_: None)
    with pytest.raises(RequestError, match="this run was started with another seed"):
        study.run("ablate_heads", asked(seed=3), study.Place(resume=place.run), lambda *_: None)
    first = []
    run = study.run("ablate_heads", asked(), study.Place(resume=place.run), lambda *given: first.append(given))
    assert next(given for given in first if given[0] == "sweep")[1] >= 1
    same(run, alone)


@pytest.mark.soak
def test_commands_on_a_store(bucket, command):
    shape = ("model=random", "prompts=ioi", "prompts.n=2", "metrics=[loss]", "heads=[L0H0,L2H3]")
    code, out, err = command("ablate_heads", *shape, f"store={bucket}", store=False)
    assert code == 0, err
    run = out.splitlines()[-1]
    assert run.startswith(f"{bucket}/ablate_heads/")
    assert command("render", f"run={run}", "figures=paper", store=False)[:2] == (0, f"{run}\n")
    assert any(name.startswith("figures/paper/") for name in names(folder_at(run)))
    code, out, err = command("reproduce", f"run={run}")
    assert code == 0, err
    assert "values hold" in err
    code, out, err = command("list", f"store={bucket}", store=False)
    assert (code, err) == (2, f"store={bucket}: runs in an object store are not listed: name a folder\n")
    code, out, err = command("ablate_heads", f"resume={run}", store=False)
    assert (code, err) == (2, f"resume={run}: this run is complete; draw it again with experiments.render run=DIR\n")
    code, out, err = command("render", f"run={bucket}/nothing", store=False)
    assert (code, err) == (2, f"run={bucket}/nothing: there is no such directory\n")


KILLED = """
import os, signal, sys
from harness import study
from harness.config import RunSpec, parse

def die(stage, there, total):
    if (stage, there) == ("sweep", 1):
        os.kill(os.getpid(), signal.SIGKILL)

spec = parse(RunSpec, {"model": {"name": "random", "source": "random"}, "prompts": {"name": "ioi", "n": 12},
                       "stats": {"resamples": 300}})
study.run("ablate_heads", spec, study.Place(run=sys.argv[1]), die)
"""


@pytest.mark.soak
def test_a_process_that_was_killed_is_followed_when_its_lease_has_run_out(launch, bucket, alone):
    run = folder_at(f"{bucket}/killed")
    assert launch.python(KILLED, str(run)).returncode == -9
    again = study.Place(resume=str(run))
    with pytest.raises(
        RequestError, match=r"another process is working on this run; if it has died, this can go on in"
    ):
        study.run("ablate_heads", asked(), again, lambda *_: None)
    (run / ".lock.1").write_bytes(b'{"until": 1}')  # a minute later
    same(study.run("ablate_heads", asked(), again, lambda *_: None), alone)
    assert not any(name.startswith(".lock") for name in names(run))
