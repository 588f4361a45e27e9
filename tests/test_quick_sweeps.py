"""Quick looks at all heads, and what is measured again: gradients against finite differences and integrals, fast
sweeps against exact ones."""

import json

import numpy as np
import pandas as pd
import plain
import pytest
import torch
import xarray as xr
from thinned import most, seeds

import harness
from harness import ablation, hooks
from harness.attribution.context.stage import TraceStage
from harness.config import RequestError, TraceSpec
from harness.hooks import Head
from harness.metrics import choose
from harness.models import random as random_models
from harness.prompts import Prompts
from harness.sweep import SweepStage, engine, fast, groups, memory, precision
from harness.sweep.attribution_patching import CHECKED, ScreenStage
from harness.sweep.precision import bfloat16_products, speedup
from harness.sweep.verify import _errors

pytestmark = pytest.mark.usefixtures("padded")

TEXTS = ("When Mary and John went to the store", "a drink", "Then the garden, and a flower to the office")


def screened(model, prompts, metrics, steps=1, asked="zero", memory=None):
    """The dataset of a screen alone."""
    made, where = ablation.build(asked, model, prompts)
    sweep = SweepStage(model, prompts, groups(model), choose(metrics, prompts), made, where, memory=memory)
    stage = ScreenStage(sweep, steps)
    plan = stage.plan()
    return stage.assemble(plan, [stage.compute(plan, unit) for unit in range(len(plan["batches"]))])


@pytest.fixture
def always_pays(monkeypatch):
    """bf16 on a machine where it pays."""
    monkeypatch.setattr(fast, "speedup", lambda model: 9.0)


# --- estimates --------------------------------------------------------------------------------------------------


@pytest.mark.covering(1)
@pytest.mark.parametrize("positions", ["all", "last"])
def test_an_estimate_is_the_derivative_by_finite_differences(family, positions):
    """Of a plain Hugging Face model in double precision, the head's z scaled by 1 ± ε."""
    prompts, step = harness.load_prompts("ioi", family, n=3), 1e-3
    names = ("loss", "logit_diff", "prob")
    got = screened(family, prompts, names, asked={"name": "zero", "positions": positions}).estimate
    twin = random_models.build(family.spec.shape, family.spec.seed)[0].eval().double()
    for row in range(3):
        token_id = prompts.token_id[row, : prompts.length[row]]
        z, before = plain.z(twin, token_id, family.shape.d_head), plain.logits(twin, token_id)
        places = None if positions == "all" else [len(token_id) - 1]
        for head in family.heads()[::3]:
            edits = [([head], scale * z, places) for scale in (1 - step, 1 + step)]
            after = plain.logits_each(twin, token_id, edits, family.shape.d_head)
            ends = [plain.metrics(prompts, row, each, before) for each in after]
            want = [(ends[0][name] - ends[1][name]) / (2 * step) for name in names]
            found = got.isel(prompt=row).sel(layer=head.layer, head=head.head).values
            np.testing.assert_allclose(found, want, atol=5e-4, rtol=2e-3)


@pytest.mark.covering(1)
@pytest.mark.parametrize("shape", most(["bert", "llama", "t5", "gpt2", "bert_classifier"], 1))
@pytest.mark.parametrize("asked", most(["zero", "mean"], 1))
def test_estimates_along_the_way_add_up_to_what_all_heads_do(tiny, shape, asked):
    """The sum over the points is off the integral by about as much as there are fewer points; twice as many, and the
    rest is taken away (Richardson)."""
    model = tiny(shape)
    given = {"target": [" a garden and a store"] * 3} if shape == "t5" else {}
    prompts = harness.load_prompts("inline", model, text=TEXTS, **given)
    some, more = (screened(model, prompts, ("loss",), steps=steps, asked=asked) for steps in (40, 80))
    clean = harness.ablate_heads(model, prompts, metrics=["loss"], heads=[str(model.heads()[0])]).data.clean
    together = (some.all_ablated - clean).values[0]
    assert np.abs(together).max() > 0.02
    heads = set(some.estimate.dims) - {"metric", "prompt"}
    added = (2 * more.estimate - some.estimate).sum(heads).values[0]
    np.testing.assert_allclose(added, together, atol=0.05 * np.abs(together).max())


