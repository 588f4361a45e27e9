"""What functions compute in memory answers like a saved run, and becomes one."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.text import Text

import harness
from harness import stats, views
from harness.config import RequestError
from harness.study.reproduce import reproduce


@pytest.fixture(scope="module")
def planted():
    return harness.load_model("planted")


@pytest.fixture(scope="module")
def prompts(planted):
    return harness.load_prompts("induction", planted, n=6, length=6)


@pytest.fixture(scope="module")
def effects(planted, prompts):
    return harness.ablate_heads(planted, prompts, metrics=["loss", "prob"])


@pytest.fixture(scope="module")
def patterns(planted, prompts):
    return harness.cache_attention(planted, prompts)


@pytest.fixture(scope="module")
def attributions(planted, prompts):
    return harness.compare_attributions(planted, prompts, methods=["rollout", "norms"], causes=["knockout"])


# --- tables -------------------------------------------------------------------------------------------------------


def test_the_table_of_effects_is_the_summary_of_the_arrays(effects):
    table = effects.table()
    want = stats.summarize(effects["effect"].sel(metric="loss"), effects["cluster"].values, min_effect=1.0)
    mine = table.query("metric == 'loss'")
    np.testing.assert_array_equal(mine["effect_mean"], want["effect_mean"])
    np.testing.assert_array_equal(mine["ci_low"], want["ci_low"])


def test_top_is_the_largest_mean_effects_first(effects):
    mean = effects["effect"].sel(metric="prob").mean("prompt").to_series()
    want = mean.abs().sort_values(ascending=False, kind="stable").index[:3]
    assert effects.top(3, metric="prob")["head"].tolist() == [f"L{layer}H{head}" for layer, head in want]


def test_layers_are_summed_up_like_heads(planted, prompts):
    effects = harness.ablate_heads(planted, prompts, kind="layer", metrics=["loss"])
    values = effects["layer_effect"].sel(metric="loss").transpose("prompt", "layer").values
    table = effects.table()
    assert table["layer"].tolist() == [0, 1]
    np.testing.assert_allclose(table["effect_mean"], values.mean(0))
    want = stats.summarize(values[:, :, None], effects["cluster"].values)
    np.testing.assert_array_equal(table["ci_high"], want["ci_high"])
    assert effects.top(1)["layer"].item() == int(np.abs(values.mean(0)).argmax())


def test_a_pair_is_named_by_its_heads(planted, prompts):
    effects = harness.ablate_heads(planted, prompts, kind="pairs", pairs=[["L0H4", "L1H4"]], metrics=["loss"])
    row = effects.table("pair_effect").iloc[0]
    assert (row["head_a"], row["head_b"]) == ("L0H4", "L1H4")
    assert row["effect_mean"] == pytest.approx(float(effects["pair_effect"].mean()))


def test_positions_in_padding_count_for_none(tiny):
    model = tiny()
    prompts = harness.load_prompts("inline", model, text=["a drink to Mary", "a drink"])
    effects = harness.ablate_heads(model, prompts, positions="each", metrics=["loss"], heads=["L0H1"])
    values = effects["position_effect"].sel(metric="loss", layer=0, head=1).values
    table = effects.table()
    assert table["n_prompts"].tolist() == [2] * int(prompts.length.min()) + [1] * int(np.ptp(prompts.length))
    np.testing.assert_allclose(table["effect_mean"], np.nanmean(values, axis=0), rtol=1e-6)
    assert table.loc[table["n_prompts"] == 1, "ci_low"].isna().all()
    assert effects.plot().figure().axes


def test_top_of_patterns_is_the_largest_weight_off_the_diagonal_and_the_first_token(patterns):
    pattern = patterns.data.pattern.isel(prompt=2).values.copy()
    pattern[..., 0] = 0
    pattern[..., np.arange(pattern.shape[-1]), np.arange(pattern.shape[-1])] = 0
    first = patterns.top(1, prompt=2).iloc[0]
    layer, head, query, key = np.unravel_index(pattern.argmax(), pattern.shape)
    assert (first["head"], first["query_at"], first["key_at"]) == (f"L{layer}H{head}", query, key)
    assert first["weight"] == pytest.approx(pattern.max())
    assert first["query"] == patterns.data.token.values[2, query].replace("Ġ", " ").strip() or first["query"]


def test_top_of_methods_agrees_best_with_the_cause(attributions):
    agreement = attributions["agreement"].sel(statistic="spearman", policy="drop", cause_kind="knockout")
    want = agreement.mean("prompt").to_series().sort_values(ascending=False).index.tolist()
    top = attributions.top(2)
    assert top["method"].tolist() == want
    np.testing.assert_allclose(top["mean"], agreement.mean("prompt").sel(attribution_method=want))


# --- views and files ----------------------------------------------------------------------------------------------


def test_every_view_takes_a_result(effects, patterns):
    assert views.effects(effects).html
    assert views.attention(patterns, prompt=1).html
    pd.testing.assert_frame_equal(views.table(patterns, 1, "L0H4"), patterns.table(1, "L0H4"))
    np.testing.assert_array_equal(
        harness.look(patterns, prompt=1).table("L0H4").values,
        harness.look(patterns.data, prompt=1).table("L0H4").values,
    )


@pytest.mark.parametrize("kind", ["effects", "patterns", "attributions"])
def test_a_result_is_short_and_shows_itself(kind, request):
    result = request.getfixturevalue(kind)
    assert len(repr(result)) < 200
    assert "\n" not in repr(result)
    assert "<b>" in result._repr_html_()
    assert result.plot().html.startswith("<!")


@pytest.mark.parametrize(("kind", "label"), [("pairs", "heads in pairs"), ("cumulative", "one head after another")])
def test_a_sweep_that_ordered_its_heads_by_single_effects_shows_its_own_figure(planted, prompts, kind, label):
    effects = harness.ablate_heads(planted, prompts, kind=kind, metrics=["loss"])
    assert "effect" in effects.data
    assert effects.plot().title == f"Effect of ablating {label}, loss"


def test_the_title_of_a_map_of_few_layers_is_inside_the_figure(effects):
    figure = effects.plot("loss").figure()
    figure.draw_without_rendering()
    (title,) = (each for each in figure.axes[0].get_children() if isinstance(each, Text) and "Mean" in each.get_text())
    box = title.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1


def test_effects_show_a_map_with_the_strongest_heads(effects):
    shown = effects._repr_html_()
    assert 'src="data:image/png;base64,' in shown
    assert all(f"<td>{name}</td>" in shown for name in effects.top(5)["head"])


def test_a_saved_result_is_the_run_of_the_same_request(effects, tmp_path, pictures):
    run = effects.save(tmp_path / "run")
    assert run.manifest["status"] == "complete"
    xr.testing.assert_identical(run.data["effect"].load().drop_attrs(), effects["effect"].drop_attrs())
    pd.testing.assert_frame_equal(run.heads, effects.table(), check_dtype=False)
    assert {"report.html", "figures", "heads.csv", "data.zarr", "spec.yaml"} <= {
        path.name for path in run.path.iterdir()
    }
    assert reproduce(run.path, str(tmp_path / "again"), lambda *_: None, lambda _: None).holds


def test_the_report_that_a_run_writes_is_of_a_complete_run(effects, tmp_path, pictures):
    page = (effects.save(tmp_path / "run").path / "report.html").read_text()
    assert ">complete</td>" in page
    assert ">running</td>" not in page


def test_the_report_of_a_result_says_that_it_is_of_no_run(effects, tmp_path):
    page = effects.report(tmp_path / "report.html").read_text()
    assert "Computed in memory." in page
    assert "harness.open_run(DIR)" not in page


def test_a_function_of_the_caller_is_named_and_not_run_again(planted, prompts, tmp_path):
    def halved(z, head):
        return z / 2

    run = harness.ablate_heads(planted, prompts, halved, metrics=["loss"]).save(tmp_path / "run")
    assert run.spec["ablation"] == {"name": "halved", "positions": "all"}
    with pytest.raises(RequestError, match="its spec.yaml cannot be run .*halved"):
        reproduce(run.path, str(tmp_path / "again"), lambda *_: None, lambda _: None)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda each: each["effects"].top(metric="kl"), "metric=kl: known: loss, prob"),
        (lambda each: each["effects"].table("layer_effect"), "effect=layer_effect: did you mean 'effect'"),
        (lambda each: each["effects"].plot("kl"), "metric=kl: the run has loss, prob"),
        (lambda each: each["attributions"].top(statistic="pearson"), "statistic=pearson: "),
        (lambda each: each["patterns"].top(prompt=9), "prompt=9: the run has prompts 0-5"),
        (lambda each: harness.look(each["effects"]), "run=in memory: this run kept no patterns: "),
    ],
)
def test_what_a_result_lacks_is_refused_in_one_line(call, line, effects, patterns, attributions):
    with pytest.raises(RequestError) as refused:
        call({"effects": effects, "patterns": patterns, "attributions": attributions})
    assert str(refused.value).startswith(line)
    assert "\n" not in str(refused.value)


def test_a_saved_run_is_looked_at_without_torch(effects, patterns, tmp_path):
    run = patterns.save(tmp_path / "run")
    code = (
        "import sys, harness; harness.look(sys.argv[1], prompt=1).head('L0H4').html; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(run.path)], check=True)
