"""The run directory: whole or not there, opened without torch, resumed to the same values."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from drawing import drawn
from kills import killed_at

import harness
from harness import results, study
from harness.config import RequestError, RunSpec, parse
from harness.results import manifest, schema, store
from harness.results.schema import TABLES
from harness.results.store import StageFolder
from harness.sweep import SweepStage

ROOT = Path(__file__).parents[1]


def asked(**changes):
    values = {"model": {"name": "random", "source": "random"}, "prompts": {"name": "ioi", "n": 12}}
    values |= {"roles": {"n": 2, "length": 6, "draws": 40}, "stats": {"resamples": 300}}
    return parse(RunSpec, values | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished study of a tiny model."""
    with drawn():
        return study.run("study", asked(), study.Place(str(tmp_path_factory.mktemp("runs"))), lambda *_: None)


# --- what a run leaves ------------------------------------------------------------------------------------------


def test_a_run_leaves_what_the_contract_says(finished):
    there = {path.name for path in finished.iterdir()}
    tables = {f"{name}.{kind}" for name in ("heads", "methods") for kind in ("csv", "parquet")}
    assert there == {"spec.yaml", "manifest.json", "stages", "data.zarr", *tables, "report.html", "figures"}
    assert {path.suffix for path in (finished / "figures").iterdir()} == {".svg", ".png"}
    for stage in ("patterns", "sweep"):
        assert [path.name for path in (finished / "stages" / stage).iterdir()] == ["plan.json"]
    run = harness.open_run(finished)
    assert run.manifest["status"] == "complete"
    assert tuple(run.heads.columns) == TABLES["heads"].columns
    dims = {
        "token": ("prompt", "position"),
        "target": ("prompt", "position"),
        "answer": ("prompt",),
        "pattern": ("prompt", "layer", "head", "query", "key"),
        "clean": ("metric", "prompt"),
        "effect": ("metric", "prompt", "layer", "head"),
    }
    assert {name: run.data[name].dims for name in dims} == dims


def test_a_run_holds_what_the_library_gives_in_memory(finished, tiny):
    run, model = harness.open_run(finished), tiny()
    prompts = harness.load_prompts("ioi", model, n=12)
    np.testing.assert_array_equal(run.data.pattern.values, harness.cache_attention(model, prompts).data.pattern.values)
    effects = harness.ablate_heads(model, prompts).data
    np.testing.assert_array_equal(run.data.effect.values, effects.effect.values)
    assert run.data.token.values.tolist() == prompts.token.tolist()


def test_heads_csv_is_the_mean_of_the_arrays(finished):
    run = harness.open_run(finished)
    for row in run.heads.itertuples():
        effect = run.data.effect.sel(metric=row.metric, layer=row.layer, head=row.head)
        assert float(effect.mean()) == pytest.approx(row.effect_mean, abs=1e-9)
    assert len(run.heads) == 2 * 12


def test_pattern_rows_sum_to_one_and_padding_is_zero(finished):
    data = harness.open_run(finished).data
    for prompt, length in enumerate(data.length.values):
        rows = data.pattern[prompt].values.sum(-1)
        np.testing.assert_allclose(rows[..., :length], 1, atol=1e-5)
        assert (rows[..., length:] == 0).all()


def test_rollout_is_that_of_the_saved_patterns(finished):
    data = harness.open_run(finished).data
    np.testing.assert_allclose(data.rollout[3].values, harness.attribution.rollout(data.pattern[3].values), atol=1e-6)


