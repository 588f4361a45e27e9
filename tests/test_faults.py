"""Faults, each of which ends with the undisturbed numbers or a clear error, and nothing lost."""

import multiprocessing
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from kills import killed_at

import harness
from harness import hooks, study
from harness.config import RequestError, RunSpec, parse
from harness.hooks import Head
from harness.results import manifest, store
from harness.results.store import StageFolder

ROOT = Path(__file__).parents[1]


def asked(**changes):
    values = {"model": {"name": "random", "source": "random"}, "prompts": {"name": "ioi", "n": 12}}
    return parse(RunSpec, values | {"heads": ["L0H1", "L1H2", "L2H3"], "stats": {"resamples": 300}} | changes)


def quiet(*_):
    pass


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr("harness.study.record.draw", quiet)  # they take longer than all the numbers


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The arrays of a run that nothing befell."""
    place = study.Place(str(tmp_path_factory.mktemp("undisturbed")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.study.record.draw", quiet)
        return study.run("ablate_heads", asked(), place, quiet)


def same(run, other):
    one, two = harness.open_run(run).data, harness.open_run(other).data
    assert set(one) == set(two)
    for name, array in one.items():
        np.testing.assert_array_equal(array.values, two[name].values)


def broken_off(run, after=1):
    """A run that stopped after so many units of its sweep."""

    def stop(stage, there, total):
        if there == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.run("ablate_heads", asked(), study.Place(run=str(run)), stop)
    assert manifest.read_manifest(run)["status"] == "failed"
    return run


def resumed(run, **changes):
    return study.run("ablate_heads", asked(**changes), study.Place(resume=str(run)), quiet)


# --- damage -----------------------------------------------------------------------------------------------------


def torn(content):
    return content[: len(content) // 2]


def flipped(content, at=0.5):
    place = int(len(content) * at)
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def harm(path, how):
    path.write_bytes(how(path.read_bytes()))


@pytest.mark.parametrize("how", [torn, flipped, lambda content: flipped(content, 0.01), lambda content: b""])
def test_a_damaged_unit_is_made_again(tmp_path, undisturbed, how):
    run = broken_off(tmp_path / "run", after=1)
    harm(run / "stages/sweep/units/00000.unit", how)
    same(resumed(run), undisturbed)


def test_a_unit_that_is_damaged_while_the_run_goes_on_is_made_again(tmp_path, undisturbed):
    def damage(stage, there, total):
        if there == 1:
            harm(tmp_path / "run/stages/sweep/units/00000.unit", flipped)

    same(study.run("ablate_heads", asked(), study.Place(run=str(tmp_path / "run")), damage), undisturbed)


@pytest.mark.parametrize("how", [torn, flipped, lambda content: content.replace(b'"seed": 0', b'"seed": 1')])
def test_a_damaged_manifest_is_found_and_the_run_goes_on_without_it(tmp_path, undisturbed, how):
    run = broken_off(tmp_path / "run")
    harm(run / "manifest.json", how)
    with pytest.raises(RequestError, match="its manifest.json is damaged; .* remove it, and resume=DIR"):
        resumed(run)
    (run / "manifest.json").unlink()
    same(resumed(run), undisturbed)


@pytest.mark.parametrize("how", [torn, flipped, lambda content: content.replace(b'"zero"', b'"mean"')])
def test_a_damaged_plan_is_found(tmp_path, how):
    run = broken_off(tmp_path / "run")
    harm(run / "stages/sweep/plan.json", how)
    with pytest.raises(RequestError, match="this plan is damaged; start a new run"):
        resumed(run)
    assert (run / "stages/sweep/units/00000.unit").is_file()


def test_a_changed_spec_is_found_though_nobody_says_another(tmp_path):
    run = broken_off(tmp_path / "run")
    text = (run / "spec.yaml").read_text()
    (run / "spec.yaml").write_text(text.replace("n: 12", "n: 13"))
    with pytest.raises(RequestError, match="its spec.yaml is not what the run was started with"):
        study.run("ablate_heads", study.saved_spec(run), study.Place(resume=str(run)), quiet)


def test_a_damaged_weight_in_the_cache_is_fetched_anew_or_refused(tmp_path, tiny):
    """A folder of one's own cannot be fetched anew: what changed there is refused on resuming."""
    folder = tmp_path / "model"
    model = tiny("gpt2")
    plain = hooks.plain_model(model.bridge)
    type(plain)(plain.config).save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    spec = asked(model={"name": "path", "source": "path", "path": str(folder)})
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        study.run("ablate_heads", spec, study.Place(run=str(run)), interrupt)
    harm(folder / "model.safetensors", lambda content: flipped(content, 0.9))
    with pytest.raises(RequestError, match="the model's weights are no longer those of this run"):
        study.run("ablate_heads", spec, study.Place(resume=str(run)), quiet)


