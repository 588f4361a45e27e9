"""A model in the caller's hands: the same effects as its saved folder, and theirs bit-equal afterwards."""

import json
from copy import deepcopy
from functools import partial

import families
import numpy as np
import pytest
import torch
import transformers

import harness
from harness.config import RequestError
from harness.models import in_memory
from harness.models import random as random_models


@pytest.fixture
def trained():
    """A tiny model after two steps of training, and its tokenizer."""
    plain, tokenizer, _ = random_models.build("gpt2", 3)
    plain.train().requires_grad_(True)
    optimizer = torch.optim.SGD(plain.parameters(), 0.1)
    for _ in range(2):
        token_id = torch.arange(3, 9)[None]
        plain(token_id, labels=token_id).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return plain, tokenizer


def state(plain):
    return {name: tensor.clone() for name, tensor in plain.state_dict().items()}


def hooked(plain):
    return [
        name
        for name, module in plain.named_modules()
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    ]


def test_in_memory_effects_are_those_of_the_saved_folder(trained, tmp_path):
    plain, tokenizer = trained
    before, training = state(plain), plain.training
    plain.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    effects = []
    for model in (harness.load_model(plain, tokenizer), harness.load_model(str(tmp_path))):
        prompts = harness.load_prompts("ioi", model, n=3)
        effects.append(harness.ablate_heads(model, prompts, "mean").data["effect"].values)
    np.testing.assert_allclose(effects[0], effects[1], atol=1e-6)
    assert plain.training == training
    assert hooked(plain) == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in plain.state_dict().items())
    assert all(weight.requires_grad for weight in plain.parameters())


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_in_memory_model_is_left_alone_by_what_fails(trained, monkeypatch, error):
    plain, tokenizer = trained
    before = in_memory.digest(plain)
    monkeypatch.setattr("harness.models.traits.measure", lambda *_: (_ for _ in ()).throw(error("stopped")))
    with pytest.raises(error):
        harness.load_model(plain, tokenizer)
    assert in_memory.digest(plain) == before
    assert hooked(plain) == []


def test_a_bridge_in_memory_is_the_same_model(trained):
    from transformer_lens.model_bridge import TransformerBridge

    plain, tokenizer = trained
    bridge = TransformerBridge.boot_transformers("local/tiny", hf_model=deepcopy(plain), tokenizer=tokenizer)
    model = harness.load_model(bridge)
    assert model.identity["weights"] == harness.load_model(plain, tokenizer).identity["weights"]
    bridge.add_hook("blocks.0.attn.hook_z", lambda z, hook: z)
    with pytest.raises(RequestError, match=r"this bridge has hooks on it: model\.reset_hooks\(\) first"):
        harness.load_model(bridge)


def test_a_changed_weight_is_another_model(trained):
    plain, _ = trained
    before = in_memory.digest(plain)
    with torch.no_grad():
        next(plain.parameters())[0, 0] += 1e-3
    assert in_memory.digest(plain) != before


def adapted(plain):
    plain.peft_config = {"default": None}
    return plain


class LoraLinear(torch.nn.Module):
    """A layer as peft wraps it, without peft."""

    def __init__(self, base):
        super().__init__()
        self.base_layer = base
        self.lora_A = torch.nn.ModuleDict({"default": torch.nn.Linear(4, 4)})

    def forward(self, x):
        return self.base_layer(x)


def lora(plain):
    plain.transformer.h[0].attn.c_proj = LoraLinear(plain.transformer.h[0].attn.c_proj)
    return plain


def quantised(plain):
    plain.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    return plain


def packed(plain):
    layer = plain.transformer.h[0].mlp.c_fc
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    return plain


def hooked_by_someone(plain):
    plain.transformer.h[1].register_forward_hook(lambda module, args, out: out)
    return plain


def steered(plain):
    plain.transformer.h[1].attn.register_forward_pre_hook(partial(lambda scale, module, args: None, 2.0))
    return plain


def hooked_bridge(plain):
    bridge = bridged(plain)
    bridge.original_model.transformer.h[0].register_forward_hook(lambda module, args, out: out)
    return bridge


def bridged(plain):
    from transformer_lens.model_bridge import TransformerBridge

    tokenizer = random_models.build("gpt2", 3)[1]
    return TransformerBridge.boot_transformers("local/tiny", hf_model=deepcopy(plain), tokenizer=tokenizer)


def mamba(plain):
    size = {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}
    return transformers.MambaForCausalLM(transformers.MambaConfig(vocab_size=plain.config.vocab_size, **size)).eval()


def jamba(plain):
    name, size = families.FAMILIES["jamba"]
    settings = getattr(transformers, name)(**{**size, "vocab_size": plain.config.vocab_size})
    return transformers.AutoModelForCausalLM.from_config(settings).eval()