def test_a_run_opens_without_torch_and_without_hydra(finished):
    code = (
        "import sys, harness; run = harness.open_run(sys.argv[1]); run.data.pattern.sel(layer=1, head=1).isel(prompt=0)"
        ".values; print(run.heads.shape[0], sorted({'torch', 'transformers', 'hydra'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, finished], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "24 []"


def test_importing_harness_imports_nothing_heavy():
    code = "import sys, harness; print(sorted({'torch', 'pandas', 'numpy', 'pydantic', 'xarray'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- damage -----------------------------------------------------------------------------------------------------


def copied(run, place):
    shutil.copytree(run, place)
    return place


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda run: (run / "manifest.json").unlink(), "it has no manifest.json"),
        (lambda run: (run / "manifest.json").write_text("{"), "its manifest.json is damaged"),
        (lambda run: replace_in(run / "manifest.json", '"seed": 0', '"seed": 1'), "its manifest.json is damaged"),
        (
            lambda run: write_manifest(run, {"format": manifest.FORMAT, "status": "complete"}),
            "keys are missing or unknown",
        ),
        (lambda run: (run / "spec.yaml").write_text("a: ["), "its spec.yaml cannot be read"),
        (lambda run: (run / "spec.yaml").write_text("3"), "its spec.yaml holds no settings"),
        (lambda run: (run / "data.zarr").rename(run / "gone"), "its data.zarr cannot be read"),
        (lambda run: (run / "heads.csv").write_text("a,b\n1,2\n"), "its heads.csv is damaged"),
        (lambda run: (run / "heads.csv").unlink(), "its heads.csv is missing"),
        (lambda run: shutil.rmtree(run / "data.zarr" / "effect"), "its data.zarr is damaged: effect is missing"),
        (lambda run: set_status(run, "running"), "this run is running, not complete; finish it with resume="),
    ],
)
def test_a_damaged_run_is_refused(finished, tmp_path, damage, says):
    run = copied(finished, tmp_path / "run")
    damage(run)
    with pytest.raises(RequestError, match=says):
        harness.open_run(run)


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: next((run / "data.zarr/pattern").glob("0*")).write_bytes(b"garbage"),
        lambda run: next((run / "data.zarr/pattern").glob("0*")).unlink(),
        lambda run: (run / "heads.csv").write_text((run / "heads.csv").read_text().replace("1", "2")),
    ],
)
def test_what_opens_but_was_changed_is_found_by_its_digest(finished, tmp_path, damage):
    run = copied(finished, tmp_path / "run")
    results.verify(run)
    damage(run)
    harness.open_run(run)
    with pytest.raises(RequestError, match="is not what the run wrote"):
        results.verify(run)


def replace_in(path, before, after):
    path.write_text(path.read_text().replace(before, after, 1))


def set_status(run, status):
    write_manifest(run, manifest.read_manifest(run) | {"status": status})


def write_manifest(run, values):
    """As a run writes it, whatever the values."""
    (run / "manifest.json").write_text(store.seal(values))


def test_a_run_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RequestError, match="there is no such directory"):
        harness.open_run(tmp_path / "nothing")


def test_a_manifest_must_be_whole(tmp_path):
    with pytest.raises(ValueError, match="not a manifest"):
        manifest.write_manifest(tmp_path, {"status": "complete"})


@pytest.mark.parametrize("harm", [lambda b: b[:-1], lambda b: b[:40] + bytes([b[40] ^ 1]) + b[41:], lambda b: b""])
def test_a_damaged_unit_is_not_there(tmp_path, harm):
    folder = StageFolder(tmp_path)
    folder.write(3, {"a": np.arange(4.0)})
    assert folder.read(3)["a"].tolist() == [0, 1, 2, 3]
    path = folder._unit(3)
    path.write_bytes(harm(path.read_bytes()))
    assert folder.read(3) is None


def test_a_disk_that_refuses_is_the_requests_fault(tmp_path, monkeypatch):
    import errno

    def full(self, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RequestError, match="the disk is full; choose another with store=DIR"):
        store.write_text(tmp_path / "a", "x")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_arrays_that_found_no_room_though_some_were_written_late(tmp_path, monkeypatch):
    import errno

    import zarr.storage._local as disk

    put = disk._put

    def full(path, value, **how):
        if path.name == "0.0":
            raise OSError(errno.ENOSPC, "No space left on device")
        if path.name[0].isdigit():
            time.sleep(0.3)
        return put(path, value, **how)

    monkeypatch.setattr(disk, "_put", full)
    data = xr.Dataset({"pattern": (("prompt", "query"), np.ones((8, 4)))})
    monkeypatch.setattr(store, "_encoding", lambda data: {"pattern": {"chunks": (1, 4)}})
    with pytest.raises(RequestError, match="the disk is full"):
        store.write_data(tmp_path, data)
    time.sleep(0.5)
    assert list(tmp_path.iterdir()) == []


