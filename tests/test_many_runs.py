"""Many runs as one answer: settings, agreement with its ceiling, pooled means, and what cannot be compared."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import optimize, stats
from thinned import most

import harness
from harness.compare.many_runs import Runs, open_runs, split_half
from harness.config import RequestError, run_folders
from harness.stats.random_effects import random_effects, variance_of_mean
from harness.views.figures.many_runs import columns_of
from harness.views.many_runs_page import count_important, write_collected
from tests.fakes import fake_run, with_claims


def ranked(values):
    """Kendall's tau-b of two lists of sizes, by counting pairs."""
    a, b = np.abs(values)
    pairs = list(combinations(range(len(a)), 2))
    signs = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i, j in pairs]
    total = sum(x * y for x, y in signs)
    untied = [sum(s[at] != 0 for s in signs) for at in (0, 1)]
    return total / np.sqrt(untied[0] * untied[1])


# --- the pooled mean ----------------------------------------------------------------------------------------------


def test_the_random_effects_mean_is_paule_mandels_with_hartung_knapps_interval():
    rng = np.random.default_rng(0)
    mean, variance = rng.normal(1, 1.5, size=(6, 1)), rng.uniform(0.01, 0.1, size=(6, 1))
    y, v = mean[:, 0], variance[:, 0]

    def excess(tau2):
        w = 1 / (v + tau2)
        return float((w * (y - (w * y).sum() / w.sum()) ** 2).sum() - (len(y) - 1))

    tau2 = optimize.brentq(excess, 0, 10)
    w = 1 / (v + tau2)
    centre = (w * y).sum() / w.sum()
    error = np.sqrt((w * (y - centre) ** 2).sum() / (len(y) - 1) / w.sum())
    half = stats.t.ppf(0.975, len(y) - 1) * error
    got = random_effects(mean, variance)
    np.testing.assert_allclose(
        [got.mean[0], got.low[0], got.high[0]], [centre, centre - half, centre + half], rtol=1e-3
    )
    assert got.tau[0] == pytest.approx(np.sqrt(tau2), rel=1e-2)
    assert 0 < got.i2[0] < 1


def test_runs_that_agree_have_no_variance_between_them():
    got = random_effects(np.full((5, 1), 2.0), np.full((5, 1), 0.04))
    assert (got.mean[0], got.tau[0], got.i2[0]) == (pytest.approx(2), pytest.approx(0, abs=1e-6), 0)


def test_the_variance_of_a_mean_is_by_whole_clusters():
    values = np.array([[1.0], [1.0], [4.0], [6.0]])
    # one prompt a cluster: the sample variance over n
    assert variance_of_mean(values, np.arange(4))[0] == pytest.approx(np.var(values, ddof=1) / 4)
    # two clusters of two: sums away from 2 × 3 are −4 and +4; 2/1 × 32 / 16
    assert variance_of_mean(values, np.array(["a", "a", "b", "b"]))[0] == pytest.approx(4)
    assert np.isnan(variance_of_mean(values, np.zeros(4))[0])


