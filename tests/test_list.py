"""The runs in a store: listed, filtered, and deleted only by name and when confirmed."""

import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

import harness
from harness import study
from harness.config import ListSpec, RunSpec, named_model, parse
from harness.results.manifest import read_manifest, write_manifest
from harness.results.runs import format_table, runs


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store with a run of each of two runners, one that failed, and one whose manifest is damaged."""
    root = tmp_path_factory.mktemp("made") / "results"
    model = asdict(named_model("random"))
    for runner, asked in (
        ("cache_attention", {}),
        ("ablate_heads", {"metrics": ["loss"], "heads": ["L0H0"]}),
        ("ablate_heads", {"metrics": ["kl"], "heads": ["L0H1"]}),
    ):
        spec = parse(RunSpec, {"model": model, "prompts": {"name": "ioi", "n": 2}, **asked})
        study.run(runner, spec, study.Place(store=str(root)), lambda *_: None)
    failed = next(path for path in root.glob("ablate_heads/*") if harness.open_run(path).spec["metrics"] == ["kl"])
    write_manifest(failed, {**read_manifest(failed), "status": "failed"})
    (root / "mine").mkdir()
    (root / "mine" / "spec.yaml").write_text("model: {", encoding="utf-8")
    return root


@pytest.fixture
def store(made, tmp_path):
    return shutil.copytree(made, tmp_path / "results")


def test_every_run_is_listed_with_what_it_was(command, store):
    code, out, _ = command("list", f"store={store}", store=False)
    head, *lines = out.splitlines()
    assert code == 0
    assert head.split() == ["run", "model", "prompts", "metrics", "differs", "status", "size", "age"]
    assert len(lines) == 4
    by_name = {line.split()[0]: line for line in lines}
    assert set(by_name) == {path.relative_to(store).as_posix() for path in store.glob("*/*-*")} | {"mine"}
    assert "damaged" in by_name["mine"]
    assert sorted("heads=[L0H" in line for line in lines) == [False, False, True, True]  # in which the two differ
    assert sum("complete" in line for line in lines) == 2
    each = runs(ListSpec(store=str(store)))
    assert [run.started for run in each] == sorted((run.started for run in each), reverse=True)
    chosen = next(run for run in each if run.runner == "cache_attention")
    files = [path for path in (store / chosen.name).rglob("*") if path.is_file()]
    assert chosen.size == sum(path.stat().st_size for path in files)
    assert format_table(each, each[0].started + 7200)[1].endswith("2 h")


@pytest.mark.parametrize(
    ("asked", "n"),
    [
        ("model=random", 3), ("model=gpt2", 0), ("prompts=ioi", 3), ("metric=loss", 1), ("status=failed", 1),
        ("status=damaged", 1), ("runner=ablate_heads", 2), ("heads=[L0H1]", 1), ("ablation.name=zero", 3),
        ("model.shape=llama", 3),
    ],
)  # fmt: skip
def test_filters(command, store, asked, n):
    code, out, _ = command("list", f"store={store}", f"where.{asked}", store=False)
    assert code == 0
    assert len(out.splitlines()) == (n + 1 if n else 1)
    assert n or out.strip() == "no such runs"


def test_a_key_that_no_run_has_is_refused(command, store):
    code, out, err = command("list", f"store={store}", "where.ablation.nam=mean", store=False)
    assert (code, out) == (2, "")
    assert err.startswith("where.ablation.nam=mean: no run has this key; did you mean ablation.name? filter by runner,")


def test_only_what_is_named_and_confirmed_goes(command, store):
    names = [run.name for run in runs(ListSpec(store=str(store)))]
    code, out, err = command("list", f"store={store}", f"delete=[{names[0]}]", store=False)
    assert (code, out) == (2, "")
    assert err.startswith(f"confirm=false: this would delete {names[0]} (")
    assert [run.name for run in runs(ListSpec(store=str(store)))] == names
    code, out, err = command("list", f"store={store}", f"delete=[{names[0]}]", "confirm=true", store=False)
    assert code == 0
    assert err.startswith(f"deleted {names[0]} (")
    assert [run.name for run in runs(ListSpec(store=str(store)))] == names[1:]
    assert len(out.splitlines()) == len(names)


@pytest.mark.parametrize("name", ["mine/../mine", "../elsewhere", "study", "", "."])
def test_nothing_that_is_no_run_of_the_store_is_deleted(command, store, tmp_path, name):
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "spec.yaml").write_text("{}", encoding="utf-8")
    before = {path for path in tmp_path.rglob("*")}
    code, _, err = command("list", f"store={store}", f"delete=['{name}',mine]", "confirm=true", store=False)
    assert code == 2
    assert err.startswith(f"delete={name}: ")
    assert before <= {path for path in tmp_path.rglob("*")}


def test_a_run_behind_a_link_is_not_one_of_the_store(store, tmp_path):
    (store / "link").symlink_to(next(store.glob("cache_attention/*")))
    assert "link" not in [run.name for run in runs(ListSpec(store=str(store)))]


def test_a_run_that_is_worked_on_is_not_deleted(command, store):
    from harness.results import store as files

    name = runs(ListSpec(store=str(store)))[0].name
    with files.locked(store / name):
        code, _, err = command("list", f"store={store}", f"delete=[{name}]", "confirm=true", store=False)
    assert code == 2
    assert "another process is working on this run" in err
    assert (store / name / "spec.yaml").is_file()


def test_a_store_that_is_not_there(command, tmp_path):
    code, _, err = command("list", f"store={tmp_path / 'none'}", store=False)
    assert (code, err.strip()) == (2, f"store={tmp_path / 'none'}: there is no such directory")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (
            ("compare_attributions", "attribution.fractions=[]", "attribution.methods=[rollout,gradient]"),
            {"methods", "method_pairs"},
        ),
        (
            ("compare_models", "compare.model.seed=1", "roles.draws=40", "roles.n=2", "roles.length=6"),
            {"heads", "roles", "changes"},
        ),
    ],
)
def test_every_table_is_there_as_parquet_too(command, asked, expected):
    import pandas as pd

    code, out, err = command(*asked, "model=random", "prompts.n=2", "stats.resamples=300")
    assert code == 0, err
    run = Path(out.splitlines()[-1])
    tables = {path.stem for path in run.glob("*.csv")}
    assert tables == {path.stem for path in run.glob("*.parquet")} == expected
    for name in tables:
        written, read = pd.read_csv(run / f"{name}.csv"), pd.read_parquet(run / f"{name}.parquet")
        assert list(written.columns) == list(read.columns)
        assert len(written) == len(read)
        for column in written.select_dtypes("number"):
            pd.testing.assert_series_equal(written[column], read[column].astype(written[column].dtype), rtol=1e-12)
