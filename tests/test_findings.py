"""The sentences follow the data: change a number and the text changes with it."""

from dataclasses import replace

import numpy as np
import pytest
from fakes import fake_run, with_claims

from harness.attribution.saved_rollout import rollout_of
from harness.findings import findings, in_words
from harness.findings.format import chance, number, signed
from harness.hooks import Head
from harness.stats import summarize


def texts(run):
    return [finding.text for finding in findings(run)]


def with_effect(run, change):
    effect = run.data["effect"].copy()
    change(effect)
    return replace(run, data=run.data.assign(effect=effect))


def test_strongest_heads_are_named_with_number_spread_and_sign(tmp_path):
    run = fake_run(tmp_path, n_prompts=4)
    values = run.data["effect"].sel(metric="loss", layer=1, head=2).values.astype(float)
    error = values.std(ddof=1) / 2  # the square root of four prompts
    assert (
        f"By loss, L1H2 helps most: ablating it changes the mean by +{values.mean():.3g} ± {error:.2g} nats (standard "
        "error), in the same direction on 4 of 4 prompts. Next: "
    ) in " ".join(texts(run))
    assert any(text.startswith("By loss, L2H3 hurts most: ablating it changes the mean by −") for text in texts(run))


def test_the_head_named_changes_with_the_effects(tmp_path):
    run = fake_run(tmp_path)
    other = with_effect(run, lambda effect: effect.values[0, :, 0, 1].fill(9.0))
    assert any(
        text.startswith("By loss, L0H1 helps most: ablating it changes the mean by +9.00") for text in texts(other)
    )
    assert set(texts(other)) != set(texts(run))


def test_an_interval_in_the_table_is_used_and_named(tmp_path):
    run = fake_run(tmp_path)
    heads = run.heads.assign(ci_low=1.5, ci_high=2.5)
    assert any("(95 % interval +1.50 to +2.50)" in text for text in texts(replace(run, heads=heads)))
    assert not any("interval" in text for text in texts(run) if not text.startswith("Unablated"))
    found = next(f for f in findings(replace(run, heads=heads)) if f.text.startswith("By loss, L1H2"))
    assert (found.low, found.high) == (1.5, 2.5)


def test_one_prompt_has_no_spread(tmp_path):
    said = texts(fake_run(tmp_path, n_prompts=1))
    assert any("(one prompt, so no spread)" in text for text in said)
    assert not any("nan" in text or "±" in text for text in said)


def test_how_often_the_model_is_right(tmp_path):
    run = fake_run(tmp_path, n_prompts=3)
    clean = run.data["clean"].copy()
    clean.loc[{"metric": "logit_diff"}] = [4.0, -1.0, 3.0]
    said = texts(replace(run, data=run.data.assign(clean=clean)))
    assert any("logit_diff is 2.00 logits (" in text and "preferred on 2 of 3 prompts" in text for text in said)


def test_the_clean_value_has_the_interval_of_its_clusters(tmp_path):
    """Forty prompts of four templates that differ by template alone are worth four, not forty."""
    run = fake_run(tmp_path, n_prompts=40)
    clean, cluster = run.data["clean"].copy(), np.repeat(list("abcd"), 10)
    clean.loc[{"metric": "logit_diff"}] = np.repeat([1.0, 2.0, 3.0, 6.0], 10)
    run = replace(run, data=run.data.assign(clean=clean, cluster=("prompt", cluster)))
    found = next(each for each in findings(run) if "mean logit_diff is 3.00 logits" in each.text)
    table = summarize(clean.sel(metric="logit_diff").values[:, None, None], cluster)
    assert (found.low, found.high) == (table["ci_low"][0], table["ci_high"][0])
    assert found.high - found.low > 2


