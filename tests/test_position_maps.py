"""Patching maps: what a planted circuit makes of them, both directions, columns by position and by role."""

import dataclasses

import numpy as np
import plain
import pytest
import torch
from fakes import fake_run

import harness
from harness import ablation
from harness.config import RequestError
from harness.findings import position_maps
from harness.hooks import Head
from harness.metrics import choose
from harness.sweep import SweepStage, groups

KINDS = ["resid", "attn", "mlp"]


@pytest.fixture(scope="module")
def corrupted():
    """Four texts of repeated tokens to the planted model; the counterfactual has another token where the answer of the
    one scored prediction stands, and only there."""
    model = harness.load_model("planted")
    prompts = harness.load_prompts("induction", model, n=4, length=6)
    start = 1 if prompts.special[0, 0] else 0
    answer, scored = start + 3, start + 6 + 2
    correct, other = np.full_like(prompts.correct, -1), prompts.token_id.copy()
    correct[:, scored] = prompts.correct[:, scored]
    unused = [next(t for t in range(10, model.shape.d_vocab) if t not in row) for row in prompts.token_id]
    other[:, answer] = unused
    return model, dataclasses.replace(prompts, correct=correct, counterfactual=other), answer, scored


def maps_of(corrupted, into, metric="logit"):
    model, prompts, *_ = corrupted
    how = {"ablation": {"name": "patch", "into": into}, "metrics": [metric]}
    return harness.ablate_heads(model, prompts, kind=KINDS, positions="each", **how)


@pytest.mark.parametrize("into", ["clean", "corrupted"])
def test_the_map_of_a_planted_circuit_is_its_path(corrupted, into):
    """The answer's token holds the information until the induction head's layer, the scored position after it; one
    attention moves it, and all of it, whichever run is patched."""
    _, _, answer, scored = corrupted
    run = maps_of(corrupted, into)
    (induction,) = corrupted[0].truth["induction"]
    moved = 1 - run.normalised("logit") if into == "clean" else run.normalised("logit")
    want = np.zeros(moved.shape)
    want[: induction.layer + 1, answer] = 1
    want[induction.layer + 1 :, scored] = 1
    np.testing.assert_allclose(moved, want, atol=0.02)
    attn = run.normalised("logit", "attn_effect")
    attn = 1 - attn if into == "clean" else attn
    assert attn.sel(layer=induction.layer)[scored] == pytest.approx(1, abs=0.02)
    assert float(abs(attn).sum()) == pytest.approx(1, abs=0.05)


def test_a_patch_of_the_corrupted_run_is_that_of_swapped_texts(corrupted):
    """Clean activations in the corrupted run: a patch of prompts whose texts are exchanged, under the names of the
    texts that were read."""
    model, prompts, *_ = corrupted
    swapped = dataclasses.replace(prompts, token_id=prompts.counterfactual, counterfactual=prompts.token_id)
    got = maps_of(corrupted, "corrupted").data
    want = harness.ablate_heads(model, swapped, "patch", ["logit"], kind=KINDS, positions="each").data
    np.testing.assert_array_equal(got.resid_effect, want.resid_effect)
    np.testing.assert_array_equal(got.clean, want.corrupted)
    np.testing.assert_array_equal(got.corrupted, want.clean)
    assert got.resid_effect.attrs["into"] == "corrupted"


def test_heads_are_patched_into_the_corrupted_run_too(corrupted):
    model, prompts, *_ = corrupted
    (induction,) = model.truth["induction"]
    how = {"name": "patch", "into": "corrupted"}
    got = harness.ablate_heads(model, prompts, how, ["logit"], heads=[induction])
    assert float(got.normalised("logit", "effect").sel(induction.place)) == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(got.data.ablated - got.data.corrupted, got.data.effect)


def test_positions_before_the_first_other_token_are_not_run(corrupted):
    model, prompts, answer, _ = corrupted
    made, _ = ablation.build("patch", model, prompts)
    assert made.begins(prompts) == [answer] * len(prompts)
    same = dataclasses.replace(prompts, counterfactual=prompts.token_id)
    assert ablation.build("patch", model, same)[0].begins(same) == prompts.length.tolist()
    stage = SweepStage(
        model, prompts, groups(model, kind="resid"), choose(("logit",), prompts), made, "each", kind="resid"
    )
    plan = stage.plan()
    for unit in range(len(plan["batches"])):
        stage.compute(plan, unit)
    depths, turns = model.shape.n_layers + 1, int(prompts.length[0]) - answer
    checked = len(stage.check.spot_checks)
    assert stage.check.fired == len(plan["batches"]) * depths * turns
    assert checked == 2


