"""A model in the caller's hands: the same effects as its saved folder, and theirs bit-equal afterwards."""

from copy import deepcopy

import numpy as np
import pytest
import torch

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


def quantised(plain):
    plain.config.quantization_config = {"load_in_8bit": True}
    return plain


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (adapted, r"it has adapters \(LoRA\): pass model\.merge_and_unload\(\)"),
        (quantised, "it is quantised"),
        (lambda plain: object(), "pass a name, a hub id, a folder, a spec, a Hugging Face model"),
    ],
)
def test_what_cannot_be_read_from_memory_is_refused(trained, change, says):
    plain, tokenizer = trained
    with pytest.raises(RequestError, match=says):
        harness.load_model(change(plain), tokenizer)


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
