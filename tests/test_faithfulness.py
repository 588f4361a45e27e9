"""Methods against causes: rankings by hand, curves by plain forwards, tables, and a whole run of the runner."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from fakes import fake_run
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

import harness
from harness.attribution import evaluate
from harness.attribution.evaluate import erasure
from harness.attribution.evaluate.best_method import nearest
from harness.attribution.evaluate.levels import words_of
from harness.attribution.evaluate.stage import AttributionStage
from harness.attribution.evaluate.top_head import top_head, with_top_head
from harness.attribution.example import example_of
from harness.attribution.masking import each_token
from harness.attribution.occlusion import mean_embedding, occlude
from harness.config import AttributionSpec, RequestError, StatsSpec
from harness.hooks import Head
from harness.models import random as random_models
from harness.results.schema import TABLES

TEXTS = ("When Mary and John went to the store", "Then the garden had a drink")
ALL = AttributionSpec(methods=("all",), causes=("auto",), fractions=(0.25, 0.5), targets=2, ig_steps=4)
QUICK = StatsSpec(resamples=200)


# --- rankings ---------------------------------------------------------------------------------------------------

some_scores = st.lists(st.integers(-3, 3), min_size=4, max_size=12)


@given(some_scores, st.randoms())
def test_rankings_are_scipys(values, random):
    a = np.array(values, dtype=float)
    b = np.array(random.sample(values, len(values)), dtype=float)
    if len(set(values)) == 1:
        assert math.isnan(evaluate.spearman(a, b))
        assert math.isnan(evaluate.kendall(a, b))
        return
    assert evaluate.spearman(a, b) == pytest.approx(scipy_stats.spearmanr(a, b).statistic)
    assert evaluate.kendall(a, b) == pytest.approx(scipy_stats.kendalltau(a, b).statistic)


def test_overlap_by_hand():
    """Tops {0, 1} and {1, 2} share one of two. With 3, 2, 2, 1 the second place is shared by two: a half each."""
    assert evaluate.overlap(np.array([3.0, 2, 1, 0]), np.array([0.0, 3, 2, 1]), 2) == 0.5
    assert evaluate.overlap(np.array([3.0, 2, 2, 1]), np.array([3.0, 2, 1, 0]), 2) == 0.75
    assert math.isnan(evaluate.overlap(np.array([1.0, 2]), np.array([1.0, 2]), 2))


def test_what_is_taken_away_by_hand():
    """Of four that count, a quarter is one and a third is rounded up to two; ties go in the order of the text."""
    scores, counts = np.array([9.0, 1, 5, 5, 0]), np.array([False, True, True, True, True])
    deletion, insertion = erasure.removed_tokens(scores, counts, [0.25, 1 / 3])
    assert deletion == [{2}, {2, 3}]
    assert insertion == [{3, 1, 4}, {1, 4}]


# --- the stage ----------------------------------------------------------------------------------------------------


def computed(model, prompts, spec):
    stage = AttributionStage(model, prompts, spec)
    plan = stage.plan()
    units = [stage.compute(plan, unit) for unit in range(len(plan["batches"]))]
    return xr.merge([prompts.dataset(), stage.assemble(plan, units)])


@pytest.fixture(scope="module")
def decoder(tiny):
    model = tiny("llama")
    prompts = harness.load_prompts("inline", model, text=TEXTS)
    return model, prompts, computed(model, prompts, ALL)


def test_from_a_notebook_it_is_the_same(decoder):
    model, prompts, data = decoder
    got = harness.compare_attributions(model, prompts, ["rollout"], ["delete"], targets=2, special=["drop"]).data
    chosen = {"attribution_method": ["rollout"]}
    np.testing.assert_allclose(got.attribution, data.attribution.sel(chosen), atol=1e-6)
    np.testing.assert_allclose(got.cause, data.cause.sel({"cause_kind": ["delete"]}), atol=1e-5)
    assert got.agreement.sizes["policy"] == 1
    with pytest.raises(RequestError, match="^attribution.target=2: there is no such key"):
        harness.compare_attributions(model, prompts, target=2)


def test_arrays_have_the_dimensions_of_the_contract(decoder):
    _, prompts, data = decoder
    assert data.attribution.dims == ("prompt", "attribution_method", "target_position", "position")
    assert data.cause.dims == ("prompt", "cause_kind", "target_position", "position")
    assert data.explained.values[0].tolist() == [4, 10]
    for prompt, length in enumerate(prompts.length):
        for target, position in enumerate(data.explained.values[prompt]):
            seen = np.arange(data.sizes["position"]) <= position
            assert (np.isfinite(data.attribution.values[prompt, :, target]) == seen).all()
            assert position < length


def test_prompts_of_a_batch_do_not_change_each_other(decoder):
    """Each prompt alone, and in the other order."""
    model, prompts, data = decoder
    turned = computed(model, prompts.take([1, 0]), ALL)
    methods = [name for name in data.attribution_method.values if name != "random"]
    kinds = [name for name in data.cause_kind.values if name != "occlude_token"]
    for prompt in range(2):
        length = int(prompts.length[prompt])
        for name, chosen in (("attribution", {"attribution_method": methods}), ("cause", {"cause_kind": kinds})):
            a, b = (each[name].sel(chosen).isel(prompt=at) for each, at in ((data, prompt), (turned, 1 - prompt)))
            np.testing.assert_allclose(a[..., :length], b[..., :length], atol=1e-4)


def test_policies_leave_out_special_tokens_the_first_and_the_predicting_one(tiny):
    model = tiny("bert")
    prompts = harness.load_prompts("inline", model, text=TEXTS[:1])
    data = computed(model, prompts, AttributionSpec(methods=("random",), causes=("delete",), targets=1))
    keep, drop = data.counted.values[0, :, 0]
    position = int(data.explained[0, 0])
    assert keep.all()
    assert np.flatnonzero(~drop).tolist() == [0, position, data.sizes["position"] - 1]


@torch.no_grad()
def test_curves_equal_plain_forwards_with_the_tokens_replaced(tiny):
    """Deletion and insertion in the order of the scores, each text run by itself in a plain model."""
    model = tiny("gpt2")
    twin, *_ = random_models.build("gpt2", 0)
    twin.eval()
    prompts = harness.load_prompts("inline", model, text=["John gave a drink"], answer=[" Mary"])
    question = example_of(model, prompts)
    n, rng = len(question.nodes), np.random.default_rng(0)
    scores, counts = rng.normal(size=(2, 1, n)), np.ones((1, 1, n), dtype=bool)
    counts[0, 0, 0] = False
    fill, fractions = rng.integers(60, 90, size=n), (0.3, 0.6)
    grown, everything = erasure.erase(question, scores, counts, fractions, fill, each_token(question))

    def loss(gone):
        ids = prompts.token_id[0].copy()
        ids[sorted(gone)] = fill[sorted(gone)]
        return -float(twin(torch.as_tensor(ids)[None]).logits[0, -1].log_softmax(-1)[prompts.answer[0]])

    for method in range(2):
        order = [at for at in np.argsort(-scores[method, 0]).tolist() if at != 0]
        for at, fraction in enumerate(fractions):
            end = math.ceil(fraction * len(order))
            assert grown[method, 0, 0, 0, at] == pytest.approx(loss(order[:end]) - loss([]), abs=1e-4)
            assert grown[method, 0, 1, 0, at] == pytest.approx(loss(order[end:]) - loss([]), abs=1e-4)
    assert everything[0, 0] == pytest.approx(loss(range(1, n)) - loss([]), abs=1e-4)


def test_areas_by_hand(decoder):
    """Comprehensiveness is the mean of the deletion curve, the areas are of exp(−loss) by trapezoids."""
    *_, data = decoder
    one = data.isel(prompt=[0])
    found = evaluate.curves(one).isel(prompt=0).sel({"policy": "keep", "attribution_method": "rollout"})
    wanted = []
    for target in range(2):
        clean = float(one.explained_value[0, target])
        grown = one.erased.sel(attribution_method="rollout", policy="keep").isel(prompt=0, target_position=target)
        at_end = clean + float(one.erased_all.sel(policy="keep")[0, target])
        gone, kept = (clean + grown.sel(curve=name).values.astype(float) for name in ("deletion", "insertion"))
        p = {name: np.exp(-np.array([first, *curve, last])) for name, first, curve, last in
             (("deletion", clean, gone, at_end), ("insertion", at_end, kept, clean))}  # fmt: skip
        width = np.diff([0, 0.25, 0.5, 1])
        area = [((p[name][1:] + p[name][:-1]) / 2 * width).sum() for name in ("deletion", "insertion")]
        wanted.append([gone.mean() - clean, kept.mean() - clean, *area])
    names = ["comprehensiveness", "sufficiency", "deletion", "insertion"]
    np.testing.assert_allclose(found.sel(statistic=names), np.mean(wanted, 0), rtol=1e-5)


def test_agreement_is_of_the_tokens_that_count(decoder):
    *_, data = decoder
    found = evaluate.agreement(data, top=3).sel(
        {"attribution_method": "gradient", "cause_kind": "knockout", "policy": "drop"}
    )
    for prompt in range(2):
        each = []
        for target in range(2):
            position = int(data.explained[prompt, target])
            chosen = slice(1, position)  # the tiny Llama puts <s> first; the last predicts
            a = data.attribution.sel({"attribution_method": "gradient"}).values[prompt, target, chosen]
            b = data.cause.sel(cause_kind="knockout").values[prompt, target, chosen]
            each.append([scipy_stats.spearmanr(a, b).statistic, scipy_stats.kendalltau(a, b).statistic])
        np.testing.assert_allclose(found.isel(prompt=prompt, statistic=slice(0, 2)), np.mean(each, 0), atol=1e-6)


def test_by_word_the_sums_of_words_are_compared(decoder):
    """Each word's sum over its tokens, by hand; the word of the token that predicts does not count under drop."""
    *_, data = decoder
    chosen = {"attribution_method": "gradient", "cause_kind": "knockout", "policy": "drop", "statistic": "spearman"}
    found = evaluate.agreement(data, 3, "word").sel(chosen)
    for prompt in range(2):
        each, word = [], data.word.values[prompt]
        for target in range(2):
            own = word[int(data.explained[prompt, target])]
            pair = [
                [values[prompt, target, word == number].sum() for number in range(1, own)]
                for values in (
                    data.attribution.sel({"attribution_method": "gradient"}).values,
                    data.cause.sel(cause_kind="knockout").values,
                )
            ]
            each.append(scipy_stats.spearmanr(*pair).statistic if own > 2 else np.nan)
        np.testing.assert_allclose(found[prompt], np.nanmean(each), atol=1e-6)
    assert abs(found - evaluate.agreement(data, 3).sel(chosen)).max() > 0.01


