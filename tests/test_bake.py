"""Baked checkpoints, loaded by plain transformers, against plain Hugging Face forwards with hooks on W_O; what cannot
be baked; and that nothing is left where baking fails."""

import errno
import json
import shutil
from collections import namedtuple

import plain
import pytest
import torch
import transformers
from safetensors.torch import load_file

import harness
from harness import hooks
from harness.behaviour import bake as room
from harness.config import RequestError
from harness.hooks import Head
from harness.models import random as random_models

POOLED = {"name": "mean", "means": "pooled"}
TEXTS = ("When Mary and John went to the store", "a drink", "Then the garden, and a flower to the office")
HEADS = ["L0H1", "L1H2", "L1H3"]


def prompts_of(model):
    return harness.load_prompts("inline", model, text=TEXTS)


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


def want(model, token_id, prompts=None, ablation="zero", **given):
    """The plain model's output for one text, with z of `HEADS` replaced by a hook on W_O."""
    twin, d_head = plain.twin(model.spec.shape, model.spec.seed), model.shape.d_head
    new = None
    if ablation == POOLED:
        every = [plain.z(twin, prompts.token_id[row, :n], d_head) for row, n in enumerate(prompts.length)]
        new = torch.cat(every, dim=1).mean(1, keepdim=True).expand(-1, len(token_id), -1, -1)
    return plain.logits(twin, token_id, [*map(Head.parse, HEADS)], d_head, new, **given)


@pytest.mark.parametrize("ablation", ["zero", POOLED], ids=str)
@pytest.mark.parametrize("shape", ["gpt2", "llama"])
def test_a_checkpoint_computes_what_the_plain_model_does_with_hooks(tiny, tmp_path, shape, ablation):
    """GPT-2's W_O is transposed and has a bias; Llama's gets one, and zeros beside Q, K and V; its heads share K, V."""
    model = tiny(shape)
    prompts = prompts_of(model)
    baked = harness.bake(model, HEADS, ablation, tmp_path / "baked", prompts=prompts)
    made = transformers.AutoModelForCausalLM.from_pretrained(baked.folder)
    for row, length in enumerate(prompts.length):
        token_id = prompts.token_id[row, :length]
        with torch.no_grad():
            got = made(torch.as_tensor(token_id)[None]).logits
        expected = want(model, token_id, prompts, ablation)
        torch.testing.assert_close(got[0], expected, atol=1e-5, rtol=0)
        assert (expected - plain.logits(plain.twin(shape), token_id)).abs().max() > 0.1
    check = baked.provenance["check"]
    assert check["largest_difference"] < 1e-5
    assert check["texts"] == 2 + len(TEXTS)  # those of every load, and the prompts
    assert made.config.to_dict().get("attention_bias", False) == (shape == "llama" and ablation == POOLED)
    assert harness.load_model(baked.folder).identity["hf_difference"] < 1e-5


def test_a_scaled_head_has_its_columns_times_the_factor(tiny, tmp_path):
    baked = harness.bake(tiny("llama"), "L1H3", {"name": "scale", "factor": -0.5}, tmp_path / "baked")
    before = plain.twin("llama").state_dict()
    for name, after in load_file(baked.folder / "model.safetensors").items():
        same = before[name].clone()
        if name == "model.layers.1.self_attn.o_proj.weight":
            same[:, 36:48] *= -0.5
        assert torch.equal(after, same), name


@pytest.mark.parametrize("ablation", ["zero", POOLED], ids=str)
def test_a_masked_lm_is_baked(tiny, tmp_path, ablation):
    model = tiny("bert")
    prompts = prompts_of(model)
    baked = harness.bake(model, HEADS, ablation, tmp_path / "baked", prompts=prompts)
    made, twin = transformers.AutoModelForMaskedLM.from_pretrained(baked.folder), plain.twin("bert")
    token_id = prompts.token_id[0, : prompts.length[0]]
    if ablation == "zero":
        expected = want(model, token_id)
    else:  # the mean is over the rows that a masked-LM is run on, one for each masked token
        rows, _ = harness.prompts.masked(prompts, model.tokens.mask_id)
        every = [plain.z(twin, rows.token_id[row, :n], model.shape.d_head) for row, n in enumerate(rows.length)]
        new = torch.cat(every, dim=1).mean(1, keepdim=True).expand(-1, len(token_id), -1, -1)
        expected = plain.logits(twin, token_id, [*map(Head.parse, HEADS)], model.shape.d_head, new)
    with torch.no_grad():
        torch.testing.assert_close(made(torch.as_tensor(token_id)[None]).logits[0], expected, atol=1e-5, rtol=0)


