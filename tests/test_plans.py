"""What a sweep plans and forecasts: how much work, in what portions, on how much memory, counted by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

import harness
from harness import ablation
from harness.ablation.rows import CHUNK_TOKENS
from harness.attribution import integrated
from harness.hooks import Head
from harness.metrics import choose
from harness.sweep import SweepStage, attribution_patching, groups
from harness.sweep.attribution_patching import ScreenStage
from harness.sweep.cumulative import CumulativeStage
from harness.sweep.division import SplitStage
from harness.sweep.fast import FastStage
from harness.sweep.greedy import GreedyStage
from harness.sweep.memory import Fit
from harness.sweep.pairs import PairsStage
from harness.sweep.verify import MIN_SAMPLE, VerifyStage


@pytest.fixture(scope="module")
def model(tiny):
    return tiny("llama")


def sweep_of(model, n=3, metrics=("loss",), asked="zero", **more):
    prompts = harness.load_prompts("ioi", model, n=n)
    made, where = ablation.build(asked, model, prompts)
    return SweepStage(model, prompts, groups(model), choose(list(metrics), prompts), made, where, **more)


def effects_of(model, seed=0):
    """Effects of all 12 heads, by prompt: what an earlier stage measured."""
    rng, over = np.random.default_rng(seed), ("metric", "prompt", "layer", "head")
    values = rng.normal(size=(1, 3, 3, 4))
    coords = {"metric": ["loss"], "layer": range(3), "head": range(4)}
    return xr.Dataset({name: (over, values) for name in ("fast_effect", "estimate")}, coords)


def test_the_largest_difference_to_a_plain_forward_is_the_sweeps(model):
    sweep = sweep_of(model)
    plan, offs = sweep.plan(), ([1e-7, 3e-6], [2e-7])
    units = [{**sweep.compute(plan, unit), "off": np.array(off)} for unit, off in enumerate(offs)]
    assert sweep.assemble(plan, units)["effect"].attrs["plain_forward_difference"] == 3e-6


# --- what is chosen -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("top", "share"), [(2, 0.0), (3, 0.1), (3, 0.75), (1, 1.0), (12, 0.0), (9, 0.0)])
def test_heads_to_verify_are_the_strongest_and_a_sample_and_the_forecast_counts_them(model, top, share):
    sweep, done = sweep_of(model), effects_of(model)
    stage = VerifyStage(sweep, "fast_effect", top, share)
    plan = stage.plan(done)
    size = abs(done["fast_effect"].sel(metric="loss").mean("prompt"))
    strongest = sorted(sweep.groups, key=lambda name: -float(size.sel(Head.parse(name).place)))[:top]
    n = min(12, max(MIN_SAMPLE, round(12 * share))) if share else 0
    assert len(plan["sample"]) == len(set(plan["sample"])) == n
    assert set(plan["groups"]) == {*strongest, *plan["sample"]}
    assert list(plan["groups"]) == [name for name in sweep.groups if name in plan["groups"]], (
        "in the order of the sweep"
    )
    forecast = stage.as_sweep().groups
    assert len(forecast) == min(12, top + n) >= len(plan["groups"])
    if 0 < len(forecast) < 7:
        assert len({Head.parse(name).layer for name in forecast}) > 1, "spread over the layers"


def test_the_strongest_are_taken_by_each_metric_in_turn(model):
    sweep = sweep_of(model, metrics=("loss", "logit_diff"))
    values = np.zeros((2, 3, 3, 4))
    values[0, :, 0] = [4, 3, 2, 1]
    values[1, :, 2] = [1, -2, 3, -4]
    coords = {"metric": ["loss", "logit_diff"], "layer": range(3), "head": range(4)}
    done = xr.Dataset({"estimate": (("metric", "prompt", "layer", "head"), values)}, coords)
    for top, expected in ((1, {"L0H0"}), (2, {"L0H0", "L2H3"}), (5, {"L0H0", "L2H3", "L0H1", "L2H2", "L0H2"})):
        assert set(VerifyStage(sweep, "estimate", top).plan(done)["groups"]) == expected
    assert VerifyStage(sweep, "estimate", 2).plan(xr.Dataset({"effect": 1})) == {"batches": []}


def test_an_estimate_that_differs_between_prompts_counts_with_its_standard_error(model):
    """L0H1's mean is the smaller one by half of its standard error, 2 / √2 over its square root of prompts."""
    sweep = sweep_of(model, metrics=("loss",))
    n, values = len(sweep.prompts), np.zeros((1, len(sweep.prompts), 3, 4))
    spread = np.where(np.arange(n) % 2, 1.0, -1.0)
    spread -= spread.mean()
    error = spread.std(ddof=1) / n**0.5
    values[0, :, 0, 0], values[0, :, 0, 1] = 3, 3 - error / 2 + spread
    coords = {"metric": ["loss"], "layer": range(3), "head": range(4)}
    done = xr.Dataset(
        {name: (("metric", "prompt", "layer", "head"), values) for name in ("estimate", "fast_effect")}, coords
    )
    assert set(VerifyStage(sweep, "estimate", 1).plan(done)["groups"]) == {"L0H1"}
    assert set(VerifyStage(sweep, "fast_effect", 1).plan(done)["groups"]) == {"L0H0"}, "these are not estimates"