def test_how_many_heads_move_the_metric(tmp_path):
    run = fake_run(tmp_path)

    def three_heads(effect):
        effect[...] = 0.0
        effect.loc[{"metric": "loss", "layer": 0, "head": [0, 1, 2]}] = 1.0

    assert any(
        text.startswith("3 of 12 heads move the mean loss by more than 5 %")
        for text in texts(with_effect(run, three_heads))
    )


def test_rankings_agree_with_themselves_and_not_when_shuffled(tmp_path):
    run = fake_run(tmp_path)

    def same(effect):
        effect.loc[{"metric": "logit_diff"}] = -effect.sel(metric="loss").values

    found = next(f for f in findings(with_effect(run, same)) if "Spearman" in f.text)
    assert found.value == pytest.approx(1)
    assert found.text.endswith("correlation of 1.00; both put L1H2 first.")
    assert next(f for f in findings(run) if "Spearman" in f.text).value < 1


def test_a_distance_matters_and_has_no_direction(tmp_path):
    said = texts(fake_run(tmp_path, metrics=("kl",)))
    assert said[0].startswith("By kl, L1H2 matters most: ablating it changes the mean by +")
    assert not any("helps" in text or "hurts" in text or "direction" in text for text in said)


def test_rollout_and_the_top_head_on_the_same_token(tmp_path):
    run = fake_run(tmp_path, n_prompts=3)
    sink = np.zeros(run.data["pattern"].shape)
    sink[..., 0] = 1.0  # every head looks at the first token, and so does the rollout
    agreed = replace(run, data=run.data.assign(pattern=run.data["pattern"].copy(data=sink)))
    assert texts(agreed)[-1] == (
        "From the last scored position, attention rollout looks most at the first token on 3 of 3 prompts (mean weight "
        "0.88), and L1H2 (largest effect on logit_diff) at the first token on 3 of 3 prompts (mean weight 1.00). They "
        "look most at the same token on 3 of 3."
    )


@pytest.mark.parametrize(
    ("key", "seen"),
    [
        (1, "the right answer’s token (its first occurrence)"),
        (3, "the wrong answer’s token"),
        (4, "“went”"),
        (5, "the right answer’s token (its second occurrence)"),
        (6, "the token before it"),
        (7, "that position itself"),
    ],
)
def test_where_a_head_looks_is_said_in_words(tmp_path, key, seen):
    run = fake_run(tmp_path, tokens=[["When", " Mary", " and", " John", " went", " Mary", ",", " to"]] * 2)
    looks = np.zeros(run.data["pattern"].shape)
    looks[..., key] = 1.0
    run = replace(run, data=run.data.assign(pattern=run.data["pattern"].copy(data=looks)))
    assert f"(largest effect on logit_diff) at {seen} on 2 of 2 prompts (mean weight 1.00)." in texts(run)[-1]


def test_the_answer_comes_first_and_the_metric_of_the_behaviour_leads(tmp_path):
    run = fake_run(tmp_path, n_prompts=40)
    data = run.data.assign(cluster=("prompt", [f"template {i}" for i in range(40)]))
    said = texts(with_claims(replace(run, data=data)))
    assert [" ".join(text.split()[:3]) for text in said[:2]] == ["By logit_diff, L1H2", "By loss, L1H2"]
    assert "95 % interval" in said[0]


def test_heads_are_counted_against_chance_with_all_tests_together(tmp_path):
    run = with_claims(fake_run(tmp_path, n_prompts=40))
    loss = run.heads[run.heads["metric"] == "loss"]
    sure, important = (loss["p_adjusted"] < 0.05).sum(), loss["important"].sum()
    assert any(
        text.startswith(
            f"By loss, {sure} of 12 heads are shown to have an effect (max-T p < 0.05 against chance, all heads taken "
            "together) and "
        )
        and f" and {important} important (shown, all heads taken together, to be beyond ±5 % of the clean value, ±0.02"
        in text
        and text.endswith(
            f"{(loss['p_value'] < 0.05).sum()} have p < 0.05; if no head had an effect, at most 0.6 would on average."
        )
        for text in texts(run)
    )