def saved(shape, folder, kind=None):
    """A random model on disk, with its tokenizer; `kind` is the class of a bare encoder."""
    whole, tokenizer, _ = random_models.build(shape, 0)
    made = whole.base_model if kind == "embedding" else whole
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if kind == "embedding":
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(
            '{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}'
        )
    return made.eval()


@pytest.mark.parametrize("kind", ["embedding", "classifier"])
def test_an_encoder_keeps_its_own_head_and_pooling(tmp_path, kind):
    before = saved("bert" if kind == "embedding" else "bert_classifier", tmp_path / "own", kind)
    model = harness.load_model(tmp_path / "own")
    baked = harness.bake(model, "L1H2", "zero", tmp_path / "baked")
    again = harness.load_model(baked.folder)
    assert (again.kind, again.pooling) == (model.kind, model.pooling)
    made = type(before).from_pretrained(baked.folder)
    ids = torch.as_tensor(model.tokens.encode(TEXTS[0]).token_id)[None]
    with torch.no_grad():
        clean, got = before(ids)[0], made(ids)[0]
        before.base_model.encoder.layer[1].attention.output.dense.weight[:, 24:36] = 0
        torch.testing.assert_close(got, before(ids)[0], atol=1e-5, rtol=0)
    assert (clean - got).abs().max() > 1e-3


def test_an_encoder_decoder_is_zeroed_in_each_stack_and_refuses_a_mean(tiny, tmp_path):
    model, names = tiny("t5"), ["encoder.L0H1", "decoder.L1H2", "cross.L0H3"]
    baked = harness.bake(model, names, "zero", tmp_path / "baked")
    before, made = plain.twin("t5").state_dict(), load_file(baked.folder / "model.safetensors")
    changed = {
        "encoder.block.0.layer.0.SelfAttention.o.weight": slice(10, 20),
        "decoder.block.1.layer.0.SelfAttention.o.weight": slice(20, 30),
        "decoder.block.0.layer.1.EncDecAttention.o.weight": slice(30, 40),
    }
    for name, after in made.items():
        same = before[name].clone()
        if name in changed:
            same[:, changed[name]] = 0
        assert torch.equal(after, same), name
    assert baked.provenance["check"]["largest_difference"] < 1e-5
    prompts = harness.load_prompts("inline", model, text=[TEXTS[0]], target=[" a garden"])
    with pytest.raises(RequestError, match="^ablation=mean: W_O has no bias in T5ForConditionalGeneration, and its"):
        harness.bake(model, names, POOLED, tmp_path / "mean", prompts=prompts)
    assert files_in(tmp_path) == ["baked"]


# --- the folder -------------------------------------------------------------------------------------------------


def test_a_model_in_memory_keeps_ties_dtype_template_and_generation_config(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "SHARD", "20KB")
    whole, tokenizer, _ = random_models.build("gpt2", 0)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    whole.generation_config.max_new_tokens = 7
    model = harness.load_model(whole.to(torch.bfloat16), tokenizer)
    baked = harness.bake(model, "L0H1", "zero", tmp_path / "baked")
    made = transformers.AutoModelForCausalLM.from_pretrained(baked.folder)
    assert made.dtype == torch.bfloat16
    assert made.lm_head.weight is made.transformer.wte.weight
    assert made.generation_config.max_new_tokens == 7
    again = transformers.AutoTokenizer.from_pretrained(baked.folder)
    assert again.chat_template == tokenizer.chat_template
    assert again(TEXTS[0])["input_ids"] == tokenizer(TEXTS[0])["input_ids"]
    shards = [name for name in files_in(baked.folder) if name.startswith("model-")]
    assert len(shards) > 1
    assert not torch.equal(made.transformer.h[0].attn.c_proj.weight, whole.transformer.h[0].attn.c_proj.weight)
    assert {*shards, "config.json"} <= baked.provenance["files"].keys()