def test_by_word_whole_words_are_taken_away(tiny):
    """Of the words that count the stronger half goes, each with all of its tokens."""
    model = tiny("gpt2")
    prompts = harness.load_prompts("inline", model, text=TEXTS[:1], answer=[" Mary"])
    spec = replace(
        ALL, methods=("random",), causes=("occlude_mean",), fractions=(0.5,), level="word", special=("keep",)
    )
    data = computed(model, prompts, spec)
    question, word = example_of(model, prompts), prompts.word[0]
    sums = np.bincount(word, weights=data.attribution.values[0, 0, 0].astype(float))
    strong = np.argsort(-sums, kind="stable")[: math.ceil(len(sums) / 2)]
    assert len(sums) < len(word)
    parts = [np.flatnonzero(np.isin(word, strong)).tolist(), np.flatnonzero(~np.isin(word, strong)).tolist()]
    want = occlude(question, parts, mean_embedding(model))[:, 0]
    np.testing.assert_allclose(data.erased.values.ravel(), want, atol=1e-4)


def test_words_of_an_encoder_decoder_are_those_of_its_source_and_then_those_it_writes(tiny):
    model = tiny("t5")
    prompts = harness.load_prompts("inline", model, text=["garden flower"], target=["a store"])
    source, own = prompts.source.word[0], prompts.word[0]
    parts = words_of(example_of(model, prompts))
    sides = [0] * (source.max() + 1) + [len(source)] * (own.max() + 1)
    both = np.concatenate([source, own + source.max() + 1])
    assert [both[nodes].tolist() for nodes in parts] == [[at] * len(nodes) for at, nodes in enumerate(parts)]
    assert [min(nodes) >= side for nodes, side in zip(parts, sides, strict=True)] == [True] * len(parts)
    assert sorted(node for nodes in parts for node in nodes) == list(range(len(both)))
    assert len(parts) < len(both)