def test_a_screen_runs_all_prompts_once_and_a_few_with_all_heads_ablated(tiny):
    """One forward for the estimates of prompts of any length, one for the check; each prompt's estimate is its own."""
    model = tiny("llama")
    prompts = harness.load_prompts("ioi", model, n=CHECKED + 4)
    assert len(set(prompts.length)) > 1
    shapes, blocks = [], hooks.blocks(model.bridge)
    handle = blocks[0].register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape[:2]))
    try:
        found = screened(model, prompts, ("loss",))
    finally:
        handle.remove()
    assert [rows for rows, width in shapes if width > 1] == [len(prompts), CHECKED], "of width 1 are calls of the head"
    assert int(found.all_ablated.notnull().sum()) == CHECKED
    alone = screened(model, prompts.take([len(prompts) - 1]), ("loss",))
    np.testing.assert_allclose(found.estimate.values[:, -1:], alone.estimate.values, atol=1e-6)


def test_rows_that_do_not_fit_go_one_after_another(tiny):
    prompts = harness.load_prompts("ioi", tiny("llama"), n=5)
    whole, cut = (screened(tiny("llama"), prompts, ("loss",), memory=memory) for memory in (None, 1e-5))
    np.testing.assert_allclose(cut.estimate.values, whole.estimate.values, atol=1e-5)


@pytest.mark.parametrize("seed", seeds(20, first=3))
def test_a_screen_finds_what_is_planted_and_says_where_it_is_blind(seed):
    for variant in ("soft", "sharp"):
        model = harness.load_model("planted", seed=seed, variant=variant)
        prompts = harness.load_prompts("induction", model, n=4, seed=seed)
        effects = harness.ablate_heads(model, prompts, metrics=["loss"], method="screen", verify_top_k=2).data
        said = json.loads(effects.effect.attrs["screen"])["loss"]
        assert said["blind"] == (variant == "sharp")
        if variant == "soft":
            found = {Head(*map(int, place)) for place in np.argwhere(effects.exact.values)}
            assert found == {head for heads in model.truth.values() for head in heads}


def test_what_was_not_measured_stays_an_estimate(tiny):
    model = tiny("llama")
    prompts = harness.load_prompts("ioi", model, n=4)
    names = ["loss", "logit_diff"]
    got = harness.ablate_heads(model, prompts, metrics=names, method="screen", verify_top_k=3).data
    exact = harness.ablate_heads(model, prompts, metrics=names).data
    assert int(got.exact.sum()) == 3
    np.testing.assert_allclose(got.effect.values, exact.effect.where(got.exact).values, atol=1e-5)
    assert got.estimate.notnull().all()
    means = got.estimate.mean("prompt")
    strongest = {tuple(np.unravel_index(abs(means.sel(metric=name).values).argmax(), (2, 4))) for name in names}
    assert all(got.exact.values[place] for place in strongest)


# --- bf16 -------------------------------------------------------------------------------------------------------


def test_a_fast_sweep_says_how_far_it_is_off(family, always_pays):
    prompts = harness.load_prompts("ioi", family, n=4)
    names = ["loss", "logit_diff", "kl"]
    got = harness.ablate_heads(family, prompts, metrics=names, method="fast", verify_top_k=1, verify_fraction=0.1).data
    exact = harness.ablate_heads(family, prompts, metrics=names).data
    known = got.exact.values
    assert known.sum() in (8, 9) if known.size > 8 else known.all()
    np.testing.assert_allclose(got.effect.values[..., known], exact.effect.values[..., known], atol=1e-5)
    assert 0 < np.abs((got.fast_effect - exact.effect).values).max() < 0.2
    np.testing.assert_allclose(got.clean.values, exact.clean.values, atol=1e-6)
    np.testing.assert_allclose((got.ablated - got.clean).values, got.effect.values, atol=1e-6)
    said = json.loads(got.effect.attrs["errors"])
    off = (got.fast_effect - exact.effect).mean("prompt").values[:, known]
    for number, name in enumerate(names):
        assert said[name]["largest"] <= np.abs(off[number]).max() + 1e-6
        assert said[name]["share_within"] == pytest.approx(0.05 ** (1 / int(got.effect.attrs["sampled"])))
        if int(got.effect.attrs["sampled"]) == known.sum():
            assert said[name]["rms"] == pytest.approx(np.sqrt((off[number] ** 2).mean()), rel=1e-2, abs=1e-6)