def test_patterns_are_cut_by_prompt_and_layer_and_nothing_else_is(tmp_path):
    """One head's pattern is read without the rest; what has layers or queries but no pattern is small."""
    import zarr

    dims = {
        "pattern": ("prompt", "layer", "head", "query", "key"),
        "effect": ("metric", "prompt", "layer", "head"),
        "mask": ("prompt", "query", "key"),
    }
    size = {"metric": 2, "prompt": 3, "layer": 4, "head": 5, "query": 6, "key": 7}
    data = {name: (each, np.ones([size[dim] for dim in each])) for name, each in dims.items()}
    store.write_data(tmp_path, xr.Dataset(data))
    folder = zarr.open_group(tmp_path / "data.zarr", mode="r")
    assert {name: folder[name].chunks for name in dims} == {
        "pattern": (1, 1, 5, 6, 7),
        "effect": (2, 3, 4, 5),
        "mask": (3, 6, 7),
    }


@pytest.mark.parametrize(
    ("place", "says"), [("/proc/x", "part of this path is not there"), ("x" * 300, "this path is too long")]
)
def test_a_place_that_cannot_be_is_the_requests_fault(tmp_path, place, says):
    with pytest.raises(RequestError, match=says):
        study.run("study", asked(), study.Place(str(tmp_path / place)), lambda *_: None)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"show": {"prompts": [99]}}, r"show.prompts=99: the run has prompts 0-11"),
        ({"show": {"prompts": [-1]}}, r"show.prompts=-1: "),
        ({"show": {"heads": ["L9H9"]}}, r"show.heads=L9H9: "),
        ({"show": {"heads": ["foo"]}}, r"show.heads=foo: "),
        ({"attribution": {"rollout": {"start_layer": 9}}}, r"attribution.rollout.start_layer=9: the model has layers"),
        ({"stats": {"resamples": 1}}, r"stats.resamples=1: level 0.05 needs more than 20"),
    ],
)
def test_what_only_the_end_would_refuse_is_refused_before_there_is_a_directory(tmp_path, changes, says):
    with pytest.raises(RequestError, match=f"^{says}"):
        study.run("study", asked(**changes), study.Place(str(tmp_path / "store")), lambda *_: None)
    assert not (tmp_path / "store").exists()


def test_two_runs_of_one_second_get_two_directories(tmp_path):
    assert store.make_new_folder(tmp_path / "a" / "run")
    assert not store.make_new_folder(tmp_path / "a" / "run")


def test_the_manifest_counts_the_prompts_that_begin_with_bos(finished, tiny):
    first = harness.open_run(finished).data.token_id.values[:, 0]
    assert manifest.read_manifest(finished)["bos_first"] == (first == tiny().tokens.bos_id).sum()
    spec = asked(prompts={"name": "induction", "n": 3})
    assert study.prepare("study", spec).prompts.token_id[:, 0].tolist() == [tiny().tokens.bos_id] * 3


def test_the_manifest_says_when_prompts_begin_with_a_bos_token_that_the_policy_does_not_add(tmp_path):
    model = {"name": "random", "source": "random", "bos": "never"}
    spec = asked(model=model, prompts={"name": "induction", "n": 3}, heads=["L0H0"])
    run = study.run("ablate_heads", spec, study.Place(str(tmp_path)), lambda *_: None)
    begins = "no BOS token, no special tokens added; 3 of these 3 prompts begin with one all the same"
    assert manifest.read_manifest(run)["model"]["bos"] == begins


# --- resuming ---------------------------------------------------------------------------------------------------


def test_a_failed_run_keeps_its_units_and_goes_on(tmp_path, monkeypatch, finished):
    monkeypatch.setattr("harness.study.record.draw", lambda run: None)
    place = study.Place(str(tmp_path))
    calls = []
    compute = SweepStage.compute

    def failing(self, plan, unit):
        calls.append(unit)
        if len(calls) == 2:
            raise RuntimeError("lightning")
        return compute(self, plan, unit)

    monkeypatch.setattr(SweepStage, "compute", failing)
    with pytest.raises(RuntimeError, match="lightning"):
        study.run("study", asked(), place, lambda *_: None)
    (run,) = (tmp_path / "study").iterdir()
    record = manifest.read_manifest(run)
    assert (record["status"], record["error"]) == ("failed", "RuntimeError: lightning")
    assert len(list((run / "stages/sweep/units").iterdir())) == 1

    again = study.run("study", asked(), study.Place(str(tmp_path), resume=str(run)), lambda *_: None)
    assert again == run
    n, of_cards = (
        len(json.loads((run / f"stages/{of}/plan.json").read_text())["batches"]) for of in ("sweep", "cards")
    )
    assert calls == [0, 1, *range(1, n), *range(of_cards)]
    assert not (run / ".lock").exists()
    ended = manifest.read_manifest(run)
    assert ended["started"] == record["started"]
    assert ended["wall_seconds"] >= record["wall_seconds"]
    assert ended["intervention_check"] == manifest.read_manifest(finished)["intervention_check"]
    whole = harness.open_run(finished).data
    for name, array in harness.open_run(run).data.items():
        np.testing.assert_array_equal(array.values, whole[name].values)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prompts": {"name": "ioi", "n": 11}}, "started with another prompts.n"),
        ({"metrics": ["kl"]}, "started with another metrics"),
    ],
)
def test_a_resume_with_another_spec_is_refused(finished, tmp_path, changes, says):
    run = copied(finished, tmp_path / "run")
    set_status(run, "failed")
    with pytest.raises(RequestError, match=says):
        study.run("study", asked(**changes), study.Place(resume=str(run)), lambda *_: None)