def test_without_positions_each_depth_has_one_effect(corrupted):
    model, prompts, answer, _ = corrupted
    got = harness.ablate_heads(model, prompts, "patch", ["logit"], kind=["resid", "attn"], positions=[answer]).data
    each = maps_of(corrupted, "clean").data
    assert got.resid_effect.dims == ("metric", "prompt", "depth")
    np.testing.assert_allclose(got.resid_effect, each.resid_effect[..., answer], atol=1e-5)
    np.testing.assert_allclose(got.attn_effect, each.attn_effect[..., answer], atol=1e-5)


def test_the_attention_of_a_layer_is_all_of_its_heads(tiny):
    model = tiny("llama")
    prompts = harness.load_prompts("ioi", model, n=2)
    got = harness.ablate_heads(model, prompts, "mean", ["loss"], kind=["attn", "layer"]).data
    np.testing.assert_array_equal(got.attn_effect, got.layer_effect)


def test_every_replacement_of_the_stream_runs_and_one_by_itself_changes_nothing(tiny):
    model = tiny("gpt2")
    prompts = harness.load_prompts("ioi", model, n=4)
    for how in ("zero", "mean", "resample", {"name": "scale", "factor": 0.5}):
        got = harness.ablate_heads(model, prompts, how, ["loss"], kind="resid").data.resid_effect
        assert np.isfinite(got).all()
        assert (abs(got).max(["prompt", "metric"]) > 0).all()
    same = harness.ablate_heads(model, prompts, lambda z, part: z, ["loss"], kind="resid").data.resid_effect
    assert (same == 0).all()


def test_depths_of_some_layers_are_those_before_them(tiny):
    model = tiny("llama")
    prompts = harness.load_prompts("ioi", model, n=2)
    first = harness.ablate_heads(model, prompts, "zero", ["loss"], heads=["L0"], kind="resid").data.resid_effect
    last = harness.ablate_heads(model, prompts, "zero", ["loss"], heads=["L2"], kind="resid").data.resid_effect
    assert np.isfinite(first[0, 0]).values.tolist() == [True, False, False, False]
    assert np.isfinite(last[0, 0]).values.tolist() == [False, False, True, True]


# --- what is averaged -------------------------------------------------------------------------------------------


def with_map(run, **more):
    n, size = run.data.sizes["prompt"], run.data.sizes["position"]
    values = np.random.default_rng(0).normal(size=(2, n, 4, size))
    values[:, np.arange(size) >= run.data["length"].values[:, None, None].repeat(4, 1)] = np.nan
    only = run.data.drop_vars(["effect", "ablated"]).assign(
        resid_effect=(("metric", "prompt", "depth", "position"), values)
    )
    return dataclasses.replace(run, data=only.assign(more))


def test_prompts_of_other_lengths_are_averaged_by_role_and_scored_positions_stand_apart(tmp_path):
    run = fake_run(tmp_path, lengths=[3, 4], n_prompts=2)
    role = np.array([["other", "subject", "other", ""], ["subject", "other", "other", "other"]], dtype=object)
    target = np.array([[False, False, True, False], [False, False, False, True]])
    over = ("prompt", "position")
    run = with_map(run, token_role=(over, role), target=(over, target))
    (found,) = position_maps.position_maps(run, "loss")
    values = run.data["resid_effect"].sel(metric="loss").values
    assert found.columns == ["subject", "other", "scored"]
    np.testing.assert_allclose(found.values[0], np.stack([values[0, :, 1], values[0, :, 0], values[0, :, 2]], axis=1))
    others = values[1, :, 1:3].mean(axis=-1)
    np.testing.assert_allclose(found.values[1], np.stack([values[1, :, 0], others, values[1, :, 3]], axis=1))
    np.testing.assert_allclose(found.mean, found.values.mean(axis=0))


def test_prompts_of_other_lengths_without_roles_have_a_map_each(tmp_path):
    run = with_map(fake_run(tmp_path, lengths=[3, 4], n_prompts=2))
    assert position_maps.position_maps(run, "loss") == []
    (text,) = [finding.text for finding in position_maps.strongest_cells(run)]
    assert text.startswith("The maps of 2 prompts are not averaged: the prompts differ in length")
    (found,) = position_maps.maps_of_prompt(run, "loss", 0)
    np.testing.assert_array_equal(found.values[0], run.data["resid_effect"].sel(metric="loss").values[0, :, :3])