def test_a_method_that_is_the_cause_agrees_with_it_fully(decoder):
    *_, data = decoder
    twin = data.copy(deep=True)
    twin["attribution"].loc[{"attribution_method": "rollout"}] = data.cause.sel(cause_kind="delete").values
    found = evaluate.agreement(twin, top=2).sel({"attribution_method": "rollout", "cause_kind": "delete"})
    assert np.nanmin(found.values) == pytest.approx(1)


def test_methods_table(decoder):
    *_, data = decoder
    table = evaluate.methods_table(data, ALL, QUICK)
    assert tuple(table.columns) == TABLES["methods"].columns
    agreement = evaluate.agreement(data, ALL.top_k)
    row = table.query("method == 'flow' and cause == 'delete' and policy == 'drop' and statistic == 'kendall'")
    want = agreement.sel(
        {"attribution_method": "flow", "cause_kind": "delete", "policy": "drop", "statistic": "kendall"}
    ).mean()
    assert float(row["mean"].iloc[0]) == pytest.approx(float(want))
    assert table.query("method == 'random'")["q_value"].isna().all()
    shares = table.query("statistic == 'first_share' and method == 'rollout'")
    first = data.attribution.sel({"attribution_method": "rollout"}).isel(position=0).mean()
    assert float(shares["mean"].iloc[0]) == pytest.approx(float(first), rel=1e-5)


