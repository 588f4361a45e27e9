"""A head's q, k, v or pattern replaced alone, against plain Hugging Face forwards; of decoder families see
test_families.py."""

import numpy as np
import pandas as pd
import plain
import pytest
import torch

import harness
from harness import ablation, config
from harness.config import RequestError
from harness.hooks import Head

INPUTS = ("q", "k", "v", "pattern")


def scaled(of, **keys):
    return {"name": "scale", "factor": 3, "of": of, **keys}


def by_hand(modules, columns, run, positions=slice(None), factor=3):
    """What `run` gives with some columns of what these modules give (or of W_O's input) multiplied."""

    def multiplied(tensor):
        changed = tensor.clone()
        changed[:, positions, columns] *= factor
        return changed

    if modules[0] == "input":
        handle = modules[1].register_forward_pre_hook(lambda _, args: (multiplied(args[0]), *args[1:]))
    else:
        handle = modules[1].register_forward_hook(lambda _, args, out: multiplied(out))
    try:
        with torch.no_grad():
            return run()
    finally:
        handle.remove()


def test_inputs_of_an_encoders_heads_are_those_of_its_projections(tiny):
    """BERT: three times a query, key or value; three times a pattern is three times z."""
    model, twin = tiny("bert_classifier"), plain.twin("bert_classifier")
    prompts = harness.load_prompts("inline", model, text=["John gave a drink", "the office"], answer=["neutral"] * 2)
    got = harness.ablate_heads(model, prompts, scaled([*INPUTS]), metrics=["label"], heads=["L0H1", "L2H3"]).data
    d, label = model.shape.d_head, int(prompts.answer[0].item())
    for row, length in enumerate(prompts.length):
        ids = torch.as_tensor(prompts.token_id[row, :length])[None]
        run = lambda: float(twin(ids).logits[0, label])  # noqa: B023, E731
        with torch.no_grad():
            clean = run()
        for layer, head in ((0, 1), (2, 3)):
            attention = twin.base_model.encoder.layer[layer].attention
            own = attention.self
            modules = {"q": own.query, "k": own.key, "v": own.value, "pattern": attention.output.dense}
            for of, module in modules.items():
                where = ("input" if of == "pattern" else "output", module)
                want = by_hand(where, slice(head * d, (head + 1) * d), run) - clean
                mine = got.activation_effect.sel(activation=of, layer=layer, head=head).values[0, row]
                assert mine == pytest.approx(want, abs=1e-5)
    assert abs(got.activation_effect).max(["metric", "prompt", "layer", "head"]).min() > 1e-3


def test_inputs_of_an_encoder_decoders_heads_are_those_of_its_projections(tiny):
    """T5, in each stack: cross attention's keys and values are the source's."""
    model, twin = tiny("t5"), plain.twin("t5")
    texts = {"text": ["a drink to the hotel and John", "the store"], "target": ["John", "a garden"]}
    prompts = harness.load_prompts("inline", model, **texts)
    heads = [Head(0, 1, "encoder"), Head(1, 2, "decoder"), Head(1, 3, "cross")]
    got = harness.ablate_heads(model, prompts, scaled([*INPUTS]), metrics=["loss"], heads=heads).data
    d = model.shape.d_head
    for row, length in enumerate(prompts.length):
        source = torch.as_tensor(prompts.source.token_id[row, : prompts.source.length[row]])[None]
        own = torch.as_tensor(prompts.token_id[row, :length])[None]
        at = prompts.target[row].nonzero()[0]
        right = torch.as_tensor(prompts.correct[row, at])

        def run(source=source, own=own, at=at, right=right):
            logits = twin(input_ids=source, decoder_input_ids=own).logits[0, at]
            return float(-logits.double().log_softmax(-1).gather(1, right[:, None]).mean())

        with torch.no_grad():
            clean = run()
        for layer, head, stack in heads:
            sub = (twin.encoder if stack == "encoder" else twin.decoder).block[layer].layer[stack == "cross"]
            module = sub.EncDecAttention if stack == "cross" else sub.SelfAttention
            for of in INPUTS:
                where = ("input", module.o) if of == "pattern" else ("output", getattr(module, of))
                want = by_hand(where, slice(head * d, (head + 1) * d), run) - clean
                place = {"activation": of, "stack": stack, "layer": layer, "head": head}
                assert got.activation_effect.sel(place).values[0, row] == pytest.approx(want, abs=1e-5), place
    assert abs(got.activation_effect).max(["metric", "prompt", "layer", "head", "stack"]).min() > 1e-4
    with pytest.raises(RequestError, match=r"ablation.positions=last: cross .*; set heads=\[decoder\], or leave k and"):
        harness.ablate_heads(model, prompts, scaled(["k"], positions="last"), heads=["cross"])


