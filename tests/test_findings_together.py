"""Sentences about heads ablated together: on arrays made by hand, so that what must be said is known."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from fakes import fake_run

from harness import stats
from harness.findings.joint_ablations import together

N = 8
NOISE = np.linspace(-0.01, 0.01, N)


@pytest.fixture
def run(tmp_path):
    """Eight prompts in four clusters, clean loss 2, and nothing ablated yet."""
    made = fake_run(tmp_path, n_prompts=N, metrics=("loss",))
    clean = xr.DataArray(np.full((1, N), 2.0), dims=("metric", "prompt"))
    return replace(made, data=made.data.drop_vars(["effect", "ablated"]).assign(clean=clean))


def holding(run, name, means, dims, coords, attrs=None, others=None):
    """The run with an array [metric, prompt, …] of these means, a little different on each prompt."""
    values = np.asarray(means)[None, None] + NOISE.reshape(1, N, *[1] * np.ndim(means))
    array = xr.DataArray(values, dims=("metric", "prompt", *dims), coords=coords, attrs=attrs or {})
    return replace(run, data=run.data.assign({name: array, **(others or {})}))


def interval_of(run, mean):
    row = stats.summarize((mean + NOISE)[:, None, None], run.data["cluster"].values).iloc[0]
    return row["ci_low"], row["ci_high"]


# --- sets -------------------------------------------------------------------------------------------------------


def with_sets(run, means, kept, names=("few", "many")):
    attrs = {"together": "all heads but those of a set, which is kept" if kept else "the heads of a set"}
    spec = {**run.spec, "sets": {names[0]: ["L0H1", "L1"], names[1]: [f"L{at}" for at in range(9)]}}
    return holding(replace(run, spec=spec), "set_effect", means, ["set"], {"set": list(names)}, attrs)


def test_sets_are_told_the_largest_first_with_their_intervals(run):
    few, many = 0.5, -1.5
    told = list(together(with_sets(run, [few, many], kept=False)))
    assert [finding.value for finding in told] == pytest.approx([many, few])
    assert [(f.low, f.high) for f in told] == [pytest.approx(interval_of(run, mean)) for mean in (many, few)]
    assert told[0].text.startswith("By loss, with many ablated together the mean changes by −1.50 nats (95 % interval ")
    assert told[1].text.startswith("By loss, with few (L0H1 and L1) ablated together the mean changes by +0.500 nats (")


@pytest.mark.parametrize(
    ("mean", "end"),
    [
        (0.05, "the whole interval is within ±5 % of the clean value: the set is enough."),
        (0.1, "the whole interval is not within ±5 % of the clean value: that the set is enough is not shown."),
        (3.0, "the whole interval is not within ±5 % of the clean value: that the set is enough is not shown."),
    ],
)
def test_a_kept_set_is_enough_only_where_the_whole_interval_is_close_to_clean(run, mean, end):
    """5 % of a clean loss of 2 is 0.1; the interval of 0.1 is about 0.1 ± 0.005."""
    (told, _) = sorted(together(with_sets(run, [mean, 9.0], kept=True)), key=lambda finding: finding.value)
    assert "with few (L0H1 and L1) kept and all other heads ablated the mean changes by" in told.text
    assert told.text.endswith(end)


# --- one head after another -------------------------------------------------------------------------------------

CURVES = {
    "effect": [1.0, 2.1, 3.0, 4.0],
    "greedy": [2.5, 3.0, 3.5, 4.0],
    "random 1": [0.0, 0.0, 2.5, 4.0],
    "random 2": [0.0, -1.0, -1.5, 1.0],
}
SPARED = {
    "effect": [0.01, 0.02, -0.3, 0.0],
    "greedy": [0.01, 0.02, 0.03, 0.05],
    "random 1": [3.0, 0.0, 0.0, 0.0],
    "random 2": [3.0, 0.0, 0.0, 0.0],
}


def with_orders(run, curves, first):
    heads = xr.DataArray([["L0H0", "L0H1", "L1H0", "L1H1"]] * 4, dims=("order", "step"))
    coords = {"order": list(curves), "step": [1, 2, 3, 4]}
    others = {"cumulative_head": heads}
    means = np.array(list(curves.values()))
    return holding(run, "cumulative_effect", means, ["order", "step"], coords, {"first": first}, others)


def test_heads_that_are_needed_most_are_counted_to_half_of_the_largest_change(run):
    by_effect, greedy = together(with_orders(run, CURVES, "most_needed"))
    assert (by_effect.value, greedy.value) == (2, 1)
    low, high = interval_of(run, 2.1)
    assert by_effect.text == (
        "By loss, ablated in order of their single effects (the most needed first), 2 heads (L0H0 and L0H1) take the "
        f"mean beyond half of the largest change of all orders (±2.00): +2.10 nats (95 % interval +{low:.2f} to "
        f"+{high:.2f}); of 2 random orders 1 gets there with 3, the others not within 4."
    )
    assert "ablated greedily, measured again after each (the most needed first), 1 head (L0H0) takes" in greedy.text


def test_heads_that_are_needed_least_are_counted_while_little_changes(run):
    by_effect, greedy = together(with_orders(run, SPARED, "least_needed"))
    assert (by_effect.value, greedy.value) == (2, 4)
    assert (
        "2 heads (L0H0 and L0H1) can go before the mean is beyond ±5 % of its clean value; L1H0 with them changes it "
        "by −0.300 nats (95 %"
    ) in by_effect.text
    assert by_effect.text.endswith("of 2 random orders 2 get there with 1.")
    assert "4 heads (L0H0, L0H1, L1H0 and L1H1) can go" in greedy.text
    assert "all that were tried change it by +0.0500 nats" in greedy.text


# --- pairs ------------------------------------------------------------------------------------------------------


def with_pairs(run, joint, alone, metric="loss"):
    ends = {"head_a": ("pair", ["L0H0", "L0H0"]), "head_b": ("pair", ["L0H1", "L1H2"])}
    joint, alone = np.asarray(joint), np.asarray(alone)
    made = holding(run, "pair_difference", joint - alone, ["pair"], ends)
    made = holding(made, "pair_effect", joint, ["pair"], ends)
    made = holding(made, "pair_sum", alone, ["pair"], ends)
    return replace(made, data=made.data.assign_coords(metric=[metric]))


@pytest.fixture
def many(tmp_path):
    """The same, each prompt a cluster of its own: enough of them for a test."""
    made = fake_run(tmp_path, n_prompts=N, metrics=("loss",))
    data = made.data.drop_vars(["effect", "ablated"])
    data = data.assign(clean=(("metric", "prompt"), np.full((1, N), 2.0)), cluster=("prompt", np.arange(N)))
    return replace(made, data=data)


@pytest.mark.parametrize(
    ("joint", "alone", "means"),
    [
        (3.0, 0.5, "they back each other up"),
        (2.0, 4.5, "their effects overlap, or one works through the other"),
    ],
)
def test_the_pair_that_differs_most_from_its_sum_is_told(many, joint, alone, means):
    (told,) = together(with_pairs(many, [0.7, joint], [0.7, alone]))
    beyond = f"{'+' if joint > alone else '−'}2.50"
    assert told.value == pytest.approx(joint - alone)
    assert told.text.startswith(
        f"By loss, L0H0 and L1H2 ablated together do +{joint:.2f} nats, one by one +{alone:#.3g} in sum: {beyond} nats"
    )
    assert f"; {means}. 1 of 2 pairs differs from the sum beyond chance (max-T p < 0.05)." in told.text


def test_a_pair_that_may_be_chance_is_told_as_such(run):
    (told,) = together(with_pairs(run, [0.0, 0.001], [0.0, 0.0]))
    assert "; this may be chance. 0 of 2 pairs differ from the sum" in told.text


def test_differences_of_distances_are_not_tested(many):
    data = many.data.assign_coords(metric=["kl"])
    (told,) = together(with_pairs(replace(many, data=data), [0.0, 3.0], [0.0, 0.5], metric="kl"))
    assert "max-T" not in told.text
    assert told.value == pytest.approx(2.5)


def test_a_run_without_them_says_nothing_of_them(tmp_path):
    assert list(together(fake_run(tmp_path))) == []
    assert list(together(fake_run(tmp_path, parts=("pattern",)))) == []