def interrupt(stage, there, total):
    if there == 1:
        raise KeyboardInterrupt


# --- other code -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"code": "0" * 64}, r"begun with other code: code \(000000000000 → "),
        ({"python": "2.7"}, r"begun with other code: python \(2.7 → 3"),
        ({"packages": {"torch": "1.0"}}, r"other code: .*packages.torch \(1.0 → 2"),
    ],
)
def test_a_resume_with_other_code_is_refused_and_says_what_differs(tmp_path, change, says):
    run = broken_off(tmp_path / "run")
    record = manifest.read_manifest(run)
    changed = {key: {**record[key], **value} if isinstance(value, dict) else value for key, value in change.items()}
    manifest.write_manifest(run, record | changed)
    with pytest.raises(RequestError, match=says):
        resumed(run)


def test_the_digest_of_the_code_is_that_of_its_files(tmp_path):
    shutil.copytree(ROOT / "harness", tmp_path / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    before = manifest.digest_of(tmp_path / "harness")
    assert before == manifest.environment()["code"]
    with (tmp_path / "harness/metrics.py").open("a") as file:
        file.write("\n")
    assert manifest.digest_of(tmp_path / "harness") != before


# --- numbers that are none --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("runner", "says"),
    [
        ("ablate_heads", "model=random: the clean loss on prompt 1 is nan; leave that prompt or head out, or look at"),
        ("cache_attention", "model=random: what L0H0 looks at on prompt 1 is nan; leave that prompt or head out"),
    ],
)
def test_a_token_that_breaks_the_model_is_named_by_its_prompt(tmp_path, monkeypatch, runner, says, value):
    """The embedding of "7", which only prompt 1 has, is no number."""
    prepare = study.prepare

    def broken(runner, spec):
        work = prepare(runner, spec)
        (seven,) = {*work.prompts.token_id[1].tolist()} - {*work.prompts.token_id[[0, 2]].flatten().tolist()}
        hooks.plain_model(work.model.bridge).get_input_embeddings().weight.data[seven] = value
        return work

    monkeypatch.setattr(study, "prepare", broken)
    spec = asked(prompts={"name": "inline", "text": ["abcd", "ab7cd", "dcba"]})
    with pytest.raises(RequestError, match=says):
        study.run(runner, spec, study.Place(run=str(tmp_path / "run")), quiet)
    assert manifest.read_manifest(tmp_path / "run")["status"] == "failed"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_head_that_gives_no_number_is_named_with_its_prompt(tmp_path, monkeypatch, value):
    """Zeroing L1H2 breaks the model on prompt 7 alone."""
    from harness.sweep.batch import Batch

    ablated, prompts = Batch.ablated, study.prepare("ablate_heads", asked()).prompts
    seventh = prompts.token_id[7, : prompts.length[7]].tolist()

    def broken(self, todo, size, **how):
        values, given = ablated(self, todo, size, **how), self.whole.inputs
        heads = [at for at, one in enumerate(todo) if one.heads == (Head(1, 2),)]
        for row, (ids, mask) in enumerate(zip(given.token_id, given.mask, strict=True)):
            if ids[mask.bool()].tolist() == seventh:
                values[:, row, heads] = value
        return values

    monkeypatch.setattr(Batch, "ablated", broken)
    monkeypatch.setattr(Batch, "spot_check", quiet)
    says = f"model=random: loss without L1H2 on prompt 7 is {value}; leave that prompt or head out, or look at the we"
    with pytest.raises(RequestError, match=says):
        study.run("ablate_heads", asked(), study.Place(run=str(tmp_path / "r")), quiet)
    assert manifest.read_manifest(tmp_path / "r")["status"] == "failed"
    assert not (tmp_path / "r/heads.csv").exists()