# --- rankings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_clusters", [4, 5])
def test_the_ceiling_is_the_mean_over_all_halves(n_clusters):
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(n_clusters), [2, *[1] * (n_clusters - 1)])
    values = rng.normal(size=(len(clusters), 6))
    taus, shares = [], []
    for half in combinations(range(n_clusters), n_clusters // 2):
        if n_clusters % 2 == 0 and 0 not in half:
            continue
        mine = np.isin(clusters, half)
        two = np.stack([values[mine].mean(0), values[~mine].mean(0)])
        taus.append(ranked(two))
        tops = [set(np.argsort(-np.abs(row))[:2]) for row in two]
        shares.append(len(tops[0] & tops[1]) / 2)
    tau, share = split_half(values, clusters, top_k=2)
    assert (tau, share) == (pytest.approx(np.mean(taus)), pytest.approx(np.mean(shares)))


def test_a_run_of_one_cluster_has_no_ceiling():
    assert np.isnan(split_half(np.ones((3, 4)), np.zeros(3))).all()


# --- runs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path):
    """Five fake runs that differ in their seed and their prompts' texts, each prompt a cluster of its own."""
    return Runs(tuple(made(tmp_path / str(seed), seed) for seed in range(5)))


def made(folder, seed, **spec):
    folder.mkdir()
    run = fake_run(folder)
    rng = np.random.default_rng(seed)
    data = run.data.assign(effect=run.data["effect"] + rng.normal(0, 0.05, size=run.data["effect"].shape))
    n = data.sizes["prompt"]
    data = data.assign(
        text=("prompt", [f"text {seed} {number}" for number in range(n)]),
        cluster=("prompt", [f"text {number}" for number in range(n)]),
    )
    run = replace(run, data=data, path=folder)
    return replace(run, spec={**run.spec, "seed": seed, "prompts": {"name": "inline", "seed": seed}, **spec})


def test_differing_settings_are_columns_and_names(runs):
    assert runs.settings.columns.tolist() == ["seed"]
    assert runs.names == [f"seed={seed}" for seed in range(5)]


def test_a_setting_that_follows_from_a_name_is_left_out(tmp_path):
    models = [{"name": "a", "id": "x/a"}, {"name": "b", "id": "x/b"}]
    two = Runs(tuple(made(tmp_path / model["name"], 0, model=model) for model in models))
    assert two.settings.columns.tolist() == ["model.name"]
    assert two.names == ["model=a", "model=b"]


def test_the_table_has_every_row_under_its_settings(runs):
    table = runs.table()
    assert len(table) == sum(len(run.heads) for run in runs.runs)
    mine = table.query("seed == 3").reset_index(drop=True)
    np.testing.assert_array_equal(mine["effect_mean"], runs.runs[3].heads["effect_mean"])
    assert mine["head"].iloc[0] == "L{}H{}".format(*runs.runs[3].heads[["layer", "head"]].iloc[0])


def test_arrays_have_a_dimension_for_runs(runs):
    metric = runs.metrics[0]
    want = runs.runs[2].data["effect"].sel(metric=metric).mean("prompt")
    xr.testing.assert_allclose(runs.data["effect"].sel(run="seed=2", metric=metric).drop_vars("run"), want)


def test_agreement_is_kendalls_of_each_two_runs(runs):
    table = runs.agreement("loss", top_k=3)
    assert len(table) == 10
    row = table.query("run_a == 'seed=1' and run_b == 'seed=4'").iloc[0]
    means = [runs.runs[at].data["effect"].sel(metric="loss").mean("prompt").values.ravel() for at in (1, 4)]
    assert row["kendall"] == pytest.approx(ranked(np.stack(means)))
    tops = [set(np.argsort(-np.abs(mean), kind="stable")[:3]) for mean in means]
    assert row["top_overlap"] == pytest.approx(len(tops[0] & tops[1]) / 3)


def test_runs_on_other_prompts_are_pooled(runs):
    table = runs.pooled("loss")
    assert table.attrs["note"].startswith("Random-effects mean of 5 runs")
    values = [run.data["effect"].sel(metric="loss", layer=0, head=1).values for run in runs.runs]
    want = random_effects(
        np.array([[each.mean()] for each in values]),
        np.array([[each.var(ddof=1) / len(each)] for each in values]),
    )
    row = table.set_index("head").loc["L0H1"]
    np.testing.assert_allclose([row["effect_mean"], row["ci_low"]], [want.mean[0], want.low[0]])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda runs: runs[:4], "it takes 5 runs"),
        (lambda runs: (*runs[:4], replace(runs[4], data=runs[4].data.assign(text=runs[0].data["text"]))), "are shared"),
        (lambda runs: (*runs[:4], with_spec(runs[4], ablation={"name": "mean"})), "the runs differ in ablation.name"),
        (
            lambda runs: tuple(with_spec(run, prompts={"name": "ioi", "n": 3}) for run in runs),
            "clusters of prompts are",
        ),
    ],
)
def test_what_cannot_be_pooled_has_a_range_and_the_reason(runs, change, reason):
    some = Runs(tuple(change(runs.runs)))
    table = some.pooled("loss")
    assert reason in table.attrs["note"]
    assert "ci_low" not in table
    values = [float(run.data["effect"].sel(metric="loss", layer=0, head=1).mean()) for run in some.runs]
    row = table.set_index("head").loc["L0H1"]
    np.testing.assert_allclose([row["run_low"], row["run_high"]], [min(values), max(values)])


