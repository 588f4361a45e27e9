"""The harness on models whose truth is known: it finds what was planted and nothing else."""

import numpy as np
import pytest
from thinned import most, seeds

import harness
from harness.config import StatsSpec
from harness.hooks import Head
from harness.sweep.head_table import heads_table

SEEDS = seeds(20)
STATS = StatsSpec(resamples=2000)


def planted(variant, seed, n=12):
    """A planted model and its task, of a length at which everything planted is scored."""
    model = harness.load_model("planted", variant=variant, seed=seed)
    return model, harness.load_prompts("induction", model, n=n, length=18, seed=seed)


def circuit(model):
    return {head for role in ("previous_token", "induction") for head in model.truth[role]}


def important(effects, metric="loss"):
    table = heads_table(effects, STATS)
    chosen = table[(table.metric == metric) & (table.important.fillna(False).astype(bool))]
    return {Head(row.layer, row.head) for row in chosen.itertuples()}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("variant", ["sharp", "soft"])
def test_the_important_heads_are_the_planted_ones_and_no_others(variant, seed):
    model, prompts = planted(variant, seed)
    effects = harness.ablate_heads(model, prompts, metrics=["loss"]).data
    assert important(effects) == circuit(model)
    others = [head for head in model.heads() if head not in circuit(model)]
    most = max(float(abs(effects.effect.sel(head.place)).max()) for head in others)
    assert most < (1e-6 if variant == "sharp" else 0.1)


def test_what_is_said_of_the_variants_is_true():
    for variant, low, high in (("sharp", 0, 1e-3), ("soft", 0.2, 0.5)):
        model, prompts = planted(variant, 0)
        assert low <= float(harness.ablate_heads(model, prompts, heads=["L0H0"]).data.clean.mean()) <= high


@pytest.mark.parametrize("seed", SEEDS)
def test_a_harmful_head_is_found_with_its_sign(seed):
    model, prompts = planted("harmful", seed)
    effects = harness.ablate_heads(model, prompts, metrics=["loss"]).data
    (harmful,) = model.truth["harmful"]
    mean = effects.effect.mean("prompt")[0]
    assert important(effects) == circuit(model) | {harmful}
    assert float(mean.sel(harmful.place)) < 0
    assert all(float(mean.sel(head.place)) > 0 for head in circuit(model))


@pytest.mark.parametrize("seed", seeds(20, first=1))
def test_a_positional_head_is_found_with_its_position(seed):
    model, prompts = planted("positional", seed)
    (head,) = model.truth["positional"]
    each = harness.ablate_heads(model, prompts, metrics=["loss"], heads=[head], positions="each").data.position_effect
    by_position = each.mean("prompt").sel(head.place)[0].values
    where = model.identity["position"]
    assert int(np.abs(by_position).argmax()) == where
    assert by_position[where] > 0.05
    assert np.abs(np.delete(by_position, where)).max() < 1e-4
    assert head in important(harness.ablate_heads(model, prompts, metrics=["loss"]).data)


@pytest.mark.parametrize("seed", SEEDS)
def test_redundant_heads_show_nothing_singly_and_all_jointly(seed):
    model, prompts = planted("redundant", seed, n=4)
    both = model.truth["redundant"]
    assert len(both) == 2
    single = harness.ablate_heads(model, prompts, metrics=["loss"]).data
    assert float(abs(single.effect).max()) < 1e-3
    joint = harness.ablate_heads(
        model, prompts, metrics=["loss"], kind="set", sets={"both": both, "one": both[:1]}
    ).data
    assert float(joint.set_effect.sel(set="both").mean()) > 3
    assert float(abs(joint.set_effect.sel(set="one")).max()) < 1e-3


def test_the_direct_effect_is_the_induction_heads_alone():
    """It alone writes into what is unembedded; the previous-token head works through it."""
    model, prompts = planted("sharp", 3)
    got = harness.ablate_heads(model, prompts, metrics=["loss"]).data
    direct, total = (got[name].mean("prompt")[0] for name in ("direct", "effect"))
    (previous,), (induction,) = model.truth["previous_token"], model.truth["induction"]
    assert float(direct.sel(induction.place)) == pytest.approx(float(total.sel(induction.place)), rel=1e-3)
    assert abs(float(direct.sel(previous.place))) < 1e-5 < float(total.sel(previous.place))


@pytest.mark.parametrize("seed", seeds(5, first=2))
@pytest.mark.parametrize("variant", most(["soft", "sharp"], 1))
def test_a_distance_beats_random_edits_of_the_same_size_for_the_planted_heads(variant, seed):
    model, prompts = planted(variant, seed, n=32)
    table = heads_table(harness.ablate_heads(model, prompts, metrics=["kl"]).data, STATS)
    beyond = {Head(row.layer, row.head) for row in table[table.p_adjusted < 0.05].itertuples()}
    assert circuit(model) <= beyond
    if variant == "sharp":  # the bystanders of the other do a little
        assert beyond == circuit(model)


def test_the_truth_is_of_the_seed():
    assert harness.load_model("planted", seed=3).truth == {"previous_token": [Head(0, 2)], "induction": [Head(1, 5)]}
    assert len({str(harness.load_model("planted", seed=seed).truth) for seed in range(10)}) > 5


def test_words_that_it_does_not_know_are_refused():
    model = harness.load_model("planted")
    with pytest.raises(harness.RequestError, match="planted has no tokens for these words"):
        harness.load_prompts("inline", model, text=[" ba hello"])
    assert harness.load_prompts("inline", model, text=[" ba bo ki"]).length.tolist() == [4]