def test_only_heads_beyond_chance_are_named_where_heads_were_tested(tmp_path):
    run = with_claims(fake_run(tmp_path, n_prompts=6))
    heads = run.heads.assign(p_adjusted=0.3)
    said = texts(replace(run, heads=heads))
    assert said[1].startswith(
        "By logit_diff, no head is shown to help (max-T p < 0.05); the largest such effect is L1H2's, −"
    )
    assert "max-T p 0.3" in said[1]
    only = heads["p_adjusted"].where((heads["layer"] != 0) | (heads["head"] != 1), 0.01)
    assert "Next" not in texts(replace(run, heads=heads.assign(p_adjusted=only)))[1]


def test_heads_with_effects_as_large_that_are_not_shown_are_named_as_such(tmp_path):
    """L0H1 has the largest effect and a p of 0.3, L1H2 and L2H0 are shown: the sentence must not skip the first."""
    run = with_claims(fake_run(tmp_path, n_prompts=40))

    def change(effect):
        effect[...] = 0.0
        for layer, head, size in ((0, 1, 5.0), (1, 2, 4.0), (2, 0, 2.0), (2, 1, 3.0), (0, 0, 1.0)):
            effect.loc[{"metric": "loss", "layer": layer, "head": head}] = size

    shown_ones = run.heads["layer"].isin([1, 2]) & run.heads["head"].isin([2, 0])
    heads = run.heads.assign(p_adjusted=np.where(shown_ones, 0.001, 0.3), ci_low=np.nan)
    run = replace(with_effect(run, change), heads=heads)
    said = next(text for text in texts(run) if text.startswith("By loss, L1H2 helps most"))
    assert (
        "of the heads that are shown to have an effect (max-T p < 0.05): ablating it changes the mean by +4.00" in said
    )
    assert "Next: L2H0 +2.00" in said
    assert said.endswith(" As large, but not shown: L0H1 +5.00, max-T p 0.3 and L2H1 +3.00, max-T p 0.3.")
    assert run.shown("loss") >= {Head(1, 2), Head(2, 0)}
    assert run.verdict("loss", Head(0, 1)) == "unsure"
    assert run.verdict("loss", Head(1, 2)) == "helps"
    assert run.verdict("loss", Head(0, 3)) == "no effect"


def test_effects_that_sum_to_more_than_there_is_are_said_not_to_add_up(tmp_path):
    run = fake_run(tmp_path)

    def change(effect):
        effect[...] = 0.0
        effect.loc[{"metric": "logit_diff", "layer": 0, "head": [0, 1, 2]}] = -2.0
        effect.loc[{"metric": "logit_diff", "layer": 1, "head": 0}] = 1.0

    clean = run.data["clean"].copy()
    clean.loc[{"metric": "logit_diff"}] = 5.0
    more = replace(run, data=run.data.assign(clean=clean))
    said = "Effects of single heads do not add up: of the 5 largest on logit_diff, those that help sum to 6.00 logits, "
    assert f"{said}and the clean mean is 5.00." in texts(with_effect(more, change))
    clean.loc[{"metric": "logit_diff"}] = 7.0
    assert not any("do not add up: of the 5 largest on logit_diff" in text for text in texts(with_effect(more, change)))


def test_few_clusters_are_said(tmp_path):
    run = with_claims(fake_run(tmp_path, n_prompts=6))  # four templates
    assert texts(run)[0] == (
        "With 4 clusters of prompts nothing can be significant at the level 0.05: a test that flips the signs of whole "
        "clusters needs 6."
    )