def with_spec(run, **spec):
    return replace(run, spec={**run.spec, **spec})


def test_important_heads_are_counted_over_runs(runs):
    heads = runs.runs[0].heads.assign(important=False)
    claims = [{"L0H1", "L1H2"}, {"L0H1"}, {"L0H1"}, {"L0H1", "L2H0"}, {"L0H1"}]
    names = "L" + heads["layer"].astype(str) + "H" + heads["head"].astype(str)
    changed = [
        replace(run, heads=run.heads.assign(important=names.isin(own)))
        for run, own in zip(runs.runs, claims, strict=True)
    ]
    table = Runs(tuple(changed)).important("loss")
    assert dict(zip(table["head"], table["n_runs"], strict=True)) == {"L0H1": 5, "L1H2": 1, "L2H0": 1}
    assert table["head"].iloc[0] == "L0H1"


def test_unlike_models_are_refused_by_head_and_compared_by_depth(runs, tmp_path):
    small = runs.runs[0]
    wide = replace(runs.runs[1], data=runs.runs[1].data.isel(layer=slice(2)))
    two = Runs((small, wide))
    with pytest.raises(RequestError, match="by=head: their models have other heads .* set by=role or by=depth"):
        two.agreement()
    with pytest.raises(RequestError, match="by=role: .* scored no roles"):
        two.by_role()
    table = two.by_depth("loss", bins=2)
    by_layer = small.data["effect"].sel(metric="loss").mean("prompt").sum("head").values
    mine = table.query("run == @two.names[0]")
    at = np.minimum((np.arange(len(by_layer)) / (len(by_layer) - 1) * 2).astype(int), 1)
    np.testing.assert_allclose(mine["effect_sum"], [by_layer[at == 0].sum(), by_layer[at == 1].sum()])


@pytest.mark.parametrize("by", ["head", "depth"])
def test_the_page_and_files_hold_all_runs(runs, tmp_path, by):
    folder = write_collected(runs, tmp_path / "out", "loss", by)
    page = (folder / "report.html").read_text()
    assert "5 runs: effects on loss" in page
    assert all(name in page for name in runs.names)
    read = pd.read_csv(folder / "collected.csv")
    np.testing.assert_allclose(read["effect_mean"], runs.table()["effect_mean"], rtol=1e-6)
    assert len(pd.read_parquet(folder / "collected.parquet")) == len(runs.table())
    assert list((folder / "figures").glob("*.svg"))


def test_the_page_names_what_the_runs_have_in_common(runs, tmp_path):
    page = (write_collected(runs, tmp_path / "out", "loss") / "report.html").read_text()
    spec = runs.runs[0].spec
    n, model, ablation = runs.runs[0].data.sizes["prompt"], spec["model"]["name"], spec["ablation"]["name"]
    common = f"All have model={model} prompts=inline ablation={ablation} prompts.n={n}."
    assert f"{common} They differ in seed. Of {5 * n} different prompts none is in every run." in page
    assert "nothing can be significant" not in page
    other = with_spec(runs.runs[1], ablation={"name": "mean"}, model={"name": "other"})
    two = Runs((runs.runs[0], replace(other, data=other.data.isel(prompt=slice(2)))))
    assert two.common == {"prompts": "inline"}


@pytest.mark.parametrize(
    ("texts", "says"),
    most(
        [
            (["abc", "abd", "aed"], "Of 5 different prompts 1 is in every run, 3 in more than one."),
            (["abc", "abc", "abc"], "All read the same 3 prompts."),
            (["abc", "abd", "abe"], "Of 5 different prompts 2 are in every run."),
            (["abc", "def", "ghc"], "Of 8 different prompts none is in every run, 1 in more than one."),
        ],
        2,
    ),
)
def test_the_page_counts_the_prompts_that_runs_share(runs, tmp_path, texts, says):
    """The texts of each run's prompts are the letters."""
    short = [run.data.isel(prompt=slice(3)) for run in runs.runs[:3]]
    data = [each.assign(text=("prompt", [*letters])) for each, letters in zip(short, texts, strict=True)]
    some = Runs(tuple(replace(run, data=each) for run, each in zip(runs.runs[:3], data, strict=True)))
    assert says in (write_collected(some, tmp_path / "out", "loss") / "report.html").read_text()