def test_the_provenance_names_request_weights_and_check(tiny, tmp_path):
    model = tiny("llama")
    prompts = prompts_of(model)
    baked = harness.bake(model, HEADS, POOLED, tmp_path / "baked", prompts=prompts)
    record = json.loads((baked.folder / "harness-provenance.json").read_text())
    assert record == baked.provenance
    assert record["heads"] == HEADS
    assert record["ablation"] == {
        **{"name": "mean", "positions": "all", "of": ["z"], "reference": "self", "means": "pooled"}
    }
    assert record["baseline"] == "z becomes its mean over 3 prompts (self), pooled over all positions"
    assert record["config"] == {"attention_bias": True}
    assert record["prompts_sha256"] == prompts.sha256
    assert record["model"]["weights"] == {"random": "llama seed 0"}
    weights = harness.load_model(baked.folder).identity["weights"]["model.safetensors"]
    assert record["files"]["model.safetensors"] == weights
    assert files_in(baked.folder) == sorted([*record["files"], room.PROVENANCE])
    assert f"{record['check']['largest_difference']:.1e}" in repr(baked)


@pytest.mark.soak
@pytest.mark.smollm2
def test_smollm2_is_baked_with_a_pooled_mean(smollm2, tmp_path):
    """Converted from GGUF, it becomes an ordinary folder."""
    prompts = harness.load_prompts("ioi", smollm2, n=2)
    baked = harness.bake(smollm2, ["L23H3", "L20"], POOLED, tmp_path / "baked", prompts=prompts)
    assert baked.provenance["check"]["largest_difference"] < 2e-4
    assert "quantization_config" not in json.loads((baked.folder / "config.json").read_text())
    made = transformers.AutoModelForCausalLM.from_pretrained(baked.folder)
    changed = {Head.parse("L23H3"): None} | {Head(20, head): None for head in range(9)}
    weights = {layer: made.model.layers[layer].self_attn.o_proj.weight for layer in (20, 23, 22)}
    zeroed = {(layer, head) for layer, w in weights.items() for head in range(9) if not w[:, head * 64 :][:, :64].any()}
    assert zeroed == {(head.layer, head.head) for head in changed}


# --- what is refused, and what is left then -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ablation", "more", "says"),
    [
        ("mean", {}, "ablation.means=by_position: weights are the same for every text and position; use"),
        (POOLED, {}, "prompts=none: a mean is over prompts"),
        (
            "resample",
            {},
            "ablation=resample: weights are the same for every text and position; use zero, scale or mean",
        ),
        ("patch", {}, "ablation=patch: weights are the same for every text and position"),
        ({"name": "zero", "positions": [0, 1]}, {}, r"ablation.positions=\[0, 1\]: weights are the same for every"),
        ("zreo", {}, r"ablation=zreo: did you mean 'zero'\?"),
        (lambda z, head: z, {}, "ablation=<function .*>: weights are the same for every text and position; use"),
        ("zero", {"heads": "L3H0"}, "heads=L3H0: L3H0 is outside random: it has layers 0-2"),
        ("zero", {"to": "s3://bucket/x"}, "to=s3://bucket/x: a checkpoint is written to a disk: name a folder"),
    ],
)
def test_what_weights_cannot_hold_is_refused_by_name(tiny, tmp_path, ablation, more, says):
    asked = {"heads": HEADS, "to": str(tmp_path / "baked"), **more}
    with pytest.raises(RequestError, match=f"^{says}"):
        harness.bake(tiny("gpt2"), asked["heads"], ablation, asked["to"])
    assert files_in(tmp_path) == []


