"""A saved run done again: the same values, or those that moved by name; and what decides a number is written down."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from thinned import most

import harness
from harness import config, study
from harness.config import RequestError, RunSpec, parse
from harness.models import random as random_models
from harness.results import manifest
from harness.results.store import StageFolder
from harness.study.reproduce import reproduce

REFERENCES = sorted(path.parent.name for path in (Path(__file__).parents[1] / "results/reference").glob("*/spec.yaml"))
PLANTED = {
    "model": {"name": "planted", "source": "planted", "variant": "soft", "bos": "always"},
    "prompts": {"name": "induction", "n": 6, "length": 18},
    "metrics": ["loss", "kl"],
}


def nothing(*_):
    return None


def run(values, folder, runner="ablate_heads"):
    return study.run(runner, parse(RunSpec, values), study.Place(run=str(folder)), nothing)


@pytest.fixture(scope="module", autouse=True)
def _no_pictures():
    patch = pytest.MonkeyPatch()
    patch.setattr("harness.study.record.draw", nothing)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return run(PLANTED, tmp_path_factory.mktemp("saved") / "run")


def reference(saved, place):
    """What is committed of a run: no arrays."""
    place.mkdir()
    for name in ("spec.yaml", "manifest.json", "heads.csv"):
        shutil.copy(saved / name, place)
    return place


def changed(saved, place, change):
    """A reference whose spec asks for something else."""
    folder = reference(saved, place)
    spec = yaml.safe_load((folder / "spec.yaml").read_text())
    change(spec)
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    return folder


def test_a_run_done_again_holds_array_by_array(saved, tmp_path):
    result = reproduce(saved, str(tmp_path), nothing, nothing)
    assert result.holds
    assert result.environment == ()
    assert result.compared > 24 * 3
    kept = json.loads((result.run / "reproduction.json").read_text())
    assert (kept["holds"], kept["moved"], kept["of"]) == (True, [], str(saved))


def test_a_reference_without_arrays_is_compared_by_its_table(saved, tmp_path):
    result = reproduce(reference(saved, tmp_path / "reference"), str(tmp_path), nothing, nothing)
    assert result.holds
    assert result.compared == 24 * 4  # the mean, its interval and the direct effect of each head by each metric


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda spec: spec["prompts"].update(seed=1), "prompts_sha256"),
        (lambda spec: spec["model"].update(dtype="bfloat16"), "dtype: float32 → bfloat16"),
        (lambda spec: spec["model"].update(seed=1), "model.weights.planted: soft seed 0 → soft seed 1"),
        (lambda spec: spec.update(ablation={"name": "mean"}), ""),
    ],
    ids=["seed", "dtype", "weights", "ablation"],
)
def test_a_deliberate_change_is_named_with_what_moved(saved, tmp_path, change, says):
    folder = changed(saved, tmp_path / "reference", change)
    result = reproduce(folder, str(tmp_path), nothing, nothing)
    assert not result.holds
    assert any(says in line for line in result.environment) or not says
    assert all(abs(moved.now - moved.before) > result.tolerance for moved in result.moved)
    assert any(" effect_mean: " in str(moved) and "its interval" in str(moved) for moved in result.moved)


def test_one_changed_weight_is_found(tmp_path):
    from safetensors.torch import load_file, save_file

    model, tokenizer, _ = random_models.build("llama", 0)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    values = {
        "model": {"name": "path", "source": "path", "path": str(tmp_path / "model")},
        "prompts": {"name": "ioi", "n": 3},
    }
    folder = run(values, tmp_path / "run")
    assert reproduce(folder, str(tmp_path), nothing, nothing).holds
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["model.layers.1.self_attn.o_proj.weight"][0, 0] += 2
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    result = reproduce(folder, str(tmp_path), nothing, nothing)
    assert not result.holds
    assert any("model.weights.model.safetensors" in line for line in result.environment)


def test_the_command_ends_with_code_0_or_1(command, saved, tmp_path):
    folder = reference(saved, tmp_path / "reference")
    code, out, err = command("reproduce", f"run={folder}")
    assert (code, err.splitlines()[-1]) == (0, "96 of 96 values hold within 0.001")
    assert harness.open_run(out.splitlines()[-1]).manifest["runner"] == "ablate_heads"
    other = changed(saved, tmp_path / "other", lambda spec: spec["model"].update(seed=1))
    code, out, err = command("reproduce", f"run={other}")
    assert code == 1
    assert "moved: loss L" in err
    assert Path(out.splitlines()[-1]).is_dir()


@pytest.fixture
def interrupted(monkeypatch):
    """Interrupts a run when its first unit is done, once."""
    real, calls = StageFolder.write, []

    def write(*given, **more):
        done = real(*given, **more)
        calls.append(given)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(StageFolder, "write", write)
    return calls


def test_reproduce_that_was_interrupted_names_its_directory_and_goes_on(command, saved, tmp_path, interrupted):
    folder = reference(saved, tmp_path / "reference")
    code, out, err = command("reproduce", f"run={folder}")
    assert (code, out) == (130, "")
    settings = shlex.split(err.splitlines()[-1].partition(" -m experiments.reproduce ")[2])
    assert settings[0] == f"run={folder}"
    begun = Path(settings[1].removeprefix("resume="))
    assert manifest.read_manifest(begun)["status"] == "failed"
    done = len(interrupted)
    code, out, err = command("reproduce", *settings)
    assert (code, err.splitlines()[-1]) == (0, "96 of 96 values hold within 0.001")
    assert Path(out.strip()) == begun
    assert json.loads((begun / "reproduction.json").read_text())["of"] == str(folder)
    units = len(interrupted)
    assert command("reproduce", f"run={folder}")[0] == 0
    assert len(interrupted) - units == units - done + 1  # of the run that went on, the first unit was there


def test_reproduce_that_was_interrupted_while_comparing_only_compares(command, saved, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    folder = reference(saved, tmp_path / "reference")
    with monkeypatch.context() as patch:
        patch.setattr("harness.study.reproduce._of_tables", stop)
        code, _, err = command("reproduce", f"run={folder}")
    assert code == 130
    settings = shlex.split(err.splitlines()[-1].partition(" -m experiments.reproduce ")[2])
    monkeypatch.setattr(study, "prepare", stop)  # nothing is computed again
    assert command("reproduce", *settings)[0] == 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("resume={run}", "resume={run}: this is the saved run itself; name the directory of the new one"),
        ("resume={other}", "resume={other}: this run was started with another seed"),
        ("resume={run}/none", "resume={run}/none: there is no such directory"),
        (
            "seed=1",
            "seed=1: a run is reproduced with its saved settings, so leave this out; for another run: study seed",
        ),
        (
            "prompts.n=3",
            "prompts.n=3: a run is reproduced with its saved settings, so leave this out; for another run: ",
        ),
        ("+model.dtype=x", "model.dtype=x: a run is reproduced with its saved settings"),
        ("sede=1", "sede=1: there is no such key; known: run, store, resume"),
    ],
)
def test_reproduce_refuses_other_settings_in_one_line(command, saved, tmp_path, given, says):
    other = changed(saved, tmp_path / "other", lambda spec: spec.update(seed=1))
    names = {"{run}": str(saved), "{other}": str(other)}
    for name, path in names.items():
        given, says = given.replace(name, path), says.replace(name, path)
    code, out, err = command("reproduce", f"run={saved}", given)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(says)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda run: (run / "heads.csv").unlink(), "there is nothing to compare"),
        (lambda run: (run / "spec.yaml").unlink(), "there is no run here: it has no spec.yaml"),
        (lambda run: (run / "manifest.json").unlink(), "it has no manifest.json"),
        (lambda run: (run / "heads.csv").write_text("x"), "its heads.csv"),
    ],
)
def test_what_cannot_be_compared_is_refused(command, saved, tmp_path, damage, says):
    folder = reference(saved, tmp_path / "reference")
    damage(folder)
    code, out, err = command("reproduce", f"run={folder}")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert says in err


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_is_whole(name):
    folder = Path(__file__).parents[1] / "results/reference" / name
    assert manifest.read_manifest(folder)["status"] == "complete"
    assert {path.name for path in folder.iterdir()} == {"spec.yaml", "manifest.json", "heads.csv"}
    study.saved_spec(folder)


@pytest.mark.parametrize("name", most(["planted", "minilm"], 1))
def test_the_small_references_hold(name, tmp_path):
    """SmolLM2's takes minutes: python -m experiments.reproduce run=results/reference/smollm2."""
    result = reproduce(Path(__file__).parents[1] / "results/reference" / name, str(tmp_path), nothing, nothing)
    assert result.holds, result.moved[:5]