# --- the disk ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 300 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("no disk may be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_disk_that_fills_up_says_so_and_the_run_goes_on_elsewhere(tmp_path, small_disk, undisturbed):
    (small_disk / "ballast").write_bytes(b"0" * 240_000)
    run = small_disk / "run"
    with pytest.raises(RequestError, match="the disk is full; choose another with store=DIR"):
        study.run("ablate_heads", asked(), study.Place(run=str(run)), quiet)
    assert not list(run.rglob("*.part"))
    moved = Path(shutil.copytree(run, tmp_path / "moved"))
    (moved / "manifest.json").unlink(missing_ok=True) if not whole(moved) else None
    same(resumed(moved), undisturbed)


def whole(run):
    try:
        return bool(manifest.read_manifest(run))
    except RequestError:
        return False


def test_a_disk_that_becomes_read_only(small_disk, undisturbed):
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    run = broken_off(small_disk / "run")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(RequestError, match="the disk is read-only"):
        resumed(run)
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    same(resumed(run), undisturbed)


# --- two processes, and one that died -----------------------------------------------------------------------------


def test_the_lock_of_a_process_that_was_killed_is_not_held(tmp_path, undisturbed):
    run = broken_off(tmp_path / "run")
    told, tells = multiprocessing.Pipe()

    def hold():
        with store.locked(run):
            tells.send(True)
            time.sleep(600)

    holder = multiprocessing.get_context("fork").Process(target=hold, daemon=True)
    holder.start()
    assert told.poll(30)
    with pytest.raises(RequestError, match="another process is working on this run"):
        resumed(run)
    holder.kill()
    holder.join()
    assert (run / store.LOCK).exists()
    same(resumed(run), undisturbed)


# --- signals ----------------------------------------------------------------------------------------------------


FIRST_KILLS = (0, 6, 12, 17)


@pytest.mark.parametrize(
    "moment", [*FIRST_KILLS, *(pytest.param(n, marks=pytest.mark.soak) for n in range(30) if n not in FIRST_KILLS)]
)
def test_killed_at_any_moment_nothing_is_lost(tmp_path, undisturbed, moment):
    run = tmp_path / "run"
    ended = killed_at(moment, lambda: study.run("ablate_heads", asked(), study.Place(run=str(run)), quiet))
    assert ended == -signal.SIGKILL
    whole_before = units(run)
    place = study.Place(resume=str(run)) if (run / "spec.yaml").exists() else study.Place(run=str(run))
    made = []
    study.run("ablate_heads", asked(), place, lambda stage, there, total: made.append(there))
    assert made[0] == len(whole_before)  # none that was whole is made again
    same(run, undisturbed)
    assert not list(run.rglob("*.part"))


def units(run):
    """The units that are there, whole."""
    folder = StageFolder(run / "stages/sweep")
    return [number for number in range(100) if folder.read(number) is not None]


# --- memory -----------------------------------------------------------------------------------------------------


def test_memory_that_runs_out_in_a_chunk_leaves_what_was_done(tmp_path, undisturbed, monkeypatch):
    from harness.sweep.batch import Batch

    run, ablated, calls = tmp_path / "run", Batch.ablated, []

    def greedy(self, todo, size, **how):
        calls.append(size)
        if len(calls) == 2:
            torch.empty(10**14)
        return ablated(self, todo, size, **how)

    monkeypatch.setattr(Batch, "ablated", greedy)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        study.run("ablate_heads", asked(), study.Place(run=str(run)), quiet)
    assert "can't allocate memory" in manifest.read_manifest(run)["error"]
    assert units(run) == [0]
    same(resumed(run, sweep={"memory": 1.0}), undisturbed)