def test_only_a_patch_has_normalised_values(tmp_path):
    run = with_map(fake_run(tmp_path))
    with pytest.raises(RequestError, match="^variable=resid_effect: only a patch"):
        run.normalised("loss")
    assert position_maps.destination(run, "loss") is None


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_what_is_said_next_is_what_a_plain_forward_says(tiny, shape):
    """With the stream or an attention's output set to zero at one position; the run's own without."""
    model, twin = tiny(shape), plain.twin(shape)
    prompts = harness.load_prompts("ioi", model, n=3)
    got = harness.ablate_heads(model, prompts, "zero", ["loss"], kind=["resid", "attn"], positions="each").data
    blocks = twin.model.layers if shape == "llama" else twin.transformer.h
    changed = 0
    for row, length in enumerate(prompts.length):
        ids, at = torch.as_tensor(prompts.token_id[row, :length])[None], int(prompts.target[row].nonzero()[0][-1])
        clean = plain.logits(twin, ids[0])[at]
        assert got.next_token.values[row] == model.tokens.string(int(clean.argmax()))
        for position in (1, at):

            def put(_, args, position=position):
                stream = args[0].clone()
                stream[:, position] = 0
                return (stream, *args[1:])

            handle = blocks[1].register_forward_pre_hook(put)
            after = plain.logits(twin, ids[0])[at]
            handle.remove()
            said = str(got.resid_next_token.values[row, 1, position])
            assert said == model.tokens.string(int(after.argmax()))
            changed += said != got.next_token.values[row]
            heads = [Head(2, head) for head in range(model.shape.n_heads)]
            after = plain.logits(twin, ids[0], heads, model.shape.d_head, positions=[position])[at]
            assert got.attn_next_token.values[row, 2, position] == model.tokens.string(int(after.argmax()))
        assert (got.resid_next_token.values[row, :, length:] == "").all()
    assert changed


# --- refused ----------------------------------------------------------------------------------------------------


def test_maps_of_an_encoder_decoder_are_of_what_is_written(tiny):
    model = tiny("t5")
    prompts = harness.load_prompts("inline", model, text=["When Mary went"], target=["to the store"])
    with pytest.raises(RequestError, match="leave the encoder out: heads=\\[decoder,cross\\]"):
        harness.ablate_heads(model, prompts, "zero", kind=KINDS, positions="each")
    got = harness.ablate_heads(model, prompts, "zero", kind=KINDS, positions="each", heads=["decoder", "cross"]).data
    assert got.resid_effect.dims == ("metric", "prompt", "stack", "depth", "position")
    assert np.isfinite(got.attn_effect.sel(stack="cross", layer=[0, 1])).all()
    assert np.isnan(got.resid_effect.sel(stack=["encoder", "cross"])).all()


def test_a_patch_that_does_not_reach_the_block_is_an_error(tiny, monkeypatch):
    """A family whose block reads another tensor than the one that was put in."""
    model = tiny("llama")
    prompts = harness.load_prompts("ioi", model, n=1)
    inner = model.bridge.blocks[1].original_component
    handle = inner.register_forward_pre_hook(
        lambda _, args, named: (
            ((args[0] + 1, *args[1:]), named)
            if args
            else (args, {**named, "hidden_states": named["hidden_states"] + 1})
        ),
        with_kwargs=True,
        prepend=True,
    )
    try:
        with pytest.raises(ablation.InterventionFailed, match="L1.resid: the stream received a z that is off"):
            harness.ablate_heads(model, prompts, "zero", ["loss"], kind="resid", heads=["L1"])
    finally:
        handle.remove()


def test_heads_and_maps_in_one_run(tiny):
    model = tiny("llama")
    prompts = harness.load_prompts("ioi", model, n=2)
    got = harness.ablate_heads(model, prompts, "patch", ["logit_diff"], kind=["single", *KINDS], positions="each").data
    alone = harness.ablate_heads(model, prompts, "patch", ["logit_diff"], positions="each").data
    np.testing.assert_array_equal(got.position_effect, alone.position_effect)
    assert {"resid_effect", "attn_effect", "mlp_effect"} <= set(got)
    assert got.position_effect.sel(Head(0, 0).place).dims == ("metric", "prompt", "position")


def test_a_text_is_not_patched_as_if_it_were_the_corrupted_one(corrupted):
    model, prompts, *_ = corrupted
    how = {"name": "patch", "into": "corrupted", "positions": [3]}
    with (
        pytest.raises(RequestError, match="^ablation.into=corrupted: a text inside begins with the clean prompt"),
        harness.ablated(model, ["L0H0"], how, prompts=prompts, prompt=0),
    ):
        pass
