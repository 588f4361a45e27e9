"""The direct effect against sums written out with a plain Hugging Face model's own weights."""

import families
import numpy as np
import plain
import pytest
import torch
import xarray as xr

import harness
from harness import ablation
from harness.config import RequestError
from harness.metrics import METRICS
from harness.models import random as random_models
from harness.sweep import SweepStage, groups

pytestmark = pytest.mark.usefixtures("padded")

NAMES = ("loss", "logit_diff", "kl")


def scale(norm, x, centred):
    """What a norm divides a row by."""
    eps = getattr(norm, "eps", None) or getattr(norm, "variance_epsilon", None)
    x = x - x.mean(-1, keepdim=True) if centred else x
    return (x.square().mean(-1, keepdim=True) + eps).sqrt()


def weight(norm):
    """γ; Gemma keeps γ − 1."""
    return norm.weight + 1 if "Gemma" in type(norm).__name__ else norm.weight


def values_of(twin, layer, out, d_head):
    """Each head's values [head, key, d_head], in what the module that makes them gives."""
    n_heads, name = twin.config.num_attention_heads, type(twin).__name__
    if "GPT2" in name:  # queries, keys, values
        return out.chunk(3, dim=-1)[2].unflatten(-1, (n_heads, d_head)).transpose(0, 1)
    if "NeoX" in name:  # queries, keys and values of each head in turn
        return out.unflatten(-1, (n_heads, 3, d_head))[:, :, 2].transpose(0, 1)
    by_kv_head = out.unflatten(-1, (-1, d_head)).transpose(0, 1)
    return by_kv_head.repeat_interleave(n_heads // len(by_kv_head), dim=0)


@torch.no_grad()
def parts_by_key(twin, token_id, head, d_head):
    """What the logits at the last position lose with pattern × value of one key, for each key: [key, vocab]."""
    projection = list(plain.projections(twin))[head.layer]
    attention = next(module for module in twin.modules() if projection in module.children())
    names = ("c_attn", "query_key_value", "v_proj")
    values, seen = next(getattr(attention, name) for name in names if hasattr(attention, name)), {}
    handle = values.register_forward_hook(lambda _, args, out: seen.update(out=out[0]))
    pattern = twin(torch.as_tensor(token_id)[None], output_attentions=True).attentions[head.layer][0, head.head, -1]
    handle.remove()
    z = plain.z(twin, token_id, d_head)[head.layer, -1, head.head]
    value = values_of(twin, head.layer, seen["out"], d_head)[head.head]
    torch.testing.assert_close(pattern @ value, z, atol=1e-5, rtol=1e-4)
    clean = direct_logits(twin, token_id, head, d_head, z)
    return torch.stack(
        [
            direct_logits(twin, token_id, head, d_head, z - weight * v) - clean
            for weight, v in zip(pattern, value, strict=True)
        ]
    )


@torch.no_grad()
def direct_logits(twin, token_id, head, d_head, new=None):
    """Logits at the last position with the head's own write changed in the last residual stream, the norms frozen."""
    seen = {}
    base = twin.base_model
    final = getattr(base, "ln_f", None) or getattr(base, "final_layer_norm", None) or base.norm
    projection = list(plain.projections(twin))[head.layer]
    handles = [
        final.register_forward_pre_hook(lambda _, args: seen.update(end=args[0][0, -1].clone())),
        projection.register_forward_pre_hook(lambda _, args: seen.update(z=args[0][0, -1].clone())),
    ]
    twin(torch.as_tensor(token_id)[None])
    for handle in handles:
        handle.remove()
    mine = slice(head.head * d_head, (head.head + 1) * d_head)
    moved = torch.zeros_like(seen["z"])
    moved[mine] = (0 if new is None else new) - seen["z"][mine]
    matrix = projection.weight if "Conv1D" in type(projection).__name__ else projection.weight.T
    write = moved @ matrix
    layer = base.layers[head.layer] if hasattr(base, "layers") else None
    after = getattr(layer, "post_attention_layernorm", None) if "Gemma" in type(final).__name__ else None
    if after is not None:  # Gemma puts a norm between W_O and the stream
        write = write / scale(after, projection(seen["z"]), False) * weight(after)
    centred = "LayerNorm" in type(final).__name__
    stream = seen["end"] + write
    stream = stream - stream.mean() if centred else stream
    bias = final.bias if centred else 0
    return twin.get_output_embeddings()(stream / scale(final, seen["end"], centred) * weight(final) + bias)


@pytest.mark.parametrize("asked", ["zero", "patch"])
def test_direct_effects_are_the_heads_own_write_through_a_frozen_norm(family, asked):
    prompts = harness.load_prompts("ioi", family, n=3)
    twin = random_models.build(family.spec.shape, 0)[0].eval()
    got = harness.ablate_heads(family, prompts, asked, NAMES).data
    for row in range(3):
        token_id, n = prompts.token_id[row, : prompts.length[row]], prompts.length[row]
        before = plain.logits(twin, token_id)
        clean = plain.metrics(prompts, row, before, before)
        for head in family.heads()[::3]:
            new = None
            if asked == "patch":
                new = plain.z(twin, prompts.counterfactual[row, :n], family.shape.d_head)[head.layer, -1, head.head]
            after = before.clone()
            after[-1] = direct_logits(twin, token_id, head, family.shape.d_head, new)
            want = plain.metrics(prompts, row, after, before)
            mine = got.direct.isel(prompt=row).sel(head.place).values
            np.testing.assert_allclose(mine, [want[name] - clean[name] for name in NAMES], atol=1e-4)
    assert float(abs(got.direct).max()) > 0.01


def test_a_head_that_writes_nothing_new_has_no_direct_effect(family):
    prompts = harness.load_prompts("ioi", family, n=2)
    got = harness.ablate_heads(family, prompts, lambda z, head: z, NAMES).data
    assert float(abs(got.direct).max()) == 0


def test_an_ablation_before_the_scored_position_has_no_direct_effect(tiny):
    model = tiny("llama")
    prompts = harness.load_prompts("ioi", model, n=3)
    got = harness.ablate_heads(model, prompts, metrics=NAMES, positions=[0, 1]).data
    assert float(abs(got.direct).max()) == 0 < float(abs(got.effect).max())


def test_encoders_have_none_and_an_encoder_decoder_none_for_its_encoder(tiny):
    bert = tiny("bert")
    assert "direct" not in harness.ablate_heads(bert, harness.load_prompts("inline", bert, text=["a drink"])).data
    t5 = tiny("t5")
    got = harness.ablate_heads(t5, harness.load_prompts("inline", t5, text=["a drink to"], target=["John"])).data
    assert np.isnan(got.direct.sel(stack="encoder")).all()
    assert np.isfinite(got.direct.sel(stack=["decoder", "cross"]).isel(layer=slice(2))).all()


def test_the_null_is_as_large_an_edit_in_another_direction(tiny):
    model = tiny("llama")
    prompts = harness.load_prompts("ioi", model, n=4)
    made, _ = ablation.build("mean", model, prompts)
    plan, numbers, head = made.plan(), [2, 0], model.heads(["L1H2"])[0]
    z = torch.randn(2, int(prompts.length[numbers].max()), model.shape.d_head)
    own = made.prepare(plan, ablation.Share(numbers), [head.site], 0)(z, head).expand_as(z) - z
    null, share = ablation.MatchedNull(made, model, prompts, seed=1), ablation.Share(numbers)
    first, again, other = (null.prepare(plan, share, [head.site], draw)(z, head) - z for draw in (0, 0, 1))
    torch.testing.assert_close(first.norm(dim=-1), own.norm(dim=-1), rtol=1e-5, atol=1e-6)
    assert torch.equal(first, again)
    assert abs(float(torch.cosine_similarity(first.flatten(), other.flatten(), dim=0))) < 0.5
    alone = null.prepare(plan, ablation.Share([0]), [head.site], 0)(z[1:], head) - z[1:]
    torch.testing.assert_close(alone[:, :3], first[1:, :3])  # whatever else is in the batch


def test_distances_are_held_against_the_null_and_others_are_not(tiny):
    model = tiny()
    prompts = harness.load_prompts("ioi", model, n=5)
    got = harness.ablate_heads(model, prompts, metrics=["loss", "kl"]).data
    assert got.null_effect.dims[0] == "draw"
    assert np.isnan(got.null_effect.sel(metric="loss")).all()
    assert (got.null_effect.sel(metric="kl") > 0).all()
    stage = SweepStage(model, prompts, groups(model), (METRICS["loss"],))
    assert stage.plan()["null"] is None


# --- by source ----------------------------------------------------------------------------------------------------


def test_a_direct_effect_is_split_by_the_token_it_was_read_from(family):
    """Pattern × value of each key through W_O, the frozen norms and the unembedding, of a plain model."""
    prompts = harness.load_prompts("ioi", family, n=3)
    twin = plain.twin(family.spec.shape)
    got = harness.ablate_heads(family, prompts, metrics=["loss", "logit_diff", "logit"], source_direct=True).data
    assert got.source_direct.dims == ("metric", "prompt", "layer", "head", "key")
    for row, n in enumerate(prompts.length):
        answer, distractor = int(prompts.answer[row]), int(prompts.distractor[row])
        for head in family.heads()[::3]:
            parts = parts_by_key(twin, prompts.token_id[row, :n], head, family.shape.d_head)
            mine = got.source_direct.isel(prompt=row).sel(head.place)
            want = parts[:, answer] - parts[:, distractor]
            np.testing.assert_allclose(mine.sel(metric="logit_diff")[:n], want, atol=1e-4)
            np.testing.assert_allclose(mine.sel(metric="logit")[:n], parts[:, answer], atol=1e-4)
            assert (mine.sel(metric=["logit_diff", "logit"])[:, n:] == 0).all()
    assert got.source_direct.sel(metric="loss").isnull().all()
    whole = got.source_direct.sel(metric=["logit_diff", "logit"])
    np.testing.assert_allclose(whole.sum("key"), got.direct.sel(metric=["logit_diff", "logit"]), atol=1e-4)
    assert float(abs(whole).max()) > 0.01


def test_a_split_direct_effect_follows_heads_and_positions(tiny):
    model = tiny("llama")
    prompts = harness.load_prompts("induction", model, n=3, length=5)
    keys = {"metrics": "logit", "source_direct": True}
    got = harness.ablate_heads(model, prompts, heads=["L1H2"], positions=[-2, 0], **keys).data
    np.testing.assert_allclose(got.source_direct.sum("key", skipna=False), got.direct, atol=1e-4)
    assert int(got.source_direct.notnull().all(["metric", "prompt", "key"]).sum()) == 1
    everywhere = harness.ablate_heads(model, prompts, heads=["L1H2"], **keys).data
    share = abs(got.source_direct).sum() / abs(everywhere.source_direct).sum()
    assert 0.05 < float(share) < 0.7  # one of its four scored positions


def test_a_split_direct_effect_of_a_screen_is_that_of_the_measured_heads(tiny):
    model = tiny("gpt2")
    prompts = harness.load_prompts("ioi", model, n=3)
    keys = {"metrics": "logit_diff", "source_direct": True}
    exact = harness.ablate_heads(model, prompts, **keys).data
    screened = harness.ablate_heads(model, prompts, method="screen", verify_top_k=3, **keys).data
    known = screened.source_direct.notnull()
    assert int(screened.exact.sum()) == 3 == int(known.all(["metric", "prompt", "key"]).sum())
    xr.testing.assert_allclose(screened.source_direct, exact.source_direct.where(known), atol=1e-6)


def test_the_planted_induction_head_reads_its_direct_effect_after_the_earlier_copy():
    model = harness.load_model("planted")
    prompts = harness.load_prompts("induction", model, n=4)
    (head,) = model.truth["induction"]
    got = harness.ablate_heads(model, prompts, metrics="logit", heads=[head], source_direct=True).data
    by_key = got.source_direct.sel(metric="logit", **head.place)
    for row in range(4):
        half = (int(prompts.length[row]) - 1) // 2
        scored = np.flatnonzero(prompts.target[row])
        assert (prompts.token_id[row, scored + 1 - half] == prompts.correct[row, scored]).all()
        after = scored + 1 - half
        assert float(by_key[row, after].sum() / got.direct.sel(metric="logit", **head.place)[row]) > 0.99
        np.testing.assert_allclose(by_key[row, after], by_key[row, after].mean(), rtol=1e-3)  # one by one


@pytest.mark.parametrize(
    ("shape", "keys", "says"),
    [
        ("llama", {"ablation": "mean"}, "only zero-ablation takes away a sum over tokens, not mean"),
        (
            "llama",
            {"metrics": ["loss", "kl"]},
            "loss, kl: not linear in the logits; add logit_diff or logit to metrics",
        ),
        ("llama", {"positions": "each"}, "at each position in turn there is no direct effect to split; set all"),
        ("t5", {}, "it is for decoders, and random is of kind encoder_decoder; leave it out"),
        ("bert", {}, "it is for decoders, and random is of kind masked_lm; leave it out"),
    ],
)
def test_a_direct_effect_that_is_no_sum_over_tokens_is_refused(tiny, shape, keys, says):
    model = tiny(shape)
    target = {"target": ["John"]} if shape == "t5" else {}
    prompts = harness.load_prompts("inline", model, text=["a drink to"], **target)
    with pytest.raises(RequestError) as error:
        harness.ablate_heads(model, prompts, **{"metrics": ["logit"], "source_direct": True, **keys})
    assert str(error.value) == f"sweep.source_direct=true: {says}"


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"direct": False}, "sweep.direct=false: sweep.source_direct=true splits direct effects: set true"),
        ({"kind": "layer"}, "sweep.kind=layer: it does not read sweep.source_direct, so set sweep.kind=single"),
    ],
)
def test_keys_that_leave_no_direct_effect_to_split_are_refused(tiny, keys, says):
    model = tiny("llama")
    prompts = harness.load_prompts("ioi", model, n=1)
    with pytest.raises(RequestError) as error:
        harness.ablate_heads(model, prompts, metrics=["logit"], source_direct=True, **keys)
    assert str(error.value) == says