PLAIN = "and heads are studied in plain weights: pass the model before quantisation"
HELD = "pass a name, a hub id, a folder, a spec, a Hugging Face model or a TransformerLens bridge"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (adapted, "model=in memory: it has adapters (LoRA): pass model.merge_and_unload()"),
        (lora, "model=in memory: it has adapters (LoRA): pass model.merge_and_unload()"),
        (quantised, f"model=in memory: it is quantised (bitsandbytes), {PLAIN}"),
        (packed, f"model=in memory: it is quantised (packed weights), {PLAIN}"),
        (hooked_by_someone, "model=transformer.h.1: this module has a hook on it: handle.remove() it first"),
        (steered, "model=transformer.h.1.attn: this module has a hook on it: handle.remove() it first"),
        (
            mamba,
            "model=in memory: TransformerLens does not hook this architecture (MambaForCausalLM: no attention heads)",
        ),
        (lambda plain: object(), f"model=object: {HELD}"),
        (lambda plain: None, f"model=NoneType: {HELD}"),
        (lambda plain: torch.nn.Linear(2, 2), f"model=Linear: {HELD}"),
    ],
)
def test_what_cannot_be_read_from_memory_is_refused(trained, change, says):
    plain, tokenizer = trained
    for call in (harness.load_model, lambda model, tokens: harness.look(model, "John gave a drink to")):
        if call is not harness.load_model and change is mamba:
            continue  # it has no tokenizer with it
        with pytest.raises(RequestError) as refused:
            call(change(deepcopy(plain)), tokenizer)
        assert str(refused.value) == says


def test_a_hook_inside_a_bridge_is_refused(trained):
    with pytest.raises(RequestError, match=r"this module has a hook on it: handle\.remove\(\) it first"):
        harness.load_model(hooked_bridge(trained[0]))


def test_hooks_of_the_libraries_themselves_are_no_ones(trained):
    plain, tokenizer = trained
    plain(torch.arange(3, 9)[None], output_attentions=True, output_hidden_states=True)
    bridge = bridged(plain)
    bridge.run_with_cache(torch.arange(3, 9)[None])
    for model in (harness.load_model(plain, tokenizer), harness.load_model(bridge)):
        assert model.shape.n_layers == plain.config.n_layer


def test_a_hybrid_in_memory_is_refused_as_its_folder_is(trained, tmp_path):
    plain, tokenizer = trained
    hybrid = jamba(plain)
    hybrid.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    for call in (lambda: harness.load_model(hybrid, tokenizer), lambda: harness.look(tmp_path, "John gave a drink")):
        with pytest.raises(RequestError, match=r"TransformerLens has no hook point blocks\.0\.attn\.hook_k here"):
            call()


def test_a_mamba_in_a_folder_is_refused(trained, tmp_path):
    plain, tokenizer = trained
    mamba(plain).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(RequestError) as refused:
        harness.look(str(tmp_path), "John gave a drink to")
    reason = "TransformerLens does not hook this architecture (MambaForCausalLM: no attention heads)"
    assert str(refused.value) == f"model={tmp_path.name}: {reason}"


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq", "compressed-tensors", "unheard-of"])
def test_a_quantised_folder_is_refused_before_its_package_is_missed(trained, tmp_path, method):
    plain, tokenizer = trained
    plain.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["quantization_config"] = {"quant_method": method, "bits": 4}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(RequestError) as refused:
        harness.load_model(tmp_path)
    assert str(refused.value) == f"model.path={tmp_path}: it is quantised ({method}), {PLAIN}"


@pytest.mark.parametrize("tokenizer", ["gpt2", 5, torch.nn.Linear(2, 2)])
def test_what_is_no_tokenizer_is_refused(trained, tokenizer):
    remedy = r"pass the tokenizer itself: transformers\.AutoTokenizer\.from_pretrained"
    with pytest.raises(RequestError, match=f"^tokenizer=.*: {remedy}"):
        harness.load_model(trained[0], tokenizer)


def test_a_model_without_a_tokenizer_or_with_anothers_is_refused(trained):
    plain, tokenizer = trained
    with pytest.raises(RequestError, match=r"load_model\(model, tokenizer=tokenizer\)"):
        harness.load_model(plain)
    more = deepcopy(tokenizer)
    more.add_tokens([f"<new{number}>" for number in range(plain.config.vocab_size)])
    with pytest.raises(RequestError, match="it is of another model"):
        harness.load_model(plain, more)


def test_a_name_that_is_no_preset_is_a_folder_or_a_hub_id(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("harness.models.load.boot", asked.append)
    harness.load_model(tmp_path)
    harness.load_model("org/name", dtype="bfloat16")
    assert (asked[0].source, asked[0].path) == ("path", str(tmp_path))
    assert (asked[1].source, asked[1].id, asked[1].dtype) == ("hub", "org/name", "bfloat16")
    with pytest.raises(RequestError, match="smolm2"):
        harness.load_model("smolm2")
