"""Attention by torch's scaled-dot-product kernel: where it takes the place of a model's own code, and what it gives."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import harness
from harness import hooks
from harness.hooks.fused_attention import fused_attention
from harness.metrics import choose
from harness.models import Inputs
from harness.sweep import attention_kernel
from harness.sweep.attention_kernel import kernel_for, why_eager
from harness.sweep.interventions import groups
from harness.sweep.stage import SweepStage

TEXTS = ("When Mary and John went to the store, John gave a drink to", "Then Tom and Anna sat down")


@pytest.fixture
def long_enough(monkeypatch):
    """Let the kernel run on the short prompts of tests."""
    monkeypatch.setattr(attention_kernel, "MIN_TOKENS", 2)


@pytest.fixture(scope="module")
def llama():
    return harness.load_model("random", shape="llama")


def z_of(model, inputs):
    """z of every attention, as W_O receives it."""
    z = {}
    handles = [
        hooks.output_projection(model.bridge, site).register_forward_pre_hook(
            lambda _, args, site=site: z.__setitem__(site, args[0].clone())
        )
        for site in model.shape.sites
    ]
    with torch.no_grad():
        model.forward(inputs)
    for handle in handles:
        handle.remove()
    return z


def counted(monkeypatch):
    """The arguments of each call of the kernel."""
    calls, kernel = [], hooks.fused_attention.scaled_dot_product_attention

    def count(*args, **kwargs):
        calls.append(kwargs)
        return kernel(*args, **kwargs)

    monkeypatch.setattr(hooks.fused_attention, "scaled_dot_product_attention", count)
    return calls


@pytest.mark.parametrize("shape", ["gpt2", "llama", "t5", "bert"])
def test_z_by_the_kernel_is_that_of_the_models_own_code(shape, monkeypatch):
    """With padding on the right, in every stack; without padding the mask of a decoder is known to be causal."""
    model = harness.load_model("random", shape=shape)
    ids = torch.randint(1, model.shape.d_vocab, (2, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    source = {"source_id": ids, "source_mask": mask} if shape == "t5" else {}
    calls = counted(monkeypatch)
    for padded in (mask, torch.ones_like(mask)):
        inputs = Inputs(ids, padded, **source)
        own = z_of(model, inputs)
        with fused_attention(model.bridge, model.shape.sites) as fused:
            made = z_of(model, inputs)
        assert fused.by_kernel == set(model.shape.sites)
        assert not fused.own
        for site in model.shape.sites:
            here = (slice(None) if source else padded.bool(),)
            np.testing.assert_allclose(made[site][here], own[site][here], atol=1e-5)
        assert not any(torch.equal(made[site], own[site]) for site in model.shape.sites if site.layer)
        assert torch.equal(z_of(model, inputs)[model.shape.sites[-1]], own[model.shape.sites[-1]])  # own code again
    assert {call["is_causal"] for call in calls} == {shape in ("gpt2", "llama")}


def test_a_token_that_is_hidden_from_later_ones_is_no_padding(llama, monkeypatch):
    """Only padding that follows a text may be treated as causal: a hole in the mask is kept."""
    ids = torch.arange(1, 9)[None]
    mask = torch.ones_like(ids)
    mask[0, 3] = 0
    calls = counted(monkeypatch)
    inputs = Inputs(ids, mask)
    own = z_of(llama, inputs)
    with fused_attention(llama.bridge, llama.shape.sites):
        made = z_of(llama, inputs)
    for site in llama.shape.sites:
        np.testing.assert_allclose(made[site][mask.bool()], own[site][mask.bool()], atol=1e-5)
    assert not any(call["is_causal"] for call in calls)


def test_what_reads_or_edits_a_pattern_gets_it(llama):
    """A hook that reads gets the model's own pattern, and an edit, also in place, takes effect."""
    inputs = Inputs(torch.arange(1, 9)[None], torch.ones(1, 8, dtype=torch.long))
    site = llama.shape.sites[1]
    name, seen = hooks.hook_name("pattern", site), []

    def edit(pattern, hook):
        seen.append(pattern.clone())
        pattern[:, 2] = 0

    with torch.no_grad(), llama.bridge.hooks(fwd_hooks=[(name, edit)]):
        own = z_of(llama, inputs)
        with fused_attention(llama.bridge, llama.shape.sites) as fused:
            made = z_of(llama, inputs)
    assert fused.own.keys() == {site}
    assert fused.by_kernel == {*llama.shape.sites} - {site}
    np.testing.assert_allclose(seen[1], seen[0], atol=1e-6)
    np.testing.assert_allclose(seen[1].sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(made[site], own[site], atol=1e-5)
    assert not made[site].unflatten(2, (llama.shape.n_heads, -1))[:, :, 2].any()


def test_gradients_pass_through_the_models_own_code(llama):
    ids = torch.arange(1, 9)[None]
    with torch.enable_grad(), fused_attention(llama.bridge, llama.shape.sites) as fused:
        llama.forward(Inputs(ids, torch.ones_like(ids)))
    assert not fused.by_kernel


@pytest.mark.parametrize("ablation", ["zero", {"name": "zero", "positions": [5]}, "resample"])
def test_effects_by_the_kernel_are_those_of_the_models_own_code(llama, long_enough, monkeypatch, ablation):
    """Of padded prompts; late positions start from cached keys and values. Both ways agree with plain forwards."""
    prompts = harness.load_prompts("inline", llama, text=TEXTS)
    request = {"ablation": ablation, "metrics": ["loss"], "heads": ["L0H1", "L1H0"]}
    calls = counted(monkeypatch)
    own = harness.ablate_heads(llama, prompts, attention="eager", **request).data
    assert not calls
    made = harness.ablate_heads(llama, prompts, **request).data
    assert calls
    np.testing.assert_allclose(made.effect, own.effect, atol=1e-4)
    np.testing.assert_allclose(made.direct, own.direct, atol=1e-4)
    assert float(abs(own.effect).max()) > 1e-3


def test_completions_that_share_a_context_are_scored_by_the_kernel(llama, long_enough, monkeypatch):
    """The completions' queries follow keys of their context: their mask is no square, so not taken for causal."""
    items = [
        {"context": "When Mary and John went to the", "choices": ["store", "garden and a flower"], "answer": 1},
        {"context": "Then Mary gave a drink to the", "choices": ["office", "the John"], "answer": 0},
    ]
    prompts = harness.load_prompts("choices", llama, items=items)
    request = {"metrics": ["choice_margin"], "heads": ["L0H1", "L1H0"]}
    own = harness.ablate_heads(llama, prompts, attention="eager", **request).data
    calls = counted(monkeypatch)
    made = harness.ablate_heads(llama, prompts, **request).data
    assert {call["is_causal"] for call in calls} == {True, False}
    np.testing.assert_allclose(made.effect, own.effect, atol=1e-4)
    assert float(abs(own.effect).max()) > 1e-3


def test_the_plan_keeps_the_kernel(llama, monkeypatch):
    """Short prompts, other types and `eager` have the model's own code; a unit is computed by what its plan says."""
    prompts = harness.load_prompts("inline", llama, text=TEXTS)
    assert kernel_for(llama, prompts) == "eager"  # shorter than MIN_TOKENS
    monkeypatch.setattr(attention_kernel, "MIN_TOKENS", 2)
    assert kernel_for(llama, prompts) == "sdpa"
    assert "bfloat16" in why_eager(replace(llama, spec=replace(llama.spec, dtype="bfloat16")))
    monkeypatch.setattr(attention_kernel, "TOLERANCE", 0.0)
    assert "z differs by" in why_eager(llama)
    assert kernel_for(llama, prompts) == "eager"
    monkeypatch.undo()
    metrics = choose(["loss"], prompts)
    stage = SweepStage(llama, prompts, groups(llama, list(llama.heads("L0H1"))), metrics)
    plan, calls = stage.plan(), counted(monkeypatch)
    assert plan["attention"] == "eager"
    own = stage.compute(plan, 0)
    assert not calls
    made = stage.compute({**plan, "attention": "sdpa"}, 0)
    assert calls
    np.testing.assert_allclose(made["ablated"], own["ablated"], atol=1e-4)
    again = stage.compute({**plan, "attention": "sdpa"}, 0)
    np.testing.assert_array_equal(again["ablated"], made["ablated"])