def test_what_the_tests_take_for_granted_is_said(tmp_path):
    """64 clusters, one of them a quarter of the prompts: worth 13.7 of equal size."""
    run = fake_run(tmp_path, n_prompts=253)
    cluster = np.repeat(np.arange(64), [64, *[3] * 63])
    claimed = with_claims(replace(run, data=run.data.assign(cluster=("prompt", cluster))))
    says = "64 clusters, 13.7 effective: with fewer than 32, p holds only if effects are about symmetric."
    assert texts(claimed)[-1] == f"How far to trust p by logit_diff and loss: {says}"
    equal = with_claims(replace(run, data=run.data.assign(cluster=("prompt", np.arange(253)))))
    assert not any(text.startswith("How far to trust") for text in texts(equal))


def test_runs_with_one_part_only(tmp_path):
    patterns, effects = fake_run(tmp_path, parts=("pattern",)), fake_run(tmp_path, parts=("effect",))
    assert findings(patterns) == []
    assert in_words(patterns).endswith("Attention patterns were kept; no head was ablated.")
    assert findings(effects)
    assert not any("rollout" in text for text in texts(effects))


def test_heads_that_were_not_ablated_are_left_out(tmp_path):
    run = fake_run(tmp_path)
    some = with_effect(run, lambda effect: effect.values[:, :, :2].fill(np.nan))
    assert some.top_heads("loss", 99)[0] == Head(2, 3)
    assert len(some.top_heads("loss", 99)) == 4
    assert "4 heads were ablated one at a time (zero-ablation)" in in_words(some)


def test_what_was_run_in_words(tmp_path):
    run = fake_run(tmp_path, lengths=[5, 8])
    assert in_words(run) == (
        "smollm2 (3 layers × 4 heads) read 2 prompts of the set ioi, 5 to 8 tokens each, such as “When Mary and John "
        "went” (right answer “Mary”, wrong “John”). 12 heads were ablated one at a time (zero-ablation), and "
        "logit difference and loss were measured on each prompt."
    )


def test_rollout_uses_the_runs_options(tmp_path):
    run = fake_run(tmp_path)
    spec = {**run.spec, "attribution": {"rollout": {"residual": 1.0}}}
    np.testing.assert_allclose(rollout_of(replace(run, spec=spec), 0), np.eye(8))


@pytest.mark.parametrize(
    ("metric", "effect", "word"),
    [
        ("loss", 1.0, "helps"),
        ("loss", -1.0, "hurts"),
        ("logit_diff", -1.0, "helps"),
        ("accuracy", 0.1, "hurts"),
        ("kl", 1.0, "matters"),
        ("mine", 1.0, "matters"),
        ("loss", 0.0, "no effect"),
        ("kl", 1e-9, "no effect"),
    ],
)
def test_helps_and_hurts(tmp_path, metric, effect, word):
    assert (fake_run(tmp_path)).side(metric, effect) == word


def test_numbers_are_written_for_readers():
    assert [number(v) for v in (0.0, 1.0, 2.6117, 123.4, 1234.5, 0.00001234)] == [
        "0",
        "1.00",
        "2.61",
        "123",
        "1234",
        "1.23e-05",
    ]
    assert [chance(p) for p in (0.0001, 0.0123, 1.0)] == ["p < 0.001", "p 0.012", "p 1"]
    assert [signed(v) for v in (0.0, 2.6117, -2.6117)] == ["0", "+2.61", "−2.61"]


def test_a_weak_head_is_said_to_need_more_prompts(tmp_path):
    run = fake_run(tmp_path, n_prompts=6)
    noise = np.array([3.0, -2.0, 2.0, -2.5, 1.0, -1.0])

    def weak(effect):
        effect[...] = 0.0
        effect.loc[{"metric": "logit_diff", "layer": 1, "head": 2}] = noise

    run = with_claims(with_effect(run, weak))
    data = run.data.assign(cluster=("prompt", [f"template {number}" for number in range(6)]))
    said = texts(with_claims(replace(run, data=data)))[0]
    standard_error = noise.std(ddof=1) / np.sqrt(6)
    needed = 6 * (1.959964 * standard_error / noise.mean()) ** 2
    assert f"about {np.ceil(needed):.0f} such prompts would separate it from zero" in said