def same_work(stage, done):
    """The sizes of the sets in the plan, and in the sweep that stands for it in the forecast."""
    forecast = sorted(len(parts) for parts in stage.as_sweep().groups.values())
    return sorted(len(parts) for parts in stage.plan(done)["groups"].values()), forecast


@pytest.mark.parametrize(
    "stage",
    [
        lambda sweep: CumulativeStage(sweep, ("effect", "random"), 5, n_random=3),
        lambda sweep: CumulativeStage(sweep, ("effect",), 12),
        lambda sweep: CumulativeStage(sweep, ("random",), 2, n_random=4),
        lambda sweep: PairsStage(sweep, "all"),
        lambda sweep: PairsStage(sweep, "effect", top=5),
        lambda sweep: PairsStage(sweep, "effect", top=12),
        lambda sweep: PairsStage(sweep, ((Head(0, 1), Head(2, 3)), (Head(0, 1), Head(1, 1)))),
        lambda sweep: FastStage(sweep),
    ],
)
def test_the_forecast_of_a_sweep_is_of_as_many_sets_of_the_same_sizes(model, stage):
    done = effects_of(model).rename(fast_effect="effect")
    planned, forecast = same_work(stage(sweep_of(model)), done)
    assert planned == forecast


def test_the_forecast_of_a_greedy_order_has_one_head_fewer_at_each_step(model):
    forecast = GreedyStage(sweep_of(model), 4).as_sweep().groups
    assert sorted(len(parts) for parts in forecast.values()) == [1] * 12 + [2] * 11 + [3] * 10 + [4] * 9
    assert len(set(map(frozenset, forecast.values()))) == len(forecast)


