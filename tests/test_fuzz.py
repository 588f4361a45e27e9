"""Readers of what others may have written: any bytes give a value or one clear refusal, never another error."""

import io
import json

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import harness
from harness import study
from harness.config import RequestError
from harness.prompts import readers
from harness.results import manifest, store
from harness.results.store import StageFolder

MANY = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: (
    st.lists(inner) | st.dictionaries(st.text(), inner)), max_leaves=8)  # fmt: skip


@pytest.fixture(scope="module")
def unit(tmp_path_factory):
    """A unit as it is written."""
    folder = StageFolder(tmp_path_factory.mktemp("unit"))
    folder.write(0, {"clean": np.arange(12.0).reshape(3, 4), "head": np.array("L1H2")})
    return folder


@MANY
@given(st.binary(max_size=400))
def test_any_bytes_are_no_unit(unit, content):
    folder = StageFolder(unit.path / "any")
    folder._unit(0).parent.mkdir(parents=True, exist_ok=True)
    folder._unit(0).write_bytes(content)
    assert folder.read(0) is None


@MANY
@given(st.data())
def test_a_unit_with_any_byte_changed_is_no_unit(unit, data):
    content = bytearray(unit._unit(0).read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    folder = StageFolder(unit.path / "changed")
    folder._unit(0).parent.mkdir(parents=True, exist_ok=True)
    folder._unit(0).write_bytes(bytes(content))
    assert folder.read(0) is None


def test_a_pickle_in_a_unit_is_not_read(tmp_path):
    import hashlib

    class Harm:
        def __reduce__(self):
            return (tmp_path / "harm").touch, ()

    body = io.BytesIO()
    np.savez(body, allow_pickle=True, clean=np.array([Harm()], dtype=object))
    folder = StageFolder(tmp_path)
    folder._unit(0).parent.mkdir()
    folder._unit(0).write_bytes(hashlib.sha256(body.getvalue()).hexdigest().encode() + b"\n" + body.getvalue())
    with pytest.raises(ValueError, match="allow_pickle"):
        folder.read(0)
    assert not (tmp_path / "harm").exists()
    np.load(io.BytesIO(body.getvalue()), allow_pickle=True)["clean"]  # what a reader that unpickles would do
    assert (tmp_path / "harm").exists()


@MANY
@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_no_manifest_and_no_plan(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("run")
    (folder / "manifest.json").write_bytes(content)
    (folder / "plan.json").write_bytes(content)
    with pytest.raises(RequestError, match="its manifest.json is damaged"):
        manifest.read_manifest(folder)
    with pytest.raises(RequestError, match="this plan is damaged"):
        StageFolder(folder).plan()


@MANY
@given(JSON)
def test_what_was_sealed_is_what_is_read(value):
    try:
        text = store.seal({"value": value})
    except ValueError:
        return
    assert str(store.unseal(text)) == str({"value": json.loads(json.dumps(value))})


@MANY
@given(st.binary(max_size=200) | JSON.map(lambda value: yaml.safe_dump(value).encode()))
def test_any_spec_is_refused_in_one_line(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("run")
    (folder / "spec.yaml").write_bytes(content)
    with pytest.raises(RequestError) as refused:
        study.saved_spec(folder)
    assert len(str(refused.value).splitlines()) == 1
    assert str(refused.value).startswith(f"resume={folder}: ")
    with pytest.raises(RequestError):
        harness.open_run(folder)


@MANY
@given(st.binary(max_size=300), st.sampled_from(["txt", "jsonl", "csv", "parquet"]))
def test_any_bytes_are_prompts_or_refused(tmp_path_factory, content, kind):
    path = tmp_path_factory.mktemp("prompts") / f"rows.{kind}"
    path.write_bytes(content)
    table, said = None, ""
    try:
        table = readers.read(path, {"text"})
    except RequestError as refused:
        said = str(refused)
    if table is None:
        assert said.startswith(f"prompts.path={path}: ")
        assert len(said.splitlines()) == 1
        return
    text = content.decode("utf-8-sig")  # what is accepted is text, whatever the kind: no parquet by chance
    assert table.rows
    if kind == "txt":
        lines = text.replace("\r\n", "\n").replace("\r", "\n")
        assert lines.startswith("\n".join(row.values["text"] for row in table.rows))


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=200).map(lambda tail: b"GGUF" + tail) | st.binary(max_size=100))
def test_any_bytes_are_no_gguf(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(RequestError) as refused:
        harness.load_model("gguf", path=str(path))
    assert len(str(refused.value).splitlines()) == 1
