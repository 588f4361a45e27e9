"""Tables of arrays made up by hand: the rows, their numbers and their order, by numpy alone."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from fakes import fake_run, fake_t5, with_claims

from harness import views
from harness.attribution.context.segment_table import measures, parts_heads_table, parts_table, sampled
from harness.attribution.evaluate import method_table
from harness.attribution.evaluate.statistics import BETTER, curves, shares, with_source
from harness.attribution.token_graph import Nodes, joint
from harness.config import RequestError, StatsSpec
from harness.hooks import Head
from harness.results.run import spread
from harness.results.schema import TABLES, read_table, write_table
from harness.stats import rank_correlation
from harness.sweep.verify import _errors, _filled, _rms_factor, _screen_quality, merge
from harness.views.figures import first_figure

QUICK = StatsSpec(resamples=200)


# --- parts of a context -------------------------------------------------------------------------------------------


@pytest.fixture
def traced():
    """Three prompts of two scored tokens, two parts; the third prompt lacks the second part and has one token."""
    rng = np.random.default_rng(0)
    there = np.ones((3, 2, 2), bool)
    there[2, :, 1] = there[2, 1, :] = False
    at = lambda values: np.where(there, values, np.nan)  # noqa: E731
    cause = rng.normal(size=(3, 2, 2, 2))
    cause = np.where(there[:, :, None], cause, np.nan)
    attention = np.where(there[:, :, None, None], rng.random((3, 2, 1, 3, 2)), np.nan)
    carried = np.full((3, 2, 1, 3, 2), np.nan)
    carried[:2, :, 0, :2, 0] = rng.normal(size=(2, 2, 2))
    over = ("prompt", "traced")
    return xr.Dataset(
        {
            "part_tokens": (("prompt", "part"), np.array([[1.0, 3.0], [2.0, 2.0], [4.0, 0.0]])),
            "part_attention": ((*over, "layer", "head", "part"), attention),
            "part_rollout": ((*over, "part"), at(rng.random((3, 2, 2)))),
            "part_gradient": ((*over, "part"), at(0.2 * rng.random((3, 2, 2)))),
            "part_cause": ((*over, "taken", "part"), cause),
            "part_head_cause": ((*over, "layer", "head", "part"), carried),
            "cluster": ("prompt", ["a", "b", "c"]),
        },
        {"part": ["note", "drink"], "taken": ["delete", "knockout"], "layer": [0], "head": [0, 1, 2]},
    )


def mean_by_prompt(values):
    """The mean over tokens of each prompt, then over the prompts that have the part."""
    return pd.DataFrame(np.array([pd.DataFrame(each).mean(axis=0) for each in values])).mean(axis=0).to_numpy()


def test_measures_of_parts_are_shares_that_add_up_and_causes_as_they_are(traced):
    found = dict(measures(traced))
    assert list(found) == ["tokens", "attention", "rollout", "gradient", "delete", "knockout"]
    np.testing.assert_allclose(found["tokens"][:, 0], [[0.25, 0.75], [0.5, 0.5], [1, np.nan]])
    assert np.isnan(found["tokens"][2, 1]).all()
    gradient = traced["part_gradient"].values
    np.testing.assert_allclose(found["gradient"][:2], gradient[:2] / gradient[:2].sum(axis=2, keepdims=True))
    np.testing.assert_allclose(found["gradient"][2, 0, 0], 1)
    np.testing.assert_array_equal(found["rollout"], traced["part_rollout"])
    np.testing.assert_allclose(found["attention"], traced["part_attention"].values.mean(axis=(2, 3)))
    np.testing.assert_array_equal(found["knockout"], traced["part_cause"].values[:, :, 1])


def test_a_gradient_that_vanishes_has_no_shares(traced):
    flat = traced["part_gradient"].values.copy()
    flat[0, 0] = 0
    found = dict(measures(traced.assign(part_gradient=(traced["part_gradient"].dims, flat))))["gradient"]
    assert np.isnan(found[0, 0]).all()
    assert np.isfinite(found[0, 1]).all()
    assert "gradient" not in dict(measures(traced.drop_vars("part_gradient")))


def test_the_table_of_parts_has_means_over_the_prompts_that_have_the_part(traced):
    table = parts_table(traced, QUICK)
    for measure, values in measures(traced):
        rows = table[table["measure"] == measure].set_index("part")
        np.testing.assert_allclose(rows.loc[["note", "drink"], "mean"], mean_by_prompt(values))
        assert rows["n_prompts"].to_dict() == {"note": 3, "drink": 2}
        order = rows.sort_values("mean", ascending=False)
        assert list(order["rank"]) == [1, 2]
        assert set(rows["over"]) == {"prompts"}


def test_a_part_without_a_number_has_no_row(traced):
    cause = traced["part_cause"].copy()
    cause.loc[{"part": "drink"}] = np.nan
    table = parts_table(traced.assign(part_cause=cause), QUICK)
    assert list(table.query("measure == 'delete'")["part"]) == ["note"]
    assert set(table.query("measure == 'tokens'")["part"]) == {"note", "drink"}


def test_samples_are_prompts_or_the_tokens_of_the_one_there_is(traced):
    values = traced["part_cause"].values[:, :, 0]
    found, clusters, over = sampled(traced, values)
    assert over == "prompts"
    assert list(clusters) == ["a", "b", "c"]
    np.testing.assert_allclose(found, [pd.DataFrame(each).mean(axis=0) for each in values])
    one = traced.assign(cluster=("prompt", ["a"] * 3))
    flat, clusters, over = sampled(one, values)
    assert over == "scored tokens"
    np.testing.assert_array_equal(flat, np.concatenate([values[0], values[1], values[2, :1]]))
    assert list(clusters) == [0, 1, 2, 3, 4]


def test_the_table_of_the_heads_of_a_part_has_those_that_were_knocked_out(traced):
    table = parts_heads_table(traced, QUICK)
    assert set(table["part"]) == {"note"}
    assert sorted(zip(table["layer"], table["head"], strict=True)) == [(0, 0), (0, 1)]
    for row in table.itertuples():
        carried = traced["part_head_cause"].values[:2, :, 0, row.head, 0]
        assert row.mean == pytest.approx(carried.mean())
        attention = traced["part_attention"].values[:2, :, 0, row.head, 0]
        assert row.attention == pytest.approx(attention.mean())
        assert row.n_prompts == 2
    assert list(table.sort_values("rank")["mean"].abs()) == sorted(table["mean"].abs(), reverse=True)
    none = traced.assign(part_head_cause=traced["part_head_cause"] * np.nan)
    assert len(parts_heads_table(none, QUICK)) == 0


# --- methods against causes -----------------------------------------------------------------------------------------


def test_a_method_is_tested_against_the_random_order_prompt_by_prompt():
    rng = np.random.default_rng(1)
    values, clusters = rng.normal(size=(9, 4)), np.arange(9)
    values[:, 2] += 2
    methods = ["rollout", "random", "gradient", "raw"]
    found = method_table._against_chance(values, methods, clusters, QUICK)
    rest = [0, 2, 3]
    paired = method_table.intervals(values[:, rest] - values[:, [1]], clusters, QUICK)["q_value"]
    np.testing.assert_array_equal(found[rest], paired)
    assert np.isnan(found[1])
    assert found[2] == np.nanmin(found) < 0.05
    assert np.isnan(method_table._against_chance(values, ["a", "b", "c", "d"], clusters, QUICK)).all()
    assert np.isnan(method_table._against_chance(values[:, :1], ["random"], clusters, QUICK)).all()


@pytest.mark.parametrize("statistic", BETTER)
def test_methods_are_ranked_the_best_first_and_without_a_number_left_out(statistic):
    rows = [{"method": name, "mean": mean} for name, mean in (("a", 0.2), ("b", 0.9), ("c", np.nan), ("d", -0.4))]
    table = pd.DataFrame(rows).assign(statistic=statistic, policy="keep", cause="delete")
    other = table.assign(policy="drop", mean=5.0)
    best = [row["method"] for row in method_table.ranked(pd.concat([table, other]), statistic, "keep", "delete")]
    assert best == (["d", "a", "b"] if statistic in ("sufficiency", "deletion") else ["b", "a", "d"])
    assert method_table.ranked(table, statistic, "keep") == []


@pytest.fixture
def scored():
    """Two prompts, two methods and a cause, two targets (of the second prompt one), four tokens."""
    rng = np.random.default_rng(2)
    score, cause = rng.normal(size=(2, 2, 2, 4)), rng.normal(size=(2, 1, 2, 4))
    score[1, :, 1] = cause[1, :, 1] = np.nan
    over = ("target_position", "position")
    return xr.Dataset(
        {
            "attribution": (("prompt", "attribution_method", *over), score),
            "cause": (("prompt", "cause_kind", *over), cause),
            "counted": (("prompt", "policy", *over), np.isfinite(cause)),
            "explained": (("prompt", "target_position"), np.array([[2, 3], [3, -1]])),
            "explained_value": (("prompt", "target_position"), np.array([[1.0, 2.0], [0.5, np.nan]]), LOSS),
            "cluster": ("prompt", ["a", "b"]),
        },
        {"attribution_method": ["raw", "random"], "cause_kind": ["delete"], "policy": ["keep"]},
    )


LOSS = {"units": "loss, nats"}


def test_shares_of_the_first_and_of_the_predicting_token(scored):
    found = shares(scored)
    assert list(found["which"].values) == ["raw", "random", "delete"]
    strength = np.abs(np.concatenate([scored["attribution"], scored["cause"]], axis=1))
    part = strength / strength.sum(axis=-1, keepdims=True)
    for prompt, targets in ((0, [(0, 2), (1, 3)]), (1, [(0, 3)])):
        first = np.mean([part[prompt, :, target, 0] for target, _ in targets], axis=0)
        own = np.mean([part[prompt, :, target, at] for target, at in targets], axis=0)
        np.testing.assert_allclose(found.values[:, prompt], [first, own])
    vector = scored.assign(explained_value=scored["explained_value"].assign_attrs(units="cosine distance"))
    assert np.isnan(shares(vector).sel(statistic="own_share")).all()
    np.testing.assert_allclose(shares(vector).values[0], found.values[0])


def test_the_first_token_can_be_the_predicting_one(scored):
    found = shares(scored.assign(explained=(("prompt", "target_position"), np.array([[0, 3], [3, -1]]))))
    strength = np.abs(scored["attribution"].values[0, 0])
    part = strength / strength.sum(axis=-1, keepdims=True)
    assert float(found.sel(which="raw")[0, 0]) == pytest.approx((part[0, 0] + part[1, 0]) / 2)
    assert float(found.sel(which="raw")[1, 0]) == pytest.approx((part[0, 0] + part[1, 3]) / 2)


def test_shares_of_a_source_begin_behind_it(scored):
    source = {
        f"source_{name}": scored[name].rename(position="source_position").isel(source_position=slice(3)) * 2
        for name in ("attribution", "cause", "counted")
    }
    both = scored.assign(source)
    strength = np.abs(with_source(both, "attribution"))[0, 0]
    assert strength.shape == (2, 7)
    np.testing.assert_array_equal(strength[:, :3], np.abs(source["source_attribution"].values[0, 0]))
    part = strength / strength.sum(axis=-1, keepdims=True)
    assert float(shares(both).sel(which="raw")[0, 0]) == pytest.approx(part[:, 3].mean())
    assert float(shares(both).sel(which="raw")[1, 0]) == pytest.approx((part[0, 3 + 2] + part[1, 3 + 3]) / 2)


def test_a_method_without_any_score_has_no_share(scored):
    flat = scored.assign(attribution=scored["attribution"] * 0)
    found = shares(flat).sel(which="raw")
    assert np.isnan(found).all()


def test_tables_of_methods_have_shares_without_a_cause_or_a_method(scored):
    from harness.config import AttributionSpec

    table = method_table.methods_table(scored, AttributionSpec(), QUICK)
    shared = table[table["statistic"].isin(["first_share", "own_share"])]
    assert [(row.method, row.cause) for row in shared.itertuples()] == [("raw", ""), ("random", ""), ("", "delete")] * 2
    agreeing = table[table["cause"] == "delete"].query("method != ''")
    assert set(agreeing["statistic"]) == {"spearman", "kendall", "overlap"}
    pairs = method_table.pairs_table(scored, AttributionSpec(), QUICK)
    assert len(pairs) == 0, "only one method besides the random order"


def test_areas_under_curves_go_from_none_to_all(scored):
    """Fractions out of order; the loss grows by the fraction, and by 2 without all: areas of exp(−loss)."""
    fractions = [0.5, 0.25]
    grown = np.zeros((2, 2, 1, 2, 2, 2))
    grown[..., 0, :, :] = [0.5, 0.25]
    grown[..., 1, :, :] = [1.0, 1.5]
    over = ("prompt", "attribution_method", "policy", "curve", "target_position", "fraction")
    data = scored.assign(
        erased=(over, grown, {"units": "loss", "method": "m"}),
        erased_all=(("prompt", "policy", "target_position"), np.full((2, 1, 2), 2.0)),
        explained_value=(("prompt", "target_position"), np.array([[1.0, 1.0], [1.0, np.nan]]), LOSS),
    ).assign_coords(fraction=fractions)
    found = curves(data).sel(policy="keep", attribution_method="raw")
    p = lambda grown: np.exp(-(1 + grown))  # noqa: E731
    deletion = np.trapezoid([p(0), p(0.25), p(0.5), p(2)], [0, 0.25, 0.5, 1])
    insertion = np.trapezoid([p(2), p(1.5), p(1.0), p(0)], [0, 0.25, 0.5, 1])
    for prompt in (0, 1):
        values = found.isel(prompt=prompt)
        expected = {"comprehensiveness": 0.375, "sufficiency": 1.25, "deletion": deletion, "insertion": insertion}
        assert {str(name): float(values.sel(statistic=name)) for name in expected} == pytest.approx(expected)


# --- exact and approximate effects ----------------------------------------------------------------------------------


@pytest.fixture
def measured():
    """Effects of six heads in fp32 where they were verified (five, of which four were drawn), and in bf16 of all."""
    rng = np.random.default_rng(3)
    over, shape = ("metric", "prompt", "layer", "head"), (2, 4, 2, 3)
    exact = rng.normal(size=shape)
    fast = exact + rng.normal(0, 0.1, shape)
    known = np.array([[True, True, True], [True, True, False]])
    sampled = known.copy()
    sampled[0, 0] = False
    coords = {"metric": ["loss", "kl"], "layer": [0, 1], "head": [0, 1, 2]}
    return xr.Dataset(
        {
            "exact_effect": (over, np.where(known, exact, np.nan)),
            "exact_ablated": (over, np.where(known, exact + 3, np.nan)),
            "fast_effect": (over, fast),
            "estimate": (over, fast),
            "clean": (("metric", "prompt"), np.full((2, 4), 3.0)),
            "all_ablated": (("metric", "prompt"), np.full((2, 4), 5.0)),
            "sampled": (("layer", "head"), sampled),
        },
        coords,
    )


def test_errors_of_fast_effects_are_those_of_the_drawn_heads(measured):
    known = measured["exact_effect"].notnull().any(["metric", "prompt"])
    said = _errors(measured, known)
    assert (said["sampled"], said["verified"]) == ("4", "5")
    drawn = measured["sampled"].values
    for metric, errors in json.loads(said["errors"]).items():
        exact, fast = (measured[name].sel(metric=metric).values[:, drawn] for name in ("exact_effect", "fast_effect"))
        off = (fast - exact).mean(axis=0)
        assert errors["rms"] == pytest.approx(np.sqrt((off**2).mean()))
        assert errors["largest"] == pytest.approx(np.abs(off).max())
        assert errors["rms_by_prompt"] == pytest.approx(np.sqrt(((fast - exact) ** 2).mean()))
        assert errors["share_within"] == pytest.approx(0.05**0.25)
        assert errors["rms_high"] == pytest.approx(errors["rms"] * _rms_factor(4))
        ranks = [pd.Series(np.abs(each.mean(axis=0))).rank() for each in (exact, fast)]
        assert errors["rank_correlation"] == pytest.approx(np.corrcoef(*ranks)[0, 1])


def test_the_factor_of_an_rms_covers_it_in_19_of_20_draws():
    draws = np.random.default_rng(4).normal(size=(20_000, 5))
    rms = np.sqrt((draws**2).mean(axis=1))
    assert (rms * _rms_factor(5) >= 1).mean() == pytest.approx(0.95, abs=0.006)


def test_a_screen_is_held_against_the_verified_heads_and_all_heads_together(measured):
    known = measured["exact_effect"].notnull().any(["metric", "prompt"])
    said = _screen_quality(measured, known)
    assert said["verified"] == "5"
    for metric, quality in json.loads(said["screen"]).items():
        exact, guess = (measured[name].sel(metric=metric).values for name in ("exact_effect", "estimate"))
        assert quality["together"] == pytest.approx(2.0)
        assert quality["estimates"] == pytest.approx(np.abs(guess.mean(axis=0)).sum())
        ranks = [pd.Series(np.abs(each.mean(axis=0))[known.values]).rank() for each in (exact, guess)]
        assert quality["rank_correlation"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
        assert quality["blind"] is False
    weak = _screen_quality(measured.assign(estimate=measured["estimate"] * 1e-3), known)
    assert all(quality["blind"] for quality in json.loads(weak["screen"]).values())
    negative = _screen_quality(measured.assign(all_ablated=measured["all_ablated"] - 400), known)
    assert all(quality["blind"] for quality in json.loads(negative["screen"]).values())


def test_final_effects_are_exact_where_verified_and_fast_elsewhere(measured):
    final = merge(measured.drop_vars(["estimate", "exact_effect", "exact_ablated", "sampled"]), measured[VERIFIED])
    known = measured["exact_effect"].notnull().any(["metric", "prompt"]).values
    np.testing.assert_array_equal(final["effect"].values[..., known], measured["exact_effect"].values[..., known])
    np.testing.assert_array_equal(final["effect"].values[..., ~known], measured["fast_effect"].values[..., ~known])
    np.testing.assert_allclose(final["ablated"].values[..., ~known], 3 + measured["fast_effect"].values[..., ~known])
    np.testing.assert_array_equal(final["exact"], known)
    assert final["effect"].attrs["method"] == "fast"
    assert {"fast_effect", "clean"} <= set(final)
    assert not {"exact_effect", "exact_ablated", "sampled"} & set(final)
    np.testing.assert_array_equal(_filled(measured, "effect"), final["effect"])


VERIFIED = ["exact_effect", "exact_ablated", "sampled"]


def test_after_a_screen_effects_are_exact_or_missing(measured):
    final = merge(measured.drop_vars(["fast_effect", *VERIFIED]), measured[VERIFIED])
    np.testing.assert_array_equal(final["effect"], measured["exact_effect"])
    assert final["effect"].attrs["method"] == "screen"
    assert "estimate" in final


# --- nodes of an encoder-decoder ------------------------------------------------------------------------------------


def test_the_attentions_of_an_encoder_decoder_are_square_and_run_in_turn():
    rng = np.random.default_rng(5)
    rows = lambda *shape: rng.dirichlet(np.ones(shape[-1]), shape[:-1])  # noqa: E731
    own, read, across = rows(2, 3, 2, 2), rows(1, 3, 4, 4), rows(2, 3, 2, 4)
    steps = joint(own, read, across)
    assert steps.shape == (1 + 2 * 2, 3, 6, 6)
    np.testing.assert_allclose(steps.sum(axis=-1), 1)
    eye = np.eye(6)
    for at, matrix, some, columns in (
        (0, read[0], slice(0, 4), slice(0, 4)),
        (1, own[0], slice(4, 6), slice(4, 6)),
        (2, across[0], slice(4, 6), slice(0, 4)),
        (3, own[1], slice(4, 6), slice(4, 6)),
        (4, across[1], slice(4, 6), slice(0, 4)),
    ):
        expected = np.broadcast_to(eye, (3, 6, 6)).copy()
        expected[:, some] = 0
        expected[:, some, columns] = matrix
        np.testing.assert_array_equal(steps[at], expected)
    assert joint(own) is own
    placed = Nodes(4, 2).place(across[0], "cross", idle=0.0, own=np.full((3, 2), 0.5))
    np.testing.assert_array_equal(placed[:, [4, 5], [4, 5]], 0.5)
    assert not placed[:, :4].any()


# --- a run's own numbers --------------------------------------------------------------------------------------------


def test_claims_are_numbers_whatever_the_column_holds(tmp_path):
    run = with_claims(fake_run(tmp_path, n_prompts=6))
    important = pd.array([True, None, False] * 8, dtype="boolean")
    for column in (important, np.array(["True", "", "False"] * 8, dtype=object)):
        table = replace(run, heads=run.heads.assign(important=column))
        first, second, third = (table.claims(run.heads["metric"][0])[head] for head in heads_in(run.heads)[:3])
        assert (first.important, third.important) == (1, 0)
        assert np.isnan(second.important)
    assert run.claims("unknown") == {}
    assert replace(run, heads=pd.DataFrame()).claims("loss") == {}


def heads_in(table):
    return [Head(int(row.layer), int(row.head)) for row in table.itertuples()]


def test_a_mean_has_one_standard_error_each_way():
    about = spread(np.array([1.0, 2.0, 4.0]))
    error = np.std([1, 2, 4], ddof=1) / np.sqrt(3)
    assert (about.mean, about.low, about.high) == pytest.approx((7 / 3, 7 / 3 - error, 7 / 3 + error))
    assert about.kind == "standard error"
    assert np.isnan(spread(np.array([1.0])).low)
    assert np.isfinite(spread(np.array([1.0, 2.0])).low)


def test_sides_are_those_of_the_metric_and_rounding_is_no_effect(tmp_path):
    run = fake_run(tmp_path, metrics=["loss", "accuracy", "kl"])
    assert [run.side(metric, 0.1) for metric in ("loss", "accuracy", "kl")] == ["helps", "hurts", "matters"]
    assert [run.side(metric, -0.1) for metric in ("loss", "accuracy", "kl")] == ["hurts", "helps", "matters"]
    assert {run.side(metric, 1e-8) for metric in ("loss", "accuracy", "kl")} == {"no effect"}
    share, size = run.threshold("accuracy")
    assert share == 0.05
    assert size == pytest.approx(0.05 * abs(float(run.data["clean"].sel(metric="accuracy").mean())))
    assert [run.unit(metric) for metric in ("loss", "accuracy", "kl")] == [" nats", "", " nats"]


# --- followed words -------------------------------------------------------------------------------------------------


def test_a_later_word_that_some_head_sees_is_not_called_unseen(tmp_path):
    run = fake_run(tmp_path, n_prompts=1)
    pattern = run.data["pattern"].values.copy()
    pattern[0, 1, 1, 1, 4] = 0.25
    seeing = replace(run, data=run.data.assign(pattern=(run.data["pattern"].dims, pattern)))
    assert "cannot be seen" not in views.follow_table(seeing, 0, "Mary", "went").attrs["note"]
    assert "cannot be seen" in views.follow_table(run, 0, "Mary", "went").attrs["note"]
    mixed = views.follow_table(seeing, 0, "Mary", ["When", "went", "John"]).attrs["note"]
    assert mixed.endswith("What comes later cannot be seen from “Mary”: John.")


def test_a_word_that_is_earlier_and_not_looked_at_is_not_called_later(tmp_path):
    run = fake_run(tmp_path, n_prompts=1)
    pattern = run.data["pattern"].values.copy()
    pattern[..., 0] = 0
    blind = replace(run, data=run.data.assign(pattern=(run.data["pattern"].dims, pattern)))
    assert "cannot be seen" not in views.follow_table(blind, 0, "Mary", "When").attrs["note"]
    assert "No head looks there." in views.follow(blind, 0, "Mary", "When").html
    assert "The darkest shade is 0.000" in views.follow(blind, 0, "Mary", "When").html


def test_the_map_of_followed_words_names_the_head_with_the_most(tmp_path):
    run = fake_run(tmp_path, n_prompts=1)
    weights = run.data["pattern"].values[0, :, :, 4, 2].astype(float)
    layer, head = np.unravel_index(weights.argmax(), weights.shape)
    page = views.follow(run, 0, "went", "and").html
    by_layer = weights.mean(axis=1)
    says = f"Most in L{layer}H{head}: {weights.max():.3f}; by the mean over heads most in layer {by_layer.argmax()}: "
    assert f"{says}{by_layer.max():.3f}; mean of all heads {weights.mean():.3f}." in page
    weights = np.column_stack([weights, by_layer])
    shares = [float(each) for each in re.findall(r'<td class="mark" style="--share:([\d.]+)"', page)]
    np.testing.assert_allclose(shares, np.sqrt(weights / weights.max()).ravel(), atol=6e-4)
    shown = re.findall(r"<td class=\"mark\"[^>]*>([^<]*)</td>", page)
    assert shown == [f"{each:.2f}".removeprefix("0") if each >= 0.005 else "·" for each in weights.ravel()]


# --- what a run lacks -----------------------------------------------------------------------------------------------


def test_a_table_of_a_model_with_a_learnt_sink_has_its_share_as_the_last_column(tmp_path):
    run = fake_run(tmp_path, n_prompts=1)
    sunk = replace(run, data=run.data.assign(pattern=run.data["pattern"] * 0.75, sink=run.data["pattern"][..., 0]))
    table = views.table(sunk, 0, "L1H2")
    assert table.columns[-1] == "sink"
    np.testing.assert_allclose(table["sink"], 0.25, atol=2e-3)
    np.testing.assert_allclose(table.sum(axis=1), 1)
    assert "sink" not in views.table(sunk, 0, "L1H2", special="drop")
    assert "sink" not in views.table(run, 0, "L1H2")


def test_what_a_run_has_not_is_refused_with_what_it_has(tmp_path):
    run, t5 = fake_run(tmp_path, n_prompts=2), fake_t5(tmp_path)
    over = ("prompt", "attribution_method", "target_position", "position")
    scored = np.full((2, 1, 1, 8), np.nan)
    scored[0] = 1
    data = run.data.assign(attribution=(over, scored)).assign_coords(attribution_method=["gradient"])
    partly = replace(run, data=data)
    bare = fake_run(tmp_path, parts=())
    for ask, message in (
        (lambda: views.follow_table(run, 0, 1, 0, stack="decoder"), "stack=decoder: the run has one stack only"),
        (lambda: views.follow_table(t5, 0, 1, 0, stack="both"), "stack=both: the run has encoder decoder cross"),
        (lambda: views.saliency(partly, 1), "method=gradient: it has no scores on prompt 1"),
        (lambda: views.saliency(t5, 0, head="cross.L1H2"), "its row is over the source text; use views.table"),
        (lambda: rank_correlation(np.ones(2), np.ones(3)), "shapes (2,) and (3,)"),
        (lambda: first_figure(bare), "no figure shows these arrays"),
    ):
        with pytest.raises(RequestError) as error:
            ask()
        assert message in str(error.value)
    assert bare.ablated_heads == []
    assert bare.metrics == []


def test_the_first_figure_of_a_run_is_that_of_its_answer(tmp_path):
    label, draw = first_figure(fake_run(tmp_path))
    assert label == "Effect of each head on logit difference"
    assert draw().axes


def test_the_tables_of_a_run_tell_heads_by_number_also_where_numbers_are_not_from_zero(tmp_path):
    run = fake_run(tmp_path)
    some = replace(run, data=run.data.isel(head=[1, 3]))
    assert {head.head for head in some.all_heads} == {1, 3}
    for head in some.all_heads:
        np.testing.assert_array_equal(
            views.table(some, 0, str(head)), run.data["pattern"].sel(head.place).values[0].astype(float)
        )


@pytest.mark.parametrize("name", TABLES)
def test_a_column_of_stacks_is_read_only_of_tables_of_heads_of_an_encoder_decoder(name, tmp_path):
    columns = list(TABLES[name].columns)
    plain = pd.DataFrame([["x"] * len(columns)], columns=columns)
    write_table(tmp_path, name, plain)
    assert list(read_table(tmp_path, name).columns) == columns
    write_table(tmp_path, name, stacked(plain))
    if TABLES[name].by_stack:
        assert list(read_table(tmp_path, name).columns) == list(stacked(plain).columns)
    else:
        with pytest.raises(RequestError, match=f"{name}.csv is damaged"):
            read_table(tmp_path, name)


def stacked(table):
    made = table.copy()
    made.insert(list(table.columns).index("layer") if "layer" in table else 0, "stack", "cross")
    return made