def test_with_a_soft_cap_a_direct_effect_is_split_before_it():
    whole, tokenizer = families.build("gemma2")
    whole.config.final_logit_softcapping = 1.0
    model = harness.load_model(whole, tokenizer)
    prompts = harness.load_prompts("ioi", model, n=2)
    request = {"metrics": ["logit_diff"], "heads": ["L0H1", "L1H2"], "source_direct": True, "account": True}
    got = harness.ablate_heads(model, prompts, **request).data
    whole = got.source_direct.sum("key", skipna=False)
    np.testing.assert_allclose(whole, got.account.sel(component="direct"), atol=1e-4)
    assert float(abs(whole - got.direct).max()) > 1e-3


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("bitnet", "in in memory a head's output is not its pattern times its values; leave it out"),
    ],
)
def test_families_whose_direct_effect_is_no_sum_are_refused(name, says):
    model = harness.load_model(*families.build(name))
    prompts = harness.load_prompts(["a drink to"], model, answer=" Mary", distractor=" John")
    with pytest.raises(RequestError, match=says):
        harness.ablate_heads(model, prompts, metrics=["logit"], source_direct=True)


def test_heads_that_are_ablated_at_the_moment_are_not_split(tiny):
    model = tiny("llama")
    prompts = harness.load_prompts("ioi", model, n=1)
    with harness.ablated(model, ["L0H1"]), pytest.raises(RequestError, match="heads of random are ablated here"):
        harness.ablate_heads(model, prompts, metrics=["logit"], source_direct=True)


@pytest.mark.smollm2
def test_the_split_direct_effects_of_smollm2_sum_to_the_whole(smollm2):
    prompts = harness.load_prompts("ioi", smollm2, n=4)
    heads = ["L23H3", "L29H0"]
    got = harness.ablate_heads(smollm2, prompts, metrics="logit_diff", heads=heads, source_direct=True).data
    np.testing.assert_allclose(got.source_direct.sum("key", skipna=False), got.direct, atol=1e-4)
    assert float(abs(got.direct.sel(layer=23, head=3).mean())) > 1