def test_random_orders_are_different_and_those_of_the_seed(model):
    stage = CumulativeStage(sweep_of(model), ("random",), 12, n_random=5)
    orders = stage.plan()["orders"]
    assert list(orders) == [f"random {at}" for at in range(1, 6)]
    assert all(sorted(order) == sorted(stage.sweep.groups) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == 5
    assert stage.plan()["orders"] == orders
    other = CumulativeStage(sweep_of(model, seed=1), ("random",), 12, n_random=5).plan()["orders"]
    assert not any(orders[name] == other[name] for name in orders)


def test_an_order_by_effect_begins_with_the_most_or_the_least_needed(model):
    done = effects_of(model).rename(fast_effect="effect")
    mean = done["effect"].sel(metric="loss").mean("prompt")
    order = sorted(sweep_of(model).groups, key=lambda name: -float(mean.sel(Head.parse(name).place)))
    for first, expected in (("most_needed", order), ("least_needed", order[::-1])):
        stage = CumulativeStage(sweep_of(model), ("effect",), 12, first=first)
        assert stage.plan(done)["orders"]["effect"] == expected


def test_a_screen_without_exact_values_has_no_pairs_by_effect(model):
    with pytest.raises(harness.config.RequestError, match="no stage of this run measured `effect`"):
        PairsStage(sweep_of(model), "effect").plan(effects_of(model))


# --- how much work --------------------------------------------------------------------------------------------------


def test_the_work_of_a_sweep_is_the_blocks_that_run(model):
    """Ablating a head of layer 1 of 3 runs blocks 1 and 2: two thirds of a forward."""
    sweep = sweep_of(model)
    rows, sweeps = sweep.work(sweep.plan())
    assert rows == 3
    assert sweeps == pytest.approx(4 * (1 + 2 / 3 + 1 / 3))
    assert sweep.of({"last": (Head(2, 0),)}).work(sweep.plan())[1] == pytest.approx(1 / 3)
    assert sweep.of({"both": (Head(2, 0), Head(0, 1))}).work(sweep.plan())[1] == pytest.approx(1)


def test_each_draw_each_null_and_each_position_is_a_sweep_of_its_own(model):
    once = sweep_of(model)
    base = once.work(once.plan())[1]
    drawn = sweep_of(model, asked={"name": "resample", "draws": 3})
    assert drawn.work(drawn.plan())[1] == pytest.approx(3 * base)
    null = sweep_of(model, metrics=("kl",))
    assert null.plan()["null"] == {"draws": 1, "seed": 0}
    assert null.work(null.plan())[1] == pytest.approx(2 * base)
    each = sweep_of(model, asked={"name": "zero", "positions": "each"})
    longest = int(each.prompts.length.max())
    assert each.work(each.plan())[1] == pytest.approx(longest * base)


def test_the_forecast_says_rows_forwards_time_units_and_memory(model):
    sweep = sweep_of(model)
    text = sweep.cost(lambda model, prompts: 10.0)
    plan = sweep.plan()
    assert f"3 prompts (3 rows) × 12 interventions, the work of {3 * (1 + 8):.0f} forwards of one row:" in text
    assert f"about {harness.execute.cost.duration(3 * 9 * 10.0)};" in text
    assert f"units of work: {len(plan['batches'])};" in text
    weights = 4 * sum(each.numel() for each in model.bridge.parameters())
    whole = weights + sweep.fit.chunk_bytes(plan["batches"], 12)
    assert text.endswith(f"up to {harness.execute.cost.gigabytes(whole)}")


def test_a_masked_lm_has_a_row_for_each_scored_token(tiny):
    bert = tiny("bert")
    prompts = harness.load_prompts("inline", bert, text=["Mary and John went home."], words={"name": ["Mary", "John"]})
    fit = Fit(bert, prompts)
    assert fit.n_rows([0]) == int(prompts.target[0].sum()) > 1
    llama = tiny("llama")
    assert Fit(llama, harness.load_prompts("inline", llama, text=["Mary and John went home."])).n_rows([0]) == 1


# --- how much at once -----------------------------------------------------------------------------------------------


def fit_of(gigabytes, width=(10, 20), kind="decoder", device="cpu", d_model=8, n_heads=2):
    shape = SimpleNamespace(d_model=d_model, n_heads=n_heads)
    n_rows = np.full(len(width), 3 if kind == "masked_lm" else 1)
    prompts = SimpleNamespace(width=np.array(width), n_rows=n_rows, has_choices=False)
    return Fit(SimpleNamespace(kind=kind, device=device, shape=shape), prompts, gigabytes)


def test_what_fits_in_memory_by_hand():
    """A token of a row of 20: 4 × 24 × 8 for activations and 12 × 2 × 20 for patterns, 1248 bytes."""
    fit = fit_of(1248 * 100 / 1e9)  # 100 tokens
    assert fit.rows_at_once([0, 1]) == 2
    assert fit.interventions_at_once([0, 1]) == 2  # 2 × 2 rows × 20 tokens are 80, 3 × 2 × 20 are 120
    assert fit.chunk_bytes([[0, 1]], n_interventions=12) == 2 * 2 * 20 * 1248
    assert fit.chunk_bytes([[0, 1]], n_interventions=1) == 1 * 2 * 20 * 1248
    assert fit.chunk_bytes([[0], [0, 1]], n_interventions=12) == 12 * 10 * 1248  # of 1008 bytes, 12 rows of 10 fit
    few = fit_of(1248 * 25 / 1e9)  # one row at a time
    assert (few.rows_at_once([0, 1]), few.interventions_at_once([0, 1])) == (1, 1)
    none = fit_of(1e-9)
    assert (none.rows_at_once([0, 1]), none.interventions_at_once([0, 1])) == (1, 1)


def test_a_cpu_takes_no_more_tokens_than_pay_and_an_accelerator_as_many_as_fit():
    roomy = fit_of(1000.0)
    assert roomy.interventions_at_once([0, 1]) == CHUNK_TOKENS // 40
    other = fit_of(1248 * 10 * CHUNK_TOKENS / 1e9, device="cuda")
    assert other.interventions_at_once([0, 1]) == 10 * CHUNK_TOKENS // 40


def test_without_a_limit_a_quarter_of_the_free_memory_is_taken(monkeypatch):
    monkeypatch.setattr("harness.sweep.memory.free", lambda device: 1000)
    assert fit_of(None).budget == 250
    assert fit_of(2.0).budget == 2e9


# --- division of work -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 40])
def test_a_split_covers_every_intervention_once_in_whole_chunks(model, workers):
    sweep = sweep_of(model, memory=0.0003)
    whole, plan = sweep.plan(), SplitStage(sweep, workers).plan()
    places = [place for _, some in plan["parts"] for place in some]
    n = len(whole["batches"])
    assert sorted(places) == sorted([*range(12)] * n)
    chunk = whole["chunks"][0]
    n_chunks = -(-12 // chunk)
    wanted = -(-2 * workers // n)
    of_first = [some for unit, some in plan["parts"] if unit == 0]
    assert len(of_first) == min(wanted, n_chunks)
    assert sum(len(some) % chunk != 0 for some in of_first) <= (12 % chunk != 0)
    layers = [min(Head.parse(list(sweep.groups)[at]).layer for at in some) for some in of_first]
    assert layers == sorted(layers, reverse=True), "the most expensive part, from the first block on, is last"
    assert plan["batches"] == [whole["batches"][unit] for unit, _ in plan["parts"]]
    assert plan["whole"] == whole["batches"]


def test_a_sweep_is_split_where_units_are_fewer_than_two_for_each_worker(model):
    one = sweep_of(model, n=1)
    assert len(one.plan()["batches"]) == 1
    assert one.divided(1) is one
    assert isinstance(one.divided(2), SplitStage)
    assert one.divided(2).n_workers == 2
    last = sweep_of(model, n=1, asked={"name": "zero", "positions": "last"})
    assert last.divided(4) is last


# --- refinement of a path -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_the_panels_to_refine_are_the_fewest_without_which_the_rest_is_good_enough(seed):
    rng = np.random.default_rng(seed)
    off = rng.exponential(size=9) ** 3 * rng.choice([-1, 1], 9)
    ends = np.concatenate([[0], np.cumsum(off)]) + 1.0
    explained = np.zeros(19)
    explained[::2] = ends
    path = integrated.Path(np.linspace(0, 1, 19), explained, np.zeros((19, 2)))
    chosen = integrated._rough(path)
    enough = max(integrated.MIN_ERROR, integrated.TOLERANCE * abs(ends[-1] - ends[0]))
    size = np.abs(off)
    assert np.abs(off)[chosen].min() >= max(np.delete(size, chosen), default=0), "the worst"
    assert np.delete(size, chosen).sum() <= enough / 2
    assert np.delete(size, chosen[:-1]).sum() > enough / 2
    assert list(size[chosen]) == sorted(size[chosen], reverse=True)


def test_a_path_that_adds_up_is_not_refined():
    at = np.linspace(0, 1, 5)
    smooth = integrated.Path(at, at**2, (2 * at)[:, None])  # Simpson's rule is exact
    assert len(integrated._rough(smooth)) == 0
    np.testing.assert_allclose(integrated._by_panel(smooth).sum(), 1)
    nearly = integrated.Path(at, at**2 + np.array([0, 0, 0.01, 0, 0]), (2 * at)[:, None])
    assert len(integrated._rough(nearly)) == 0, "off by 0.02 in all, of 0.03"
    worse = integrated.Path(at, at**2 + np.array([0, 0, 0.02, 0, 0]), (2 * at)[:, None])
    assert len(integrated._rough(worse)) == 2, "0.04 in all; 0.02 is more than half of 0.03"


@pytest.mark.parametrize("tokens", [1, 40, 100])
def test_a_screen_keeps_the_activations_of_every_block_of_as_many_rows_as_fit(model, tokens):
    shape, width = model.shape, sweep_of(model).prompts.width
    widths, patterns = attribution_patching._KEPT_WIDTHS, attribution_patching._KEPT_PATTERNS
    kept = 4 * 3 * (widths * shape.d_model + patterns * shape.n_heads * int(width.max()))
    stage = ScreenStage(sweep_of(model, memory=(tokens + 0.5) * kept / 1e9))
    assert stage._tokens() == tokens
    plan = stage.plan()
    assert plan["rows"] == [max(1, tokens // int(width[batch].max())) for batch in plan["batches"]]