def test_a_resume_may_show_something_else_and_use_other_memory(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.study.record.draw", lambda run: None)
    run = copied(finished, tmp_path / "run")
    old = manifest.read_manifest(run)
    old |= {"status": "failed", "started": "2026-01-01T00:00:00+00:00", "wall_seconds": 1000.0}
    write_manifest(run, old)
    changed = asked(show={"prompts": [1]}, sweep={"memory": 1.0})
    study.run("study", changed, study.Place(resume=str(run)), lambda *_: None)
    again = harness.open_run(run)
    assert again.spec["show"]["prompts"] == [1]
    assert again.manifest["started"] == old["started"]
    assert again.manifest["wall_seconds"] > 1000
    np.testing.assert_array_equal(again.data.effect.values, harness.open_run(finished).data.effect.values)


def test_a_run_that_is_worked_on_is_not_resumed(finished, tmp_path):
    run = copied(finished, tmp_path / "run")
    set_status(run, "failed")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with store.locked(run):
        with pytest.raises(RequestError, match="another process is working on this run"):
            study.run("study", asked(), study.Place(resume=str(run)), lambda *_: None)
        assert (run / ".lock").exists()
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_resume_with_other_weights_is_refused(finished, tmp_path, monkeypatch):
    run = copied(finished, tmp_path / "run")
    values = manifest.read_manifest(run)
    values["model"]["weights"] = {"model.safetensors": "0"}
    write_manifest(run, values | {"status": "failed"})
    with pytest.raises(RequestError, match="weights are no longer those of this run"):
        study.run("study", asked(), study.Place(resume=str(run)), lambda *_: None)


def test_a_complete_run_is_not_resumed(finished):
    with pytest.raises(RequestError, match="this run is complete"):
        study.run("study", asked(), study.Place(resume=str(finished)), lambda *_: None)


def test_killed_at_several_moments_and_resumed_it_gives_the_same_values(tmp_path, finished):
    """In the first stage, in a later one, and where the arrays are written."""
    run = tmp_path / "run"
    for moment, place in ((6, study.Place(run=str(run))), (11, again := study.Place(resume=str(run))), (40, again)):
        ended = killed_at(moment, lambda place=place: study.run("study", asked(), place, lambda *_: None))
        assert ended == -signal.SIGKILL
    study.run("study", asked(), again, lambda *_: None)
    whole = harness.open_run(finished).data
    for name, array in harness.open_run(run).data.items():
        np.testing.assert_array_equal(array.values, whole[name].values)
    assert not list(run.glob("**/*.part"))


def test_a_variable_that_the_schema_does_not_list_is_not_written():
    grid = np.zeros((1, 2, 3))
    data = xr.Dataset({"effect": (("metric", "prompt", "layer"), grid), "what": ("prompt", grid[0, :, 0])})
    assert schema.unknown(data) == ["effect [metric, prompt, layer]", "what [prompt]"]
    layers = xr.Dataset({"other_layer_effect": (("metric", "prompt", "stack", "other_layer"), grid[..., None])})
    assert schema.unknown(layers) == []


def test_a_run_of_another_format_says_what_reads_it(finished, tmp_path):
    old = json.loads((finished / "manifest.json").read_text())
    values = {key: value for key, value in old.items() if key not in ("format", "version", "checksum")}
    (tmp_path / "manifest.json").write_text(store.seal(values))
    with pytest.raises(RequestError, match=r"written in format 1 by attention-harness 0\.1\.0.*reads format 4"):
        harness.open_run(tmp_path)