def test_a_mean_pattern_mixes_the_heads_own_values(tiny):
    """Of grouped heads: the mean of the plain model's patterns over prompts of one length, times each prompt's v."""
    model, twin = tiny("llama"), plain.twin("llama")
    prompts = harness.load_prompts("induction", model, n=3, length=5)
    head = Head(1, 2)
    got = harness.ablate_heads(model, prompts, {"name": "mean", "of": "pattern"}, metrics=["loss"], heads=[head]).data
    values, weights = [], []
    module = twin.model.layers[1].self_attn.v_proj
    handle = module.register_forward_hook(lambda _, args, out: values.append(out[0]))
    with torch.no_grad():
        for row in prompts.token_id:
            out = twin(torch.as_tensor(row)[None], output_attentions=True)
            weights.append(out.attentions[1][0, head.head])
    handle.remove()
    d, group = model.shape.d_head, model.shape.n_heads // model.shape.n_kv_heads
    mine = slice(head.head // group * d, (head.head // group + 1) * d)
    assert group > 1
    for row, own in enumerate(values):
        new = torch.zeros(2, own.shape[0], model.shape.n_heads, d)
        new[1, :, head.head] = torch.stack(weights).mean(0) @ own[:, mine]
        ids = prompts.token_id[row]
        clean, after = plain.logits_each(twin, ids, [((), None, None), ((head,), new, None)], d)
        want = [plain.metrics(prompts, row, logits, clean)["loss"] for logits in (clean, after)]
        mine_is = float(got.activation_effect.sel(layer=1, head=2).squeeze()[row])
        assert mine_is == pytest.approx(want[1] - want[0], abs=1e-5)
        assert abs(mine_is) > 1e-5


def test_without_a_pattern_or_values_a_head_writes_what_it_writes_without_z(tiny):
    """Zero: a pattern or value of zeros is z of zeros; a query or key of zeros attends uniformly, the same for both."""
    model = tiny("llama")
    prompts = harness.load_prompts("ioi", model, n=3)
    got = harness.ablate_heads(model, prompts, {"name": "zero", "of": ["z", *INPUTS]}, metrics=["logit_diff"])
    effect = got.data.activation_effect
    for of in ("v", "pattern"):
        np.testing.assert_allclose(effect.sel(activation=of), got.data.effect, atol=1e-5)
    np.testing.assert_allclose(effect.sel(activation="q"), effect.sel(activation="k"), atol=1e-5)
    assert abs(effect.sel(activation="q") - got.data.effect).max() > 1e-3
    assert list(got.data.activation.values) == list(INPUTS)
    assert effect.attrs["edits_verified"] > 0
    table = got.activations
    assert len(table) == 4 * 12
    for row in table.to_dict("records"):
        place = {"layer": row["layer"], "head": row["head"], "metric": "logit_diff"}
        mine = effect.sel(activation=row["activation"]).sel(place)
        assert row["effect_mean"] == pytest.approx(float(mine.mean()))
        assert row["z_effect_mean"] == pytest.approx(float(got.data.effect.sel(place).mean()))
    pd.testing.assert_frame_equal(got.table("activation_effect"), table)


def test_a_run_without_z_has_the_metrics_of_both_texts(tiny):
    """The key alone, patched from either text into the other: as beside z."""
    model = tiny("llama")
    prompts = harness.load_prompts("ioi", model, n=3)
    for into in ("clean", "corrupted"):
        asked, how = {"name": "patch", "into": into}, {"metrics": ["logit_diff"], "heads": ["L0H1"]}
        alone = harness.ablate_heads(model, prompts, {**asked, "of": "k"}, **how).data
        beside = harness.ablate_heads(model, prompts, {**asked, "of": ["k", "z", "k"]}, **how).data
        assert "effect" not in alone
        for name in ("clean", "corrupted", "activation_effect"):
            np.testing.assert_array_equal(alone[name], beside[name])
        assert abs(alone.activation_effect.sel(layer=0, head=1)).max() > 1e-4


def test_a_model_whose_z_does_not_follow_its_keys_is_refused(tiny, monkeypatch):
    """A hook point whose edits have no effect, as T5's and BERT's patterns have."""
    model = tiny("llama")
    prompts = harness.load_prompts("ioi", model, n=1)
    kept = ablation.head_inputs.capture
    monkeypatch.setattr(ablation.head_inputs, "z_with", lambda *args: kept(model, args[1], args[3]))
    with pytest.raises(RequestError, match="ablation.of=k: in L0 of random z does not follow edited queries, keys and"):
        harness.ablate_heads(model, prompts, {"name": "zero", "of": "k"})


UNEQUAL = {"text": ["John gave a drink", "the office"]}


@pytest.mark.parametrize(
    ("asked", "keys", "line"),
    [
        ("zero", {"kind": ["single", "layer"]}, "ablation.of=z,k: sweep.kind=layer replaces z; set z, or sweep.kind"),
        ("zero", {"method": "screen"}, "ablation.of=z,k: sweep.method=screen estimates z alone; set z, or"),
        ("zero", {"positions": "each"}, "ablation.positions=each: at each position in turn only z"),
        ("mean", {"of": ["pattern"]}, "ablation.of=pattern: a mean pattern is by position, of prompts of one length"),
        ("resample", {"of": ["pattern"]}, "ablation.of=pattern: some prompts have no donor of their own length"),
        ("zero", {"of": ["k"], "account": True}, "ablation.of=k: sweep.account is of z; add z"),
        ("zero", {"of": ["w"]}, "ablation.of.0=w: known: z, q, k, v, pattern"),
        ("zero", {"of": []}, "ablation.of"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(tiny, asked, keys, line):
    model = tiny("llama")
    prompts = harness.load_prompts("inline", model, **UNEQUAL)
    made = {"name": asked, "of": keys.pop("of", ["z", "k"])}
    with pytest.raises(RequestError) as refused:
        harness.ablate_heads(model, prompts, made, metrics=["loss"], **keys)
    assert str(refused.value).startswith(line), refused.value
    assert "\n" not in str(refused.value)


def test_what_replaces_z_alone_refuses_other_activations(tiny, tmp_path):
    model = tiny("llama")
    of_keys = config.parse(config.AblationSpec, {"name": "zero", "of": ["k"]}, "ablation.")
    with pytest.raises(RequestError, match="^ablation.of=k: only a sweep of single heads"):
        ablation.build(of_keys, model, harness.load_prompts("ioi", model, n=1))
    with pytest.raises(RequestError, match="^ablation.of=k: .*, and hold z alone; use z"):
        harness.bake(model, ["L0H1"], of_keys, tmp_path / "baked")
