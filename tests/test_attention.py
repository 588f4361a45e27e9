"""Cached patterns and activations against plain Hugging Face, and against each other."""

import numpy as np
import plain
import pytest
import torch

import harness
from harness.attention.capture import activations
from harness.attention.scores import masked_to_infinity
from harness.config import RequestError
from harness.models import random as random_models

TEXTS = ("When Mary and John went to the store", "a drink", "Then the garden, and a flower to the office")
TARGETS = ("the office to John", "a store", "John")
ALSO = ("z", "q", "k", "v", "scores", "resid")
SHAPES = ("gpt2", "neox", "llama", "mistral", "qwen3", "gemma3", "bert", "bert_classifier", "t5")


@pytest.fixture(params=SHAPES)
def model(request, tiny):
    return tiny(request.param)


def prompts_of(model):
    given = {"target": TARGETS} if model.kind == "encoder_decoder" else {}
    return harness.load_prompts("inline", model, text=TEXTS, **given)


def stacks(model):
    """Of each stack: the start of its variables' names, its layers, and the lengths of its queries and keys."""
    prompts = prompts_of(model)
    if prompts.source is None:
        return [("", model.shape.n_layers, prompts.length, prompts.length)]
    own, source = prompts.length, prompts.source.length
    return [
        ("", model.shape.n_layers, own, own),
        ("cross_", model.shape.n_layers, own, source),
        ("encoder_", model.shape.n_encoder_layers, source, source),
    ]


def by_plain_forward(model, prompts, row):
    """Patterns by stack and residual streams, from one plain forward of one prompt."""
    twin = random_models.build(model.spec.shape, model.spec.seed)[0].eval()
    token_id = torch.as_tensor(prompts.token_id[row, : prompts.length[row]])[None]
    asked = {"output_attentions": True, "output_hidden_states": True}
    with torch.no_grad():
        if prompts.source is None:
            out = twin(token_id, **asked)
            return {"": out.attentions}, {"": out.hidden_states}
        source = torch.as_tensor(prompts.source.token_id[row, : prompts.source.length[row]])[None]
        out = twin(source, decoder_input_ids=token_id, **asked)
    patterns = {"": out.decoder_attentions, "cross_": out.cross_attentions, "encoder_": out.encoder_attentions}
    return patterns, {"": out.decoder_hidden_states, "encoder_": out.encoder_hidden_states}


def test_patterns_and_streams_equal_plain_hugging_face_padded_and_not(model):
    prompts = prompts_of(model)
    got = harness.cache_attention(model, prompts, also=["resid"]).data
    for row in range(len(prompts)):
        patterns, streams = by_plain_forward(model, prompts, row)
        for stack, n_layers, queries, keys in stacks(model):
            want = np.stack([one[0].numpy() for one in patterns[stack]])
            mine = got[f"{stack}pattern"].values[row, :n_layers, :, : queries[row], : keys[row]]
            np.testing.assert_allclose(mine, want, atol=1e-5)
            if stack in streams:  # Hugging Face gives the last one after the final norm
                want = np.stack([one[0].numpy() for one in streams[stack]])[:-1]
                mine = got[f"{stack}resid"].values[row, :n_layers, : queries[row]]
                np.testing.assert_allclose(mine, want, rtol=1e-5, atol=1e-4)