def test_the_stated_error_of_a_fast_sweep_holds_in_19_of_20_samples(tiny, always_pays):
    """Which heads are sampled goes by the seed; the truth is measured for all of them."""
    model = tiny("gpt2")
    prompts = harness.load_prompts("ioi", model, n=6)
    whole = harness.ablate_heads(model, prompts, metrics=["logit_diff"], method="fast", verify_fraction=1.0).data
    exact, fast = (whole[name].mean("prompt").values.ravel() for name in ("effect", "fast_effect"))
    off, held, within = np.abs(fast - exact), 0, 0
    for seed in range(20):
        sampled = np.isin(np.arange(len(off)), np.random.default_rng(seed).permutation(len(off))[:8])
        axes = {"metric": ["logit_diff"], "prompt": [0], "layer": np.arange(3), "head": np.arange(4)}
        effect = lambda values: xr.DataArray(values.reshape(1, 1, 3, 4), axes, axes)  # noqa: B023, E731
        done = xr.Dataset({"exact_effect": effect(exact), "fast_effect": effect(fast)})
        done["sampled"] = effect(sampled).isel(metric=0, prompt=0, drop=True)
        said = json.loads(_errors(done, done["sampled"])["errors"])["logit_diff"]
        held += np.sqrt((off**2).mean()) <= said["rms_high"]
        within += (off <= said["largest"]).mean() >= said["share_within"]
        assert said["rms"] <= said["rms_high"] < 2 * said["rms"]
    assert held >= 19
    assert within >= 19


@pytest.mark.parametrize("shape", ["gpt2", "llama", "bert", "t5"])
def test_products_are_in_bf16_only_while_they_are_asked_for(tiny, shape):
    model = tiny(shape)
    given = {"target": [" a garden"]} if shape == "t5" else {}
    rows, _ = ablation.model_rows(model, harness.load_prompts("inline", model, text=TEXTS[:1], **given))
    inputs = rows.inputs("cpu")
    with torch.no_grad():
        before = model.forward(inputs)
        with bfloat16_products(model):
            during = model.forward(inputs)
        after = model.forward(inputs)
    assert torch.equal(before, after)
    assert 1e-4 < (before - during).abs().max() < 0.2
    assert not any(
        "forward" in vars(module)
        for module in hooks.plain_model(model.bridge).modules()
        if "Linear" in type(module).__name__
    )


def test_where_bf16_does_not_pay_all_is_exact_and_says_so(tiny, monkeypatch):
    monkeypatch.setattr(fast, "speedup", lambda model: 0.8)
    prompts = harness.load_prompts("ioi", tiny(), n=3)
    got = harness.ablate_heads(tiny(), prompts, metrics=["loss"], method="fast").data
    assert got.effect.attrs["method"] == "exact"
    assert got.effect.attrs["remark"] == "bf16 products are only 0.8 times as fast here, so all is exact"
    np.testing.assert_array_equal(got.effect, harness.ablate_heads(tiny(), prompts, metrics=["loss"]).data.effect)


def test_the_speedup_of_bf16_is_that_of_the_best_tries(tiny, monkeypatch):
    seconds = iter([4.0, 1.0, 3.0, 2.0, *[5.0, 5.0] * 100])  # in fp32, in bf16, in fp32 …
    monkeypatch.setattr(precision, "_seconds", lambda way, given: next(seconds))
    assert speedup(tiny()) == 3


# --- memory -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")])
def test_a_chunk_that_runs_out_of_memory_is_halved_and_redone(tiny, monkeypatch, error):
    prompts = harness.load_prompts("ioi", tiny(), n=3)
    whole, sizes, run = harness.ablate_heads(tiny(), prompts, metrics=["loss"]).data, [], engine.run_ablated

    def small(model, clean, chunk, check, watch):
        sizes.append(len(chunk))
        if len(chunk) > 2:
            raise error
        return run(model, clean, chunk, check, watch)

    monkeypatch.setattr(engine, "run_ablated", small)
    cut = harness.ablate_heads(tiny(), prompts, metrics=["loss"]).data
    np.testing.assert_allclose(cut.effect.values, whole.effect.values, atol=1e-5)
    assert sizes[0] > 2
    assert sizes[-1] <= 2


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    assert not memory.is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert memory.free("cpu") > 1e6