# --- what decides a number is in the manifest -------------------------------------------------------------------

BASE = {"model": {"name": "random", "source": "random"}, "prompts": {"name": "ioi", "n": 3}}
DECIDES = {
    "model": {"model": {"name": "random", "source": "random", "shape": "gpt2"}},
    "weights": {"model": {"name": "random", "source": "random", "seed": 1}},
    "dtype": {"model": {"name": "random", "source": "random", "dtype": "bfloat16"}},
    "bos": {"model": {"name": "random", "source": "random", "bos": "never"}},
    "prompts": {"prompts": {"name": "ioi", "n": 4}},
    "prompt seed": {"prompts": {"name": "ioi", "n": 3, "seed": 1}},
    "ablation": {"ablation": {"name": "mean"}},
    "reference": {"ablation": {"name": "mean", "reference": "induction"}},
    "positions": {"ablation": {"name": "zero", "positions": "last"}},
    "metrics": {"metrics": ["kl"]},
    "heads": {"heads": ["L0H1"]},
    "kind": {"sweep": {"kind": ["single", "layer"]}},
    "statistics": {"stats": {"seed": 1}},
    "threshold": {"stats": {"min_effect": 0.1}},
    "rollout": {"attribution": {"rollout": {"residual": 0.4}}},
    "cache": {"cache": {"dtype": "float16"}},
    "seed": {"seed": 1},
}
DOES_NOT_DECIDE = {
    "memory": {"sweep": {"memory": 1.0}},
    "shown": {"show": {"prompts": [1]}},
    "published": {"published": [{"source": "x", "what": "role", "head": "L0H0", "role": "y"}]},
}