@pytest.mark.parametrize(
    ("few", "names"), most([((0, 2), "seed=0, seed=2"), ((), ""), ((0, 1, 2), "all 3 runs"), ((1,), "seed=1")], 2)
)
def test_the_page_says_where_nothing_can_be_significant(runs, tmp_path, few, names):
    """Of three clusters the smallest p is 2/2³, of twelve it is below the level."""
    some = []
    for at, run in enumerate(runs.runs[:3]):
        n = run.data.sizes["prompt"]
        twice = xr.concat([run.data, run.data], "prompt", data_vars="minimal", coords="minimal", compat="override")
        clusters = [str(number % 3 if at in few else number) for number in range(2 * n)]
        some.append(with_claims(replace(run, data=twice.assign(cluster=("prompt", clusters)))))
    page = (write_collected(Runs(tuple(some)), tmp_path / "out", "loss") / "report.html").read_text()
    assert page.count("nothing can be significant") == page.count('<p class="note">In ') == bool(names)
    says = f"In {names}: with 3 clusters of prompts nothing can be significant at the level 0.05: a test that flips"
    assert (says in page) == bool(names)


@pytest.mark.parametrize(
    ("in_runs", "n", "line"),
    [
        ([], 9, "No head is important in any of 9 runs."),
        ([], 1, "No head is important in any of 1 run."),
        ([1, 1], 1, "2 important heads."),
        ([3], 3, "1 head important in any of 3 runs: 1 in all, 0 in some, 0 in one."),
        ([3, 2, 1, 1], 3, "4 heads important in any of 3 runs: 1 in all, 1 in some, 2 in one."),
    ],
)
def test_important_heads_are_counted_in_a_line(in_runs, n, line):
    assert count_important(np.array(in_runs), n) == line


@pytest.mark.parametrize(
    ("n", "settings", "columns"),
    [
        (9, {"ablation.name": ["zero"] * 3 + ["mean"] * 3 + ["patch"] * 3, "seed": [0, 1, 2] * 3}, 3),
        (4, {"ablation.name": ["zero", "zero", "mean", "mean"], "seed": [0, 1, 0, 1]}, 2),
        (8, {"ablation.name": ["zero"] * 3 + ["mean"] * 3 + ["patch"] * 2, "seed": [0, 1, 2, 0, 1, 2, 0, 1]}, 4),
        (10, {"seed": [0] * 5 + [1] * 5, "prompts.n": [*range(5)] * 2}, 4),
        *((n, {"seed": [*range(n)]}, columns) for n, columns in {1: 1, 2: 2, 3: 3, 5: 3, 6: 3, 7: 4, 12: 4}.items()),
    ],
)
def test_maps_stand_in_rows_of_one_setting(n, settings, columns):
    assert columns_of(pd.DataFrame(settings), n) == columns


def test_a_folder_stands_for_the_runs_in_it(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "kept" / name).mkdir(parents=True)
        (tmp_path / "kept" / name / "spec.yaml").write_text("seed: 0")
    (tmp_path / "kept" / "notes").mkdir()
    both = [str(tmp_path / "kept" / name) for name in ("a", "b")]
    assert run_folders([str(tmp_path / "kept")]) == run_folders([str(tmp_path / "kept" / "*")]) == both
    assert run_folders([both[0]]) == both[:1]
    with pytest.raises(RequestError, match="no run is there"):
        run_folders([str(tmp_path)])  # of folders of runs


def test_no_run_is_refused_in_one_line(tmp_path):
    with pytest.raises(RequestError, match=r"^runs=.*nothing\*: no run is there: give a pattern such as"):
        open_runs(str(tmp_path / "nothing*"))
    assert harness.open_runs is open_runs