# --- requests ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"method": "quick"}, "sweep.method=quick: known: exact, fast, screen"),
        ({"method": "screen", "kind": "layer"}, "it is for single heads; set sweep.kind=[single,layer]"),
        ({"method": "screen", "positions": "each"}, "at each position in turn all is exact"),
        ({"verify_top_k": 3}, "sweep.method=exact does not read it; set sweep.method=fast or sweep.method=screen"),
        ({"method": "fast", "gradient_steps": 3}, "sweep.method=fast does not read it; set sweep.method=screen"),
        ({"method": "screen", "kind": "cumulative"}, "a screen measures few heads' effects; set estimate"),
        ({"kind": "cumulative", "order": "estimate"}, "only sweep.method=screen makes estimates"),
    ],
)
def test_what_cannot_be_asked_is_refused(tiny, asked, said):
    prompts: Prompts = harness.load_prompts("ioi", tiny(), n=3)
    with pytest.raises(RequestError, match=".") as refused:
        harness.ablate_heads(tiny(), prompts, metrics=["loss"], **asked)
    assert said in str(refused.value)


def test_bf16_is_for_models_in_fp32(tiny):
    model = harness.load_model("random", dtype="bfloat16")
    with pytest.raises(RequestError, match="it multiplies in bf16 what is in float32"):
        harness.ablate_heads(model, harness.load_prompts("ioi", model, n=2), metrics=["loss"], method="fast")


# --- runs -------------------------------------------------------------------------------------------------------


def test_heads_csv_says_how_each_head_was_measured(command, always_pays):
    for method, other in (("fast", "effect_error"), ("screen", "estimate")):
        code, out, _ = command(
            "ablate_heads", "model=random", "prompts.n=4", f"sweep.method={method}", "sweep.verify_top_k=2"
        )
        assert code == 0
        run = harness.open_run(out.splitlines()[-1])
        table = run.heads[run.heads.metric == "loss"]
        assert len(table) == run.data.exact.size
        assert table[other].notna().all()
        exact = table[table.method == "exact"]
        assert len(exact) == int(run.data.exact.sum())
        assert exact.effect_mean.notna().all()
        if method == "fast":
            assert (exact.effect_error == 0).all()
            assert (table[table.method == "fast"].effect_error > 0).all()
        if method == "screen":
            rest = table[table.method == "screen"]
            assert rest.effect_mean.isna().all()
            assert pd.isna(rest["rank"]).all()


def test_an_order_by_estimate(tiny):
    prompts = harness.load_prompts("ioi", tiny(), n=3)
    asked = {
        "kind": ["single", "cumulative"],
        "order": "estimate",
        "max_heads": 3,
        "method": "screen",
        "verify_top_k": 2,
    }
    found = harness.ablate_heads(tiny(), prompts, metrics=["loss"], **asked).data
    mean = found.estimate.sel(metric="loss").mean("prompt")
    want = [str(Head(*np.unravel_index(at, mean.shape))) for at in np.argsort(-mean.values, axis=None)[:3]]
    assert found.cumulative_head.values[0].tolist() == want


# --- gradients that were switched off -----------------------------------------------------------------------------


def by_gradients(model):
    """What each gradient method gives for a short text."""
    prompts = harness.load_prompts("inline", model, text=["John gave a drink"], words={"name": ["John"]})
    methods = ["gradient", "integrated_gradients", "rollout_gradient"]
    scores = harness.compare_attributions(
        model, prompts, methods=methods, causes=["delete"], ig_steps=1, targets=1
    ).data
    estimate = screened(model, prompts, ("loss",))["estimate"]
    trace = TraceStage(model, prompts, TraceSpec(causes=("delete",), heads="none"), model.heads())
    return [scores.attribution.values, estimate.values, trace.compute(trace.plan(), 0)["gradient"]]


@pytest.fixture(scope="module")
def with_gradients(tiny):
    return by_gradients(tiny())


@pytest.mark.parametrize(
    ("off", "reloaded"),
    [
        (lambda: torch.set_grad_enabled(False), True),
        (torch.no_grad, False),
        (torch.inference_mode, False),
        (torch.inference_mode, True),
    ],
)
def test_gradients_are_there_where_a_notebook_switched_them_off(tiny, with_gradients, off, reloaded):
    """A notebook's first line is ``torch.set_grad_enabled(False)``; the model may be loaded before or after it."""
    with off():
        got = by_gradients(harness.load_model("random") if reloaded else tiny())
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()
    for mine, its in zip(got, with_gradients, strict=True):
        assert np.nanmax(np.abs(its)) > 0
        np.testing.assert_array_equal(mine, its)
