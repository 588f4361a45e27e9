"""The direct effect against sums written out with a plain Hugging Face model's own weights."""

import numpy as np
import plain
import pytest
import torch

import harness
from harness import ablation
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