def test_a_folder_that_is_not_empty_is_left_as_it_is(command, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    code, out, err = command("bake", "model=random", f"to={tmp_path / 'mine'}", "heads=[L0H1]", store=False)
    assert (code, out) == (2, "")
    assert err == f"to={tmp_path / 'mine'}: this folder is not empty: name a new one\n"
    assert files_in(tmp_path / "mine") == ["notes.txt"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("heads=[L0H1]", "ablation=mean"), "ablation.means=by_position: weights are the same for every text"),
        (("heads=[L0H1]", "ablation=resample"), "ablation=resample: weights are the same for every text and position"),
        (("heads=[L0H1]", "ablation.positions=last"), "ablation.positions=last: weights are the same for every"),
        (("heads=[L9]",), "heads=L9: L9 is outside random"),
        ((), "heads=???: set it"),
    ],
)
def test_a_wrong_request_is_one_line_and_code_2(command, tmp_path, arguments, says):
    code, out, err = command("bake", "model=random", f"to={tmp_path / 'baked'}", *arguments, store=False)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(says)
    assert files_in(tmp_path) == []


def test_the_command_bakes_and_prints_the_folder_and_the_difference(command, tmp_path):
    to = tmp_path / "new" / "baked"
    code, out, err = command(
        "bake", "model=random", f"to={to}", "heads=[L0H1,L2]", "ablation=mean", "ablation.means=pooled", store=False
    )
    assert (code, out) == (0, f"{to}\n")
    check = json.loads((to / room.PROVENANCE).read_text())["check"]
    assert "5 heads: z becomes its mean over 32 prompts (self), pooled over all positions; loaded again" in err
    assert f"is {check['largest_difference']:.1e}" in err


def test_a_disk_that_cannot_hold_it_is_refused_before_anything_is_written(tiny, tmp_path, monkeypatch):
    Usage = namedtuple("Usage", ["total", "used", "free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 10**6, 10**6))
    to = tmp_path / "baked"
    with pytest.raises(RequestError) as refused:
        harness.bake(tiny("gpt2"), "L0H1", "zero", to)
    says = "the checkpoint takes 0.03 GB and this disk has 0.00 GB free; choose another with to=DIR"
    assert str(refused.value) == f"to={to}: {says}"
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), RuntimeError("I/O error (os error 28)")], ids=str)
def test_a_disk_that_fills_meanwhile_leaves_nothing(tiny, tmp_path, monkeypatch, error):
    def full(model, plain, folder):
        (folder / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(room, "_save", full)
    with pytest.raises(RequestError, match="baked: the disk is full; choose another with to=DIR$"):
        harness.bake(tiny("gpt2"), "L0H1", "zero", tmp_path / "baked")
    assert files_in(tmp_path) == []


def test_an_interrupt_leaves_nothing(tiny, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(room, "_compare", stop)
    with pytest.raises(KeyboardInterrupt):
        harness.bake(tiny("gpt2"), "L0H1", "zero", tmp_path / "baked")
    assert files_in(tmp_path) == []


def test_a_checkpoint_that_is_off_the_hooked_model_is_not_kept(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "_write_weights", lambda *_: None)
    with pytest.raises(
        RequestError, match="^model=random: the checkpoint's output is off the ablated model's by [0-9.]"
    ):
        harness.bake(tiny("gpt2"), "L0H1", "zero", tmp_path / "baked")
    assert files_in(tmp_path) == []


def test_inside_a_context_that_ablates_nothing_is_baked(tiny, tmp_path):
    model = tiny("gpt2")
    refused = r"^model=random: zero\('L0'\) is in force here: leave its context, and bake these heads too"
    with harness.ablated(model, "L0"), pytest.raises(RequestError, match=refused):
        harness.bake(model, "L1H1", "zero", tmp_path / "baked")
    assert files_in(tmp_path) == []


def test_a_classifier_in_memory_is_sent_to_a_folder(tmp_path):
    whole, tokenizer, _ = random_models.build("bert_classifier", 0)
    with pytest.raises(RequestError, match="was hooked without its own head: save_pretrained it, and load that$"):
        harness.bake(harness.load_model(whole, tokenizer), "L0H1", "zero", tmp_path / "baked")


def test_every_projection_has_its_counterpart_in_the_plain_model(family):
    twin = plain.twin(family.spec.shape)
    for site, projection in zip(family.shape.sites, plain.projections(twin), strict=True):
        assert hooks.output_projection_of(twin, family.bridge, site) is projection
