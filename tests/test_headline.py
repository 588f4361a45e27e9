"""The headline of a report: what it states, beside the arrays and the table that it is about."""

from dataclasses import replace

import numpy as np
import pytest
from fakes import fake_run, with_claims

from harness.findings import headline
from harness.findings.finding import Finding
from harness.findings.format import rounded
from harness.hooks import Head


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Eight clusters, enough to show effects."""
    run = fake_run(tmp_path_factory.mktemp("headline"), n_prompts=8)
    cluster = run.data["cluster"].copy(data=[f"template {at}" for at in range(8)])
    return with_claims(replace(run, data=run.data.assign(cluster=cluster)))


def mean(run, head, metric="logit_diff"):
    return float(run.effect(metric, Head.parse(head)).mean())


def ablated_by(run, name, **others):
    return replace(run, spec={**run.spec, "ablation": {"name": name, **others}})


def test_a_lead_that_falls_is_stated_beside_the_clean_lead(run):
    clean = float(run.data["clean"].sel(metric="logit_diff").mean())
    said = headline.of_effects(run)
    assert said.text == (
        f"Without L1H2 the right answer’s lead falls by {rounded(-mean(run, 'L1H2'))} of {rounded(clean)} logits."
    )
    assert said.head == Head(1, 2)


def test_the_line_beneath_has_the_tables_interval_turned_as_the_sentence_is(run):
    row = run.heads.query("metric == 'logit_diff' and layer == 1 and head == 2").iloc[0]
    low, high = sorted((-row["ci_low"], -row["ci_high"]))
    said = headline.of_effects(run).detail
    assert said.startswith(f"95 % interval {low:#.3g} to {high:#.3g}, same direction on 8 of 8 prompts, max-T p ")


@pytest.mark.parametrize(
    ("spec", "start"),
    [
        ({"name": "mean"}, "With L1H2 replaced by its mean the"),
        ({"name": "resample"}, "With L1H2 resampled from other prompts the"),
        ({"name": "patch"}, "With L1H2 patched from the corrupted prompt the"),
        ({"name": "scale", "factor": 0.5}, "With L1H2 multiplied by 0.5 the"),
    ],
)
def test_the_sentence_names_the_ablation(run, spec, start):
    assert headline.of_effects(ablated_by(run, **spec)).text.startswith(start)


def test_the_strongest_head_that_is_not_shown_does_not_lead(run):
    first = (run.heads["layer"] == 1) & (run.heads["head"] == 2)
    doubted = replace(run, heads=run.heads.assign(p_adjusted=np.where(first, 0.5, run.heads["p_adjusted"])))
    said = headline.of_effects(doubted)
    assert said.text.startswith("Without L2H3 the right answer’s lead rises by ")
    assert said.head == Head(2, 3)
    assert said.detail.endswith(" As large, but not shown: L1H2.")
    assert "As large" not in headline.of_effects(run).detail


def test_where_no_head_is_shown_the_headline_says_so_first(run):
    said = headline.of_effects(replace(run, heads=run.heads.assign(p_adjusted=0.4)))
    assert said.text == "No head is shown to matter for logit_diff."
    assert said.head is None
    assert said.detail.startswith("The largest effect is L1H2’s, −2.")
    assert said.detail.endswith(", max-T p 0.4.")


def test_too_few_clusters_are_said_before_anything_else(tmp_path):
    said = headline.of_effects(with_claims(fake_run(tmp_path, n_prompts=2)))
    assert said.text == "Too few prompts to show that any head matters."
    assert said.detail.startswith("With 2 clusters of prompts nothing can be significant at the level 0.05: ")
    assert "The largest effect on logit_diff is L1H2’s" in said.detail


def test_the_figures_are_those_of_the_table(run):
    right, important, opposed = headline.figures(run)
    clean = run.data["clean"].sel(metric="logit_diff").values
    table = run.heads.query("metric == 'logit_diff'")
    assert right.number == f"{(clean > 0).sum()} / 8"
    assert important.number == f"{int(table['important'].sum())} of {len(table)}"
    against = table[(table["p_adjusted"] < 0.05) & (table["effect_mean"] > 0)].sort_values("rank").iloc[0]
    assert opposed.head == Head(int(against["layer"]), int(against["head"]))
    assert opposed.side == "hurts"


def test_the_direct_part_is_beside_the_whole(run):
    direct = run.data["effect"] * 0.25
    shown = headline.figures(replace(run, data=run.data.assign(direct=direct)))[-1]
    part, whole = (float(text.replace("−", "-")) for text in shown.number.split(" of "))
    assert part == pytest.approx(0.25 * whole, rel=0.01)
    assert whole == pytest.approx(mean(run, "L1H2"), rel=0.01)


def test_a_distance_moves_and_neither_helps_nor_hurts(tmp_path):
    run = fake_run(tmp_path, metrics=["kl"], n_prompts=6)
    run = replace(run, data=run.data.assign(effect=abs(run.data["effect"])))
    said = headline.of_effects(run)
    assert said.text.startswith("Without L1H2 the prediction moves by ")
    assert said.text.endswith(", the most of 12 heads.")
    assert "direction" not in said.detail


def test_a_distance_led_by_a_smaller_head_is_not_the_most_of_all(tmp_path):
    run = fake_run(tmp_path, metrics=["kl"], n_prompts=8)
    run = with_claims(replace(run, data=run.data.assign(effect=abs(run.data["effect"]))))
    second = run.top_heads("kl", 2)[1]
    mine = (run.heads["layer"] == second.layer) & (run.heads["head"] == second.head)
    said = headline.of_effects(replace(run, heads=run.heads.assign(p_adjusted=np.where(mine, 0.001, 0.5))))
    assert said.head == second
    assert said.text.endswith(", the most of the heads shown to matter.")


def test_what_was_not_tested_says_so(tmp_path):
    one = headline.of_effects(fake_run(tmp_path, n_prompts=1))
    assert one.detail == "Same direction on 1 of 1 prompt, not tested against chance."


def test_a_finding_becomes_its_first_sentence_and_the_rest():
    said = headline.of_finding(Finding("L1H2 helps most. Next: L0H1.", 1, 0, 2, "effect"))
    assert (said.text, said.detail) == ("L1H2 helps most.", "Next: L0H1.")
    assert headline.of_finding(Finding("Only p < 0.05 counts.", 1, 0, 2, "effect")).text == "Only p < 0.05 counts."


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.58, "2.6"),
        (4.98, "5.0"),
        (0.0512, "0.051"),
        (12.34, "12"),
        (1234.5, "1234"),
        (0, "0"),
        (-2.58, "−2.6"),
        (1e-5, "1.0e-05"),
    ],
)
def test_a_headline_has_two_digits(value, text):
    assert rounded(value) == text