def hash_of(changes):
    return config.spec_hash("study", parse(RunSpec, {**BASE, **changes}))


@pytest.mark.parametrize("name", DECIDES)
def test_what_decides_a_number_changes_the_hash(name):
    assert hash_of(DECIDES[name]) != hash_of({})


@pytest.mark.parametrize("name", DOES_NOT_DECIDE)
def test_what_decides_no_number_does_not(name):
    assert hash_of(DOES_NOT_DECIDE[name]) == hash_of({})


def test_what_the_spec_cannot_know_is_in_the_manifest(tmp_path):
    """Weights of a folder, its tokenizer, the prompts of a file, the packages and the checkout."""
    model, tokenizer, _ = random_models.build("llama", 0)
    other, _, _ = random_models.build("llama", 1)
    records = []
    for number, (weights, text) in enumerate(((model, "a store"), (other, "a store"), (model, "a drink"))):
        weights.save_pretrained(tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
        (tmp_path / "prompts.txt").write_text(f"{text} to John\nthe office\n")
        values = {
            "model": {"name": "path", "source": "path", "path": str(tmp_path / "model")},
            "prompts": {"name": "file", "path": str(tmp_path / "prompts.txt")},
        }
        records.append(manifest.read_manifest(run(values, tmp_path / f"run{number}", "cache_attention")))
    first, weights, text = records
    assert first["hash"] == weights["hash"] == text["hash"]
    assert first["model"]["weights"] != weights["model"]["weights"]
    assert first["prompts_sha256"] == weights["prompts_sha256"] != text["prompts_sha256"]
    for key in ("commit", "dirty", "packages", "python", "platform", "threads", "device", "dtype", "bos_first", "seed"):
        assert key in first
    assert first["packages"]["torch"]
    assert first["model"]["bos"]


# --- published values -------------------------------------------------------------------------------------------


def test_published_values_are_held_against_the_run(tmp_path):
    said = [
        {"source": "here", "what": "clean", "metric": "loss", "value": 0.3, "tolerance": 0.2},
        {"source": "there", "what": "effect", "metric": "loss", "head": "L0H4", "value": 9.0, "tolerance": 0.1},
        {"source": "x", "what": "ablated", "metric": "prob", "head": "L0H4", "value": 9.0, "tolerance": 0.1},
        {"source": "y", "what": "role", "head": "L0H4", "role": "previous_token"},
    ]
    folder = run({**PLANTED, "published": said}, tmp_path / "run")
    told = [found.text for found in harness.findings.findings(harness.open_run(folder)) if "Published" in found.text]
    assert told[0].startswith("Published: clean loss 0.300 (here). Here: 0.")
    assert told[0].endswith(", the same within 0.2.")
    assert told[1].endswith(", not the same within 0.1.")
    assert told[2].endswith("this run did not measure it.")
    assert told[3].endswith("this run scored no roles.")


def test_a_published_value_that_says_too_little_is_refused():
    with pytest.raises(RequestError, match=r"published.head=null: a published effect needs a head"):
        parse(
            RunSpec,
            {
                **BASE,
                "published": [{"source": "x", "what": "effect", "metric": "loss", "value": 1.0, "tolerance": 1.0}],
            },
        )
