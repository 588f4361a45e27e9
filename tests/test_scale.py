"""Scaling z by a factor: 0 is zero-ablation, 1 is nothing, others equal plain Hugging Face forwards."""

import numpy as np
import plain
import pytest
import torch

import harness
from harness.config import RequestError
from harness.findings import in_words
from harness.sweep import fast

pytestmark = pytest.mark.usefixtures("padded")

NAMES = ("loss", "kl")
TEXTS = ("When Mary and John went to the store", "a drink", "Then the garden, and a flower to the office")
SETS = {"early": ["L0H1", "L1"]}
KINDS = {
    "single": {},
    "layer": {"kind": "layer"},
    "mlp": {"kind": "mlp"},
    "set": {"kind": "set", "sets": SETS},
    "complement": {"kind": "complement", "sets": SETS},
    "cumulative": {"kind": "cumulative", "order": ["random", "greedy"], "n_random_orders": 2, "heads": ["L0", "L2H1"]},
    "pairs": {"kind": "pairs", "heads": ["L0H1", "L1H0", "L2H3"]},
}


def scale(factor):
    return {"name": "scale", "factor": factor}


def prompts_of(model):
    more = {"target": [" a garden", " a store to", " Mary"]} if model.kind == "encoder_decoder" else {}
    return harness.load_prompts("inline", model, text=TEXTS, **more)


def assert_same(got, want, atol=0.0):
    """Every number of two datasets."""
    assert set(got) == set(want)
    for name in got:
        if got[name].dtype.kind == "f":
            np.testing.assert_allclose(got[name].values, want[name].values, atol=atol, rtol=0, err_msg=name)


@pytest.mark.covering(1)
@pytest.mark.parametrize("shape", ["llama", "bert"])
@pytest.mark.parametrize("kind", KINDS)
def test_scale_by_0_is_zero_ablation_in_every_kind_of_sweep(tiny, shape, kind):
    model = tiny(shape)
    got, want = (
        harness.ablate_heads(model, prompts_of(model), ablation, NAMES, **KINDS[kind]).data
        for ablation in (scale(0), "zero")
    )
    assert_same(got, want)
    assert any(float(abs(want[name]).max()) > 1e-3 for name in want if str(name).endswith("effect"))


@pytest.mark.parametrize("where", ["last", "target", "each", [0, -1]])
def test_scale_by_0_is_zero_ablation_at_every_place(tiny, where):
    model = tiny("llama")
    prompts = harness.load_prompts("ioi", model, n=3)
    assert_same(
        *(harness.ablate_heads(model, prompts, each, NAMES, positions=where).data for each in (scale(0), "zero"))
    )


@pytest.mark.parametrize("shape", ["llama", "t5"])
@pytest.mark.parametrize("method", ["fast", "screen"])
def test_scale_by_0_is_zero_ablation_by_every_method(tiny, monkeypatch, shape, method):
    monkeypatch.setattr(fast, "speedup", lambda model: 9.0)
    model = tiny(shape)
    prompts = prompts_of(model)
    assert_same(*(harness.ablate_heads(model, prompts, each, NAMES, method=method).data for each in (scale(0), "zero")))


@pytest.mark.parametrize("kind", ["single", "layer", "mlp", "set", "pairs"])
def test_scale_by_1_changes_nothing(tiny, kind):
    model = tiny("gemma3")
    got = harness.ablate_heads(model, prompts_of(model), scale(1), NAMES, **KINDS[kind]).data
    changed = [got[name] for name in got if str(name).endswith("effect") and name != "null_effect"]
    assert changed
    assert all(float(abs(each).max()) == 0 for each in changed)


@pytest.mark.parametrize("factor", [-1, 0.5])
@pytest.mark.parametrize("where", ["all", [2]])
def test_scale_equals_a_loop_of_hooked_forwards(family, factor, where):
    prompts, heads = harness.load_prompts("ioi", family, n=3), family.heads()[1::3]
    got = harness.ablate_heads(family, prompts, scale(factor), NAMES, heads, positions=where).data
    twin, d_head = plain.twin(family.spec.shape, family.spec.seed), family.shape.d_head
    for row in range(3):
        token_id = torch.as_tensor(prompts.token_id[row, : prompts.length[row]])[None]
        clean = twin(token_id).logits[0].detach()
        for head in heads:

            def multiply(_, args, head=head):
                z = args[0].clone()
                z[:, slice(None) if where == "all" else where, head.head * d_head : (head.head + 1) * d_head] *= factor
                return (z,)

            handle = [*plain.projections(twin)][head.layer].register_forward_pre_hook(multiply)
            with torch.no_grad():
                want = plain.metrics(prompts, row, twin(token_id).logits[0], clean)
            handle.remove()
            mine = got.ablated.isel(prompt=row).sel(head.place).values
            np.testing.assert_allclose(mine, [want[name] for name in NAMES], atol=1e-4)
    assert float(abs(got.effect).max()) > 1e-3


def test_scale_screens_in_proportion_to_the_change_of_z(tiny):
    """At the clean run the derivative along z ↦ z + g (f − 1) z is (f − 1) times that by the factor."""
    model = tiny("gpt2")
    prompts = prompts_of(model)
    by_factor = {
        factor: harness.ablate_heads(
            model, prompts, scale(factor), ["loss"], method="screen", verify_top_k=1
        ).data.estimate
        for factor in (0.0, 0.5, 3.0)
    }
    for factor in (0.5, 3.0):
        np.testing.assert_allclose(by_factor[factor], (1 - factor) * by_factor[0.0], atol=1e-6)
    assert float(abs(by_factor[0.0]).max()) > 1e-3


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), "half"])
def test_scale_refuses_a_factor_that_is_no_finite_number(tiny, factor):
    model = tiny("gpt2")
    with pytest.raises(RequestError, match=rf"^ablation.factor={factor}: "):
        harness.ablate_heads(model, prompts_of(model), scale(factor), ["loss"])


def test_scale_from_the_command_line_names_its_factor(command):
    code, out, _ = command("ablate_heads", "model=random", "prompts.n=3", "ablation=scale", "ablation.factor=-0.25")
    assert code == 0
    run = harness.open_run(out.splitlines()[-1])
    assert run.spec["ablation"] == {"name": "scale", "positions": "all", "of": ["z"], "factor": -0.25}
    assert run.data.effect.attrs["baseline"] == "z is multiplied by -0.25"
    assert "ablated one at a time (z is multiplied by −0.25)" in in_words(run)