def test_pairs_are_paired(decoder):
    *_, data = decoder
    table = evaluate.pairs_table(data, ALL, QUICK)
    assert tuple(table.columns) == TABLES["method_pairs"].columns
    chosen = {"cause_kind": "knockout", "policy": "keep", "statistic": "spearman"}
    found = evaluate.agreement(data, ALL.top_k).sel(chosen)
    want = float(
        (found.sel({"attribution_method": "rollout"}) - found.sel({"attribution_method": "norms"})).mean("prompt")
    )
    row = table.query(
        "method == 'rollout' and against == 'norms' and cause == 'knockout' and policy == 'keep' "
        "and statistic == 'spearman'"
    )
    assert float(row["difference"].iloc[0]) == pytest.approx(want)


def test_max_t_holds_a_difference_that_is_always_there():
    """12 prompts, one method one tenth above the other on each: found; noise without a difference: not."""
    rng = np.random.default_rng(0)
    from harness.attribution.evaluate.method_table import intervals

    same = rng.normal(0, 0.1, (12, 3))
    values = np.column_stack([0.1 + rng.normal(0, 0.02, 12), same])
    table = intervals(values, np.arange(12), StatsSpec())
    assert table["p_adjusted"][0] < 0.01
    assert (table["p_adjusted"][1:] > 0.05).all()
    np.testing.assert_allclose(table["mean"], values.mean(0))


def test_columns_known_on_other_prompts_are_told_apart():
    from harness.attribution.evaluate.method_table import intervals

    values = np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.nan], [5.0, 7.0, np.nan]])
    table = intervals(values, np.arange(3), QUICK)
    np.testing.assert_allclose(table["mean"], [3, 6, np.nan])


# --- the head that matters most -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_the_top_heads_attention_is_one_more_method(tiny, shape):
    model = tiny(shape)
    more = {"target": ["a drink to John"]} if shape == "t5" else {}
    prompts = harness.load_prompts("inline", model, text=TEXTS[:1], **more)
    spec = AttributionSpec(targets=2)
    parts = [harness.cache_attention(model, prompts).data, harness.ablate_heads(model, prompts, metrics=["loss"]).data]
    data = xr.merge([computed(model, prompts, spec), *parts], compat="no_conflicts")
    found = top_head(data)
    mean = abs(data.effect.sel(metric="loss").mean("prompt"))
    if shape == "t5":
        mean = mean.sel(stack=["decoder", "cross"])
    assert float(mean.sel(**found.place)) == pytest.approx(float(mean.max()))
    wider = with_top_head(data)
    assert wider.attribution_method.values[-1] == f"attention_{found}"
    name = "cross_pattern" if found.stack == "cross" else "pattern"
    for target, position in enumerate(wider.explained.values[0]):
        want = data[name].sel(layer=found.layer, head=found.head).values[0, position]
        kind = "source_attribution" if found.stack == "cross" else "attribution"
        got = wider[kind].isel(prompt=0, attribution_method=-1, target_position=target).values
        known = np.isfinite(got)
        np.testing.assert_allclose(got[known], want[known], atol=1e-6)
    assert with_top_head(wider).attribution_method.size == wider.attribution_method.size


def test_the_top_head_is_that_of_the_metric_that_leads(tmp_path):
    """As in the headline: by logit difference where it was measured, also where another head leads by loss."""
    data = fake_run(tmp_path).data
    effect = data["effect"].copy()
    effect.loc[{"metric": "loss", "layer": 0, "head": 1}] = 99.0
    effect.loc[{"metric": "logit_diff", "layer": 2, "head": 0}] = -50.0
    zeros = np.zeros((data.sizes["prompt"], 1, 1, data.sizes["position"]))
    scored = data.assign(
        effect=effect, attribution=(("prompt", "attribution_method", "target_position", "position"), zeros)
    )
    assert top_head(scored) == Head(2, 0)
    assert top_head(scored.sel(metric=["loss"])) == Head(0, 1)


def test_without_effects_there_is_no_top_head(decoder):
    *_, data = decoder
    assert with_top_head(data) is data


# --- in words -----------------------------------------------------------------------------------------------------


def table_of(**means):
    rows = [
        {"method": name, "cause": "knockout", "policy": "drop", "statistic": "spearman", "mean": mean,
         "ci_low": mean - 0.1, "ci_high": mean + 0.1, "q_value": q}
        for name, (mean, q) in means.items()
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(TABLES["methods"].columns))