def test_scores_make_the_pattern_and_the_pattern_with_v_makes_z(model):
    got, shared = harness.cache_attention(model, prompts_of(model), also=ALSO).data, model.shape
    for stack, n_layers, queries, keys in stacks(model):
        for row in range(3):
            end, last = queries[row], keys[row]
            arrays = {kind: got[f"{stack}{kind}"].values[row, :n_layers] for kind in ("pattern", "z", "v", "scores")}
            scores, pattern = (arrays[kind][..., :end, :last] for kind in ("scores", "pattern"))
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            np.testing.assert_allclose(weights / weights.sum(-1, keepdims=True), pattern, atol=1e-5)
            v = arrays["v"][..., :last, :].repeat(shared.n_heads // shared.n_kv_heads, axis=1)
            np.testing.assert_allclose(pattern @ v, arrays["z"][..., :end, :], atol=1e-5)


def test_z_is_what_the_output_projection_reads(tiny):
    for model in map(tiny, ("gpt2", "llama", "bert")):
        prompts = prompts_of(model)
        twin = random_models.build(model.spec.shape, 0)[0].eval()
        got = harness.cache_attention(model, prompts, also=["z"]).data.z
        for row in range(3):
            end = prompts.length[row]
            want = plain.z(twin, prompts.token_id[row, :end], model.shape.d_head).transpose(1, 2)
            np.testing.assert_allclose(got.values[row, :, :, :end], want.numpy(), atol=1e-5)


def test_padding_is_zero_in_patterns_and_empty_elsewhere(model):
    got = harness.cache_attention(model, prompts_of(model), also=ALSO).data
    for stack, n_layers, queries, keys in stacks(model):
        row, end, last = 1, queries[1], keys[1]
        pattern = got[f"{stack}pattern"].values[row, :n_layers]
        assert not pattern[..., end:, :].any()
        assert not pattern[..., last:].any()
        assert np.isnan(got[f"{stack}z"].values[row, :n_layers, :, end:]).all()
        assert np.isnan(got[f"{stack}v"].values[row, :n_layers, :, last:]).all()
        assert np.isnan(got[f"{stack}scores"].values[row, :n_layers, :, :end, last:]).all()
        assert np.isnan(got[f"{stack}pattern"].values[row, n_layers:]).all()


def test_what_is_not_chosen_is_empty_and_the_rest_the_same(tiny):
    model = tiny("llama")  # two heads share a key and a value
    prompts = prompts_of(model)
    whole = harness.cache_attention(model, prompts, also=ALSO).data
    some = harness.cache_attention(model, prompts, also=ALSO, heads=["L0H3", "L2"]).data
    assert some.pattern.identical(whole.pattern)
    chosen = {"z": [[3], [], [0, 1, 2, 3]], "k": [[1], [], [0, 1]]}
    for kind, by_layer in chosen.items():
        for layer, heads in enumerate(by_layer):
            others = [head for head in range(whole[kind].shape[2]) if head not in heads]
            mine, all_of_them = some[kind].values[:, layer], whole[kind].values[:, layer]
            np.testing.assert_array_equal(mine[:, heads], all_of_them[:, heads])
            assert np.isnan(mine[:, others]).all()
    np.testing.assert_array_equal(some.resid.values[:, [0, 2]], whole.resid.values[:, [0, 2]])
    assert np.isnan(some.resid.values[:, [1, 3]]).all()


@pytest.mark.parametrize(("head", "kept"), [(0, 0), (1, 0), (2, 1), (3, 1)])
def test_activations_keep_the_key_and_value_head_that_a_head_shares(tiny, head, kept):
    """Heads 0 and 1 share the first, 2 and 3 the second: head modulo 2 would be the other one for heads 1 and 2."""
    model = tiny("llama")
    found = harness.cache_attention(model, prompts_of(model), also=["k", "v"], heads=[f"L1H{head}"]).data
    for kind in ("k", "v"):
        there = np.isfinite(found[kind].values[0, 1, :, 0]).all(axis=-1)
        assert np.flatnonzero(there).tolist() == [kept]


def test_half_precision_is_the_same_to_its_own_rounding(tiny):
    model = tiny("gpt2")
    whole, half = (
        harness.cache_attention(model, prompts_of(model), kind, also=["z"]).data for kind in ("float32", "float16")
    )
    assert half.z.dtype == half.pattern.dtype == np.float16
    np.testing.assert_allclose(half.z.values, whole.z.values, rtol=2e-3, atol=1e-4)


def test_masked_scores_are_infinite_where_half_precision_is_made_float32_before_the_softmax():
    """As GPT-J's are, and Falcon's beside, which divides the mask by √d_head too."""
    smallest = torch.finfo(torch.float16).min
    raw = torch.tensor([-300.0, smallest, smallest / 2, smallest / 128**0.5, 0.0])[None, None, None]
    got = masked_to_infinity(raw, 4, torch.float16)[0, 0, 0]
    assert got.tolist() == [-300.0, -torch.inf, -torch.inf, -torch.inf]


def test_a_hook_point_that_does_not_fire_is_an_error(tiny, monkeypatch):
    model = tiny("gpt2")
    monkeypatch.setattr(type(model), "forward", lambda self, given: None)
    with pytest.raises(RuntimeError, match="of random did not fire"):
        activations(model, prompts_of(model))


def test_heads_that_are_not_there_are_refused(tiny):
    with pytest.raises(RequestError, match="L9H0 is outside random"):
        harness.cache_attention(tiny(), prompts_of(tiny()), also=["z"], heads=["L9H0"])
