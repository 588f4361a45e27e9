"""A hub that answers slowly, partly or not at all: one line, exit code 2, and nothing torn is taken for whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub import Hub

from harness import hooks
from harness.models.cache import sha256

ROOT = Path(__file__).parents[1]

#: What `harness.command` does with a model, without the seconds that loading it takes.
FETCH = """
import sys
from harness.config import HubModel, RequestError
from harness.models.sources import local_folder
try:
    print(local_folder(HubModel(name="hub", source="hub", id="tiny/model")))
except RequestError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
"""


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    """A tiny model as it lies on the hub."""
    folder, model = tmp_path_factory.mktemp("hub") / "model", tiny("gpt2")
    plain = hooks.plain_model(model.bridge)
    type(plain)(plain.config).save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def hub(folder):
    running = Hub(folder)
    yield running
    running.close()


@pytest.fixture
def fetch(hub, tmp_path):
    """Fetch the model, in a process that knows only this hub: (exit code, standard output, standard error)."""

    def run(manner, code=("-c", FETCH), **more):
        hub.manner = manner
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "*"}
        environment |= {"HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1", "HF_HUB_DISABLE_XET": "1", **more}
        for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "TRANSFORMERS_OFFLINE"):
            environment.pop(name, None)
        done = subprocess.run(
            [sys.executable, *code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200
        )
        return done.returncode, done.stdout.strip(), done.stderr.strip()

    return run


def weights(tmp_path):
    """The weight files that a snapshot in the cache names."""
    return list((tmp_path / "hf").glob("hub/models--*/snapshots/*/*.safetensors"))


def test_a_hub_that_answers_well(fetch, folder, tmp_path):
    code, out, err = fetch("well")
    assert code == 0, err
    assert sha256(Path(out) / "model.safetensors") == sha256(folder / "model.safetensors")
    assert fetch("silent")[:2] == (0, out)  # it is there: nobody is asked


@pytest.mark.parametrize(
    ("manner", "says"),
    [
        pytest.param("cut", "it is not cached and the hub does not answer", marks=pytest.mark.soak),
        pytest.param("stuck", "it is not cached and the hub does not answer", marks=pytest.mark.soak),
        pytest.param("silent", "it is not cached and the hub does not answer", marks=pytest.mark.soak),
        (503, "it is not cached and the hub does not answer"),
        (401, "the hub refuses it"),
    ],
)
def test_a_hub_that_does_not_is_one_line_and_the_next_try_is_whole(fetch, hub, folder, tmp_path, manner, says):
    code, out, err = fetch(manner)
    assert (code, out) == (2, ""), err
    said = [line for line in err.splitlines() if line.startswith("model.id=")]
    assert len(said) == 1, err
    assert "Traceback" not in err
    assert said[0].startswith(f"model.id=tiny/model: {says}")
    assert weights(tmp_path) == []
    code, out, err = fetch("well")
    assert code == 0, err
    assert sha256(Path(out) / "model.safetensors") == sha256(folder / "model.safetensors")


def test_a_torn_weight_file_is_found_by_its_checksum_and_fetched_anew(fetch, folder, tmp_path):
    code, out, err = fetch("flipped")
    (torn,) = weights(tmp_path)
    blob = torn.resolve()
    says = "model.id=tiny/model: model.safetensors in the cache is not what the hub has: remove it, and it is fetched"
    assert (code, out) == (2, "")
    assert f"{says} anew: rm {blob}" in err.splitlines()
    assert fetch("well")[0] == 2  # it is not passed over the next time
    blob.unlink()
    code, out, err = fetch("well")
    assert code == 0, err
    assert sha256(Path(out) / "model.safetensors") == sha256(folder / "model.safetensors")


@pytest.mark.soak
@pytest.mark.launch
def test_a_token_goes_to_the_hub_and_nowhere_else(fetch, hub, tmp_path):
    """Asked by the command line: refused, and a run of what was fetched."""
    token = "hf_" + "s3cretword" * 3
    code = ("-m", "experiments.ablate_heads", "model=hub", "model.id=tiny/model", "prompts=inline", "metrics=[loss]",
            "prompts.text=['Once upon a time']", f"store={tmp_path / 'results'}")  # fmt: skip
    status, out, err = fetch(401, code, HF_TOKEN=token)
    assert (status, out) == (2, "")
    assert not (tmp_path / "results").exists()
    said = [out, err]
    status, out, err = fetch("well", code, HF_TOKEN=token, AWS_SECRET_ACCESS_KEY=token)
    assert status == 0, err
    assert f"Bearer {token}" in {headers.get("authorization") for _, _, headers in hub.asked}
    written = [path.read_bytes() for path in Path(out).rglob("*") if path.is_file()]
    assert len(written) > 10
    assert not any(token.encode() in content for content in [*written, *(text.encode() for text in (*said, out, err))])