def test_the_sentence_names_the_nearest_method_and_changes_with_the_data():
    first = table_of(rollout=(-0.2, 0.4), alti=(0.58, 0.01), random=(0.01, np.nan))
    said = nearest(first, "knockout", "drop", 0.95, 0.05, 8)
    assert said.text == (
        "alti agrees best with the measured cause (attention knockout): Spearman 0.58 (95 % interval 0.48 to 0.68), "
        "over tokens that are neither special, nor first, nor where the "
        "prediction is made; a random order 0.01 (−0.09 to 0.11), attention rollout −0.20 (−0.30 to −0.10). 1 of 2 "
        "methods differs from a random order (q < 0.05)."
    )
    assert (said.value, said.low) == (0.58, pytest.approx(0.48))
    other = nearest(table_of(rollout=(0.3, np.nan), alti=(0.1, np.nan)), "knockout", "drop", 0.95, 0.05, 8)
    assert other.text.startswith("rollout agrees best with the measured cause (attention knockout): Spearman 0.30")
    few = nearest(first, "knockout", "drop", 0.95, 0.05, 4)
    assert few.text.endswith("Whether that is beyond chance takes at least 6 clusters of prompts, here are 4.")
    assert nearest(table_of(), "knockout", "drop", 0.95, 0.05, 8) is None


# --- runs -----------------------------------------------------------------------------------------------------------

TINY = ("model=random", "prompts=ioi", "prompts.n=4", "stats.resamples=200", "attribution.ig_steps=4")


def test_a_run_of_the_runner(command, pictures):
    code, out, err = command("compare_attributions", *TINY)
    assert code == 0, err
    run = harness.open_run(out.strip().splitlines()[-1])
    assert set(run.methods["method"]) >= {"rollout", "alti", "integrated_gradients", "random"}
    assert {"attribution", "cause", "agreement", "erased", "explained"} <= set(run.data)
    assert (run.path / "method_pairs.csv").is_file()
    assert (run.path / "figures" / "methods.svg").is_file()
    assert any("agrees best with" in found.text for found in harness.findings.findings(run))
    attributes = [run.data[name].attrs["method"] for name in ("attribution", "cause", "counted", "agreement", "erased")]
    assert all(attributes)


def test_the_study_sets_rollout_mean_attention_and_the_top_head_beside_the_cause(command):
    code, out, err = command("study", *TINY)
    assert code == 0, err
    run = harness.open_run(out.strip().splitlines()[-1])
    names = run.data.attribution_method.values.tolist()
    assert names[:2] == ["attention_mean", "rollout"]
    assert names[2] == f"attention_{top_head(run.data)}"
    assert run.data.agreement.sizes["attribution_method"] == 3
    assert set(run.methods["cause"]) == {"knockout", ""}
    np.testing.assert_allclose(
        run.data.attribution.sel({"attribution_method": "rollout"}).values[0, 0, : int(run.data.length[0])],
        run.data["rollout"].values[0, int(run.data.explained[0, 0]), : int(run.data.length[0])],
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("attribution.methods=[roolout]", "attribution.methods=roolout: did you mean 'rollout'"),
        ("attribution.causes=[occlude_mask]", "attribution.causes=occlude_mask: random's tokenizer has no such token"),
        ("attribution.causes=[knockout_L9]", "attribution.causes=knockout_L9: L9 is outside random"),
        ("attribution.special=[maybe]", "attribution.special.0=maybe: "),
        ("attribution.fractions=[1.5]", "attribution.fractions.0=1.5: input should be less than 1"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_written(command, tmp_path, override, message):
    code, _, err = command("compare_attributions", *TINY, override)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_alti_is_refused_by_name_and_left_out_of_all(tiny):
    model = tiny("neox")
    prompts = harness.load_prompts("inline", model, text=TEXTS[:1])
    assert "alti" not in AttributionStage(model, prompts, ALL).methods
    with pytest.raises(RequestError, match="attribution.methods=alti: the terms of random's attention do not sum"):
        AttributionStage(model, prompts, AttributionSpec(methods=("rollout", "alti")))


def test_a_cause_that_cannot_be_is_refused_before_anything_is_planned(tiny):
    model = tiny("llama")
    prompts = harness.load_prompts("inline", model, text=TEXTS[:1])
    with pytest.raises(RequestError, match="attribution.causes=knockout_L9H0: L9H0 is outside random"):
        AttributionStage(model, prompts, AttributionSpec(methods=("rollout",), causes=("knockout_L9H0",)))
