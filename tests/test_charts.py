"""Charts of the page: what each describes is the run's, and what stands on the page is what it describes.

The tests in a browser are skipped when there is no Chromium or Chrome, unless HARNESS_REQUIRE_BROWSER=1.
"""

import csv
import io
import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from fakes import fake_t5
from PIL import Image
from test_browser import faults, quiet
from test_figures import SHORT, whole_run, without_effects
from test_views import HOSTILE
from thinned import most

from harness import views
from harness.hooks import Head
from harness.views import figures
from harness.views.charts import charts
from harness.views.figures.base import LOOKS, Picture
from harness.views.page import asset

#: Sections whose figures are charts on the page.
CHARTED = {"layers", "maps", "positions", "sets", "pruning", "pairs", "changed", "roles", "methods", "parts"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return whole_run(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def described(run):
    return {chart["name"]: chart for chart in charts(run)}


@pytest.fixture(scope="module")
def page(run):
    return written(run, run.path / "report.html")


def written(run, path):
    """The report, with charts and without their figures."""
    stand_ins = [Picture(chart["name"], chart["part"], chart["title"], b"", b"") for chart in charts(run)]
    return views.write_report(run, path, stand_ins)


def close(chart_values, values):
    """Whether numbers of a chart are the run's, to the seven digits that it has."""
    shown, true = (np.array(each, dtype=float) for each in (chart_values, values))
    np.testing.assert_allclose(shown, true, rtol=1e-6, equal_nan=True)


# --- descriptions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", [lambda run: run, without_effects])
def test_every_figure_of_a_charted_section_has_a_chart_of_its_name(run, of):
    drawings = figures._drawings(of(run), LOOKS["screen"])
    wanted = {name: part for name, part, _, _ in drawings if part in CHARTED}
    assert {chart["name"]: chart["part"] for chart in charts(of(run))} == wanted
    assert len(wanted) >= 17


def test_charts_are_json_without_nan(run):
    hole = replace(run, data=run.data.assign(pair_difference=run.data["pair_difference"] * np.nan))
    json.dumps(charts(hole), allow_nan=False)
    pairs = next(chart for chart in charts(hole) if chart["name"] == "pairs_loss")
    assert {value for row in pairs["panels"][0]["values"] for value in row} == {None}


def test_a_caption_names_the_figure_the_model_and_the_prompts(described):
    for chart in described.values():
        assert chart["caption"].startswith(chart["title"])
        assert "tiny" in chart["caption"]
        assert "3 prompts of the set ioi" in chart["caption"]


def test_layers_have_means_and_standard_errors(run):
    chart = next(chart for chart in charts(without_effects(run)) if chart["name"] == "layers_loss")
    for series, name in zip(chart["panels"][0]["series"], ("layer_effect", "mlp_effect"), strict=True):
        values = run.data[name].sel(metric="loss").values
        mean, error = values.mean(axis=0), values.std(axis=0, ddof=1) / 3**0.5
        close([series["values"], series["low"], series["high"]], [mean, mean - error, mean + error])


def test_positions_have_the_effects_of_the_prompt_that_is_shown(run, described):
    chart = described["positions_loss"]
    (panel,) = chart["panels"]
    assert panel["columns"] == SHORT
    for name, place, row in zip(panel["rows"], panel["rowHeads"], panel["values"], strict=True):
        head = Head.parse(name)
        assert place == [head.layer, head.head, ""]
        close(row, run.data["position_effect"].sel(metric="loss", **head.place)[chart["prompt"]])


def test_maps_have_mean_shares_of_the_way_to_the_corrupted_run(run, described):
    chart, data = described["maps_loss"], run.data.sel(metric="loss")
    apart = float((data["corrupted"] - data["clean"]).mean())
    assert [panel["name"] for panel in chart["panels"]] == ["residual stream", "attention"]
    for panel, name in zip(chart["panels"], ("resid_effect", "attn_effect"), strict=True):
        assert panel["columns"] == SHORT
        close(panel["values"], data[name].mean("prompt").values / apart)
    assert chart["panels"][0]["rows"] == ["L0", "L1", "L2", "end"]
    assert chart["value"] == "share of the way to the corrupted run"


def test_sets_have_every_prompt_the_mean_and_its_error(run, described):
    rows = described["sets_loss"]["panels"][0]["rows"]
    effects = run.data["set_effect"].sel(metric="loss").transpose("set", "prompt")
    by_name = dict(zip(map(str, effects["set"].values), effects.values, strict=True))
    means = [row["points"][0]["mean"] for row in rows]
    assert sorted(means, key=abs, reverse=True) == means
    for row in rows:
        (point,), values = row["points"], by_name[row["label"]]
        error = values.std(ddof=1) / 3**0.5
        close(point["prompts"], values)
        close([point["mean"], point["low"], point["high"]], values.mean() + np.array([0, -error, error]))


def test_the_pruning_curve_has_its_orders_heads_and_the_range_of_random_ones(run, described):
    (panel,) = described["pruning_loss"]["panels"]
    mean = run.data["cumulative_effect"].sel(metric="loss").mean("prompt").values
    assert [series["name"] for series in panel["series"]] == ["effect", "greedy"]
    close([series["values"] for series in panel["series"]], mean[[0, 2]])
    close([panel["band"]["low"], panel["band"]["high"]], [mean[[1, 3]].min(axis=0), mean[[1, 3]].max(axis=0)])
    assert panel["series"][0]["heads"] == [[1, 2, ""]] * 5
    assert panel["x"]["values"] == [1, 2, 3, 4, 5]


def test_pairs_are_a_symmetric_matrix(run, described):
    (panel,) = described["pairs_loss"]["panels"]
    beyond = run.data["pair_difference"].sel(metric="loss").mean("prompt")
    values = np.array(panel["values"], dtype=float)
    np.testing.assert_array_equal(values, values.T)
    for a, b, value in zip(beyond["head_a"].values, beyond["head_b"].values, beyond.values, strict=True):
        close(values[panel["rows"].index(a), panel["columns"].index(b)], value)
    assert np.isnan(values.diagonal()).all()


def many_pairs(run):
    """The run with more pairs than a matrix has room for: L0H0 with 45 others."""
    others = [f"L{layer}H{head}" for layer in range(1, 16) for head in range(3)]
    beyond = (("metric", "prompt", "pair"), np.tile(np.linspace(-2, 1, 45), (2, 3, 1)))
    data = run.data.drop_vars(["pair_effect", "pair_sum", "pair_difference", "head_a", "head_b"])
    coords = {"head_a": ("pair", ["L0H0"] * 45), "head_b": ("pair", others)}
    return replace(
        run, data=data.assign(pair_effect=beyond, pair_sum=beyond, pair_difference=beyond).assign_coords(coords)
    )


def test_many_pairs_are_bars_of_the_furthest_from_the_sum(run):
    chart = next(chart for chart in charts(many_pairs(run)) if chart["name"] == "pairs_loss")
    assert chart["kind"] == "bars"
    assert len(chart["bars"]) == 20
    close([bar["value"] for bar in chart["bars"]][:3], np.linspace(-2, 1, 45)[:3])
    assert chart["bars"][0]["heads"] == [[0, 0, ""], [1, 0, ""]]
    assert "The 20 of 45 pairs" in chart["caption"]


def test_changes_are_means_over_prompts_with_a_dot_where_beyond_chance(run, described):
    for name, variable in (("change_loss", "effect_change"), ("pattern_distance", "pattern_distance")):
        array = run.data[variable]
        mean = (array.sel(metric="loss") if "metric" in array.dims else array).mean("prompt")
        close(described[name]["panels"][0]["values"], mean.transpose("head", "layer"))
        assert described[name]["panels"][0]["dots"] == []
    table = run.changes.assign(p_adjusted=np.where((run.changes["layer"] == 2) & (run.changes["head"] == 1), 0.01, 0.5))
    sure = next(chart for chart in charts(replace(run, changes=table)) if chart["name"] == "change_loss")
    assert sure["panels"][0]["dots"] == [[1, 2]]
    assert sure["dot"] == "max-T p < 0.05"


def test_prompts_of_two_models_are_pairs(run, described):
    base, other = (run.data[name].sel(metric="loss").values for name in ("clean", "other_clean"))
    close(described["prompts_loss"]["pairs"], np.stack([base, other], axis=1))
    assert described["prompts_loss"]["series"] == ["tiny", "the other"]


def test_the_most_changed_head_has_both_patterns(run, described):
    chart = described["most_changed"]
    layer, head, _ = chart["panels"][0]["head"]
    for panel, name in zip(chart["panels"], ("pattern", "other_pattern"), strict=True):
        close(panel["values"], run.data[name].sel(layer=layer, head=head)[chart["prompt"]])
        assert panel["rows"] == panel["columns"] == SHORT


def test_roles_have_scores_and_dots(run, described):
    for panel in described["roles"]["panels"]:
        close(panel["values"], run.data["role_score"].sel(role=panel["name"]).transpose("head", "layer"))
        has = run.data["role_given"].sel(role=panel["name"]).transpose("head", "layer").values
        assert sorted(panel["dots"]) == np.argwhere(has).tolist()
        assert panel["about"].startswith(f"{panel['name']}: looks at")


def test_roles_of_no_head_come_last_without_dots(run):
    given = run.data["role_given"].copy()
    given[0] = False
    chart = next(
        chart for chart in charts(replace(run, data=run.data.assign(role_given=given))) if chart["name"] == "roles"
    )
    assert [panel["name"] for panel in chart["panels"]] == ["previous_token", "induction"]
    assert chart["panels"][0]["dots"]
    assert chart["panels"][1]["dots"] == []


def test_methods_have_each_agreement_best_on_top(run, described):
    spearman = run.methods.query("statistic == 'spearman'").set_index(["policy", "method", "cause"])
    best = spearman.loc["drop"].groupby("method")["mean"].mean().sort_values(ascending=False)
    for panel, policy in zip(described["methods"]["panels"], ("keep", "drop"), strict=True):
        assert [row["label"] for row in panel["rows"]] == list(best.index)
        for row in panel["rows"]:
            for point, cause in zip(row["points"], ("occlusion", "knockout"), strict=True):
                wanted = spearman.loc[policy, row["label"], cause]
                close(
                    [point[end] for end in ("mean", "low", "high")], wanted[["mean", "ci_low", "ci_high"]].astype(float)
                )


def test_parts_have_shares_and_causes(run, described):
    shares, causes = described["parts"]["panels"]
    order = list(run.parts.query("measure == 'knockout'").sort_values("rank")["part"])
    table = run.parts.set_index(["measure", "part"])
    for panel, measures in ((shares, ["tokens", "attention", "rollout", "gradient"]), (causes, ["delete", "knockout"])):
        assert [row["label"] for row in panel["rows"]] == order
        for row in panel["rows"]:
            ends = [[point[end] for end in ("mean", "low", "high")] for point in row["points"]]
            close(
                ends,
                [table.loc[(name, row["label"]), ["mean", "ci_low", "ci_high"]].astype(float) for name in measures],
            )


def test_an_encoder_decoder_has_a_panel_for_each_stack(tmp_path):
    t5 = fake_t5(tmp_path)
    effect = t5.data["effect"].mean("head")
    whole = replace(t5, data=t5.data.drop_vars(["effect"]).assign(layer_effect=effect))
    (chart,) = (chart for chart in charts(whole) if chart["kind"] == "curves")
    assert [panel["x"]["label"] for panel in chart["panels"]] == ["encoder layer", "decoder layer", "cross layer"]
    assert [len(panel["x"]["values"]) for panel in chart["panels"]] == [3, 2, 2]
    close(chart["panels"][1]["series"][0]["values"], effect.sel(stack="decoder").mean(["metric", "prompt"])[:2])


# --- on the page --------------------------------------------------------------------------------------------------

SIZES = [(1280, 800, False), (390, 844, True)]
#: Each drawing's texts that leave it, and those under 11 pixels.
WRITING = """[...document.querySelectorAll('.chart svg.drawing')].flatMap((svg) => {
const edge = svg.getBoundingClientRect(), name = svg.closest('.chart').dataset.chart;
return [...svg.querySelectorAll('text')].filter((text) => { const box = text.getBoundingClientRect();
return box.left < edge.left - 1 || box.right > edge.right + 1 || box.top < edge.top - 4 || box.bottom > edge.bottom + 4
|| parseFloat(getComputedStyle(text).fontSize) < 11; }).map((text) => name + ': ' + text.textContent); })"""
DRAWN = "document.querySelectorAll('.chart svg.drawing').length"


#: Every tab at once: a chart is drawn when it is first seen.
ALL_TABS = "document.querySelectorAll('[data-tab]').forEach((panel) => { panel.hidden = false; })"


def opened(browser, page, n, width=1280, height=800, dark=False):
    browser.open(page, width, height, dark)
    browser.evaluate(ALL_TABS)
    browser.wait(f"{DRAWN} === {n}")


@pytest.mark.parametrize(("width", "height", "dark"), SIZES)
def test_every_chart_is_drawn_inside_its_place_and_can_be_read(browser, page, described, width, height, dark):
    opened(browser, page, len(described), width, height, dark)
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.evaluate(WRITING) == []
    assert browser.evaluate("[...document.querySelectorAll('.chart')].every((one) => one.offsetWidth > 300)")
    assert not browser.evaluate("!!document.querySelector('#methods img')"), "figures are for pages without scripts"
    quiet(browser)


@pytest.mark.parametrize(("width", "height", "dark"), most(SIZES[::-1], 1))
def test_charts_are_accessible_without_a_serious_fault(browser, page, described, width, height, dark):
    opened(browser, page, len(described), width, height, dark)
    assert faults(browser) == []


@pytest.mark.parametrize(("width", "height", "dark"), most(SIZES, 1))
def test_long_labels_and_many_heads_stay_inside(browser, tmp_path, width, height, dark):
    wide = whole_run(tmp_path, tokens=[f" word{at}-{'m' * 20}" for at in range(30)], n_layers=24, model="m" * 30)
    pages = [wide, many_pairs(without_effects(wide))]
    for at, each in enumerate(pages):
        opened(browser, written(each, tmp_path / f"{at}.html"), len(charts(each)), width, height, dark)
        assert browser.evaluate(WRITING) == []
        assert browser.evaluate("document.documentElement.scrollWidth") == width
        quiet(browser)


def numbers_at(browser, name, selector, along="x"):
    """The values at the middles of some shapes, by the ticks of the chart's axis."""
    code = """((name, selector, along) => {
    const svg = document.querySelector('.chart[data-chart="' + name + '"] svg.drawing'), wide = along === 'x';
    const middle = (node) => { const box = node.getBoundingClientRect();
    return wide ? box.left + box.width / 2 : box.top + box.height / 2; };
    const ticks = [...svg.querySelectorAll('[data-tick]')].map((node) => [Number(node.dataset.tick), middle(node)]);
    const [a, b] = [ticks[0], ticks.find((tick) => tick[0] !== ticks[0][0])];
    const value = (at) => a[0] + (at - a[1]) / (b[1] - a[1]) * (b[0] - a[0]);
    return [...svg.querySelectorAll(selector)].map((node) => value(middle(node)));
    })(%s, %s, %s)"""
    return browser.evaluate(code % tuple(map(json.dumps, (name, selector, along))))


def test_dots_stand_at_their_values(browser, page, run, described):
    opened(browser, page, len(described))
    effects = run.data["set_effect"].sel(metric="loss").values.T
    order = np.argsort(-np.abs(effects.mean(axis=1)))
    np.testing.assert_allclose(numbers_at(browser, "sets_loss", "circle.dot"), effects[order].ravel(), atol=0.02)
    np.testing.assert_allclose(numbers_at(browser, "sets_loss", "line.mean"), effects[order].mean(axis=1), atol=0.02)
    sides = browser.evaluate(
        "[...document.querySelectorAll('[data-chart=sets_loss] circle')].map((dot) => dot.classList[1])"
    )
    assert sides == ["helps" if effects[at].mean() > 0 else "hurts" for at in order for _ in range(3)]
    base = run.data["clean"].sel(metric="loss").values
    other = run.data["other_clean"].sel(metric="loss").values
    shown = numbers_at(browser, "prompts_loss", "path.symbol", "y")[2:]  # two of the legend
    np.testing.assert_allclose(np.reshape(shown, (3, 2)), np.stack([other, base], axis=1), atol=0.05)


def test_curves_go_through_their_values(browser, page, run, described):
    opened(browser, page, len(described))
    mean = run.data["cumulative_effect"].sel(metric="loss").mean("prompt").values[[0, 2]]
    marks = numbers_at(browser, "pruning_loss", "path.symbol", "y")[2:]
    np.testing.assert_allclose(np.reshape(marks, (2, 5)), mean, atol=0.05)


def test_cells_have_the_shade_and_the_side_of_their_values(browser, page, described):
    opened(browser, page, len(described))
    for name, root in (
        ("change_loss", False),
        ("pattern_distance", False),
        ("most_changed", True),
        ("pairs_loss", False),
    ):
        panels = described[name]["panels"]
        cells = browser.evaluate(
            f"[...document.querySelectorAll('[data-chart={name}] [data-cell]')]"
            ".map((cell) => [cell.classList[1], Number(cell.style.getPropertyValue('--share'))])"
        )
        values = np.array([value for panel in panels for row in panel["values"] for value in row], dtype=float)
        shares = np.abs(values) / np.nanmax(np.abs(values))
        wanted = np.nan_to_num(np.sqrt(shares) if root else shares)
        np.testing.assert_allclose([share for _, share in cells], wanted, atol=6e-4)
        if described[name]["scale"] == "effect":
            sides = ["unknown" if np.isnan(value) else "helps" if value > 0 else "hurts" for value in values]
            assert [side for side, _ in cells] == sides


def test_bars_grow_to_their_side_of_the_zero_line(browser, run, tmp_path):
    opened(browser, written(many_pairs(run), tmp_path / "page.html"), len(charts(many_pairs(run))))
    zero, *bars = browser.evaluate(
        "[...document.querySelectorAll('[data-chart=pairs_loss] .zero, [data-chart=pairs_loss] rect.bar')]"
        ".map((one) => [one.getBoundingClientRect(), one])"
        ".map(([box, one]) => [box.left, box.right, Number(one.dataset.value)])"
    )
    middle = (zero[0] + zero[1]) / 2
    assert len(bars) == 20
    scale = {round((left - middle if value < 0 else right - middle) / value, 1) for left, right, value in bars}
    assert len(scale) == 1
    assert all(left >= middle - 1 if value > 0 else right <= middle + 1 for left, right, value in bars)


def readout(name):
    return f"document.querySelector('[data-chart={name}] .readout').textContent"


def test_a_value_is_read_by_mouse_and_keys_and_nothing_moves(browser, page, run, described):
    opened(browser, page, len(described), 390, 844)
    tall = browser.evaluate("document.documentElement.scrollHeight")
    browser.hover('[data-chart=change_loss] [data-cell="1 2"]')
    change = float(run.data["effect_change"].sel(metric="loss", layer=2, head=1).mean())
    sign = "+" if change > 0 else "−"
    browser.wait(
        f"{readout('change_loss')} === "
        f"'L2H1: change of effect on loss, nats per target token {sign}{abs(change):#.3g} nats'"
    )
    browser.focus("[data-chart=methods] svg.drawing")
    first = browser.evaluate(readout("methods"))
    assert first.startswith(described["methods"]["panels"][0]["rows"][0]["label"] + ", occlusion (all tokens): ")
    browser.press("ArrowDown")
    assert browser.evaluate(readout("methods")) != first
    assert browser.evaluate("document.documentElement.scrollHeight") == tall
    for words in ("", "long words " * 40):  # whatever is read
        browser.evaluate(f"document.querySelectorAll('.chart .readout').forEach((one) => one.textContent = {words!r})")
        assert browser.evaluate("document.documentElement.scrollHeight") == tall
    browser.focus("[data-chart=positions_loss] svg.drawing")
    browser.press("Enter")
    head = described["positions_loss"]["panels"][0]["rows"][0]
    browser.wait(f"document.getElementById('picked').textContent === '{head}'")


#: The head and the prompt that the inspector shows.
OPEN = "document.getElementById('picked').textContent + ' ' + document.querySelector('.prompt-line b').textContent"


def test_a_click_opens_a_head_or_a_prompt(browser, page, described):
    opened(browser, page, len(described))
    browser.click('[data-chart=change_loss] [data-cell="3 0"]')
    browser.wait(f"{OPEN} === 'L0H3 0'")
    browser.evaluate(
        "document.querySelectorAll('[data-chart=prompts_loss] path.clicks')[2].dispatchEvent(new MouseEvent('click'))"
    )
    browser.wait(f"{OPEN} === 'L0H3 1'")
    name = described["positions_loss"]["panels"][0]["rows"][0]
    browser.click("[data-chart=positions_loss] text.opens")
    browser.wait(f"{OPEN} === '{name} 1'")


def test_a_role_is_chosen_by_a_switch(browser, page, described):
    opened(browser, page, len(described))
    second = described["roles"]["panels"][1]
    browser.evaluate(
        "(() => { const box = document.querySelector('[data-chart=roles] select'); box.value = 1;"
        "box.dispatchEvent(new Event('change')); })()"
    )
    shares = (
        "[...document.querySelectorAll('[data-chart=roles] [data-cell]')]"
        ".map((one) => Number(one.style.getPropertyValue('--share')))"
    )
    np.testing.assert_allclose(browser.evaluate(shares), np.ravel(second["values"]), atol=6e-4)
    assert browser.evaluate(readout("roles")) == second["about"]


def test_tokens_that_look_like_markup_stay_text(browser, tmp_path):
    hostile = whole_run(tmp_path, tokens=list(HOSTILE))
    opened(browser, written(hostile, tmp_path / "report.html"), len(charts(hostile)))
    texts = browser.evaluate("[...document.querySelectorAll('.chart text')].map((text) => text.textContent)")
    assert any("<" in text for text in texts)
    assert browser.evaluate("document.querySelectorAll('.chart :is(script, img, b, i, foreignObject)').length") == 0
    content = saved(browser, "positions_loss", "SVG").read_bytes()
    assert any("<" in (text.text or "") for text in ElementTree.fromstring(content).iter(f"{SVG}text"))
    quiet(browser)


# --- files --------------------------------------------------------------------------------------------------------

SVG = "{http://www.w3.org/2000/svg}"


def saved(browser, name, tool):
    """The file that a chart's tool saves."""
    button = browser.page.locator(f"[data-chart={name}] .figure-tools button", has_text=tool).first
    with browser.page.expect_download() as download:
        button.click()
    assert download.value.suggested_filename == f"{name}.{tool.lower()}"
    return download.value.path()


def test_a_saved_svg_has_its_text_as_text_and_its_marks_where_they_stand(browser, page, described):
    opened(browser, page, len(described))
    for name in ("change_loss", "sets_loss", "pruning_loss", "prompts_loss", "parts", "positions_loss"):
        root = ElementTree.fromstring(saved(browser, name, "SVG").read_bytes())
        box = browser.evaluate(
            f"[document.querySelector('[data-chart={name}] svg').getBoundingClientRect()]"
            ".flatMap((box) => [box.width, box.height])"
        )
        assert [float(root.get(side)) for side in ("width", "height")] == pytest.approx(box, abs=1)
        assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"
        shown = browser.evaluate(
            f"[...document.querySelectorAll('[data-chart={name}] svg text')].map((text) => text.textContent)"
        )
        assert [text.text for text in root.iter(f"{SVG}text")] == shown
        paints = {each.get(key) for each in root.iter() for key in ("fill", "stroke") if each.get(key)}
        assert all(paint.startswith("rgb(") or paint == "none" for paint in paints), paints
        assert "var(" not in ElementTree.tostring(root, encoding="unicode")
    cells = [
        [float(cell.get(key)) for key in ("x", "y", "width")]
        for cell in root_of(browser, "change_loss").iter(f"{SVG}rect")
    ]
    there = browser.evaluate(
        "[...document.querySelectorAll('[data-chart=change_loss] rect.cell')]"
        ".map((cell) => ['x', 'y', 'width'].map((key) => Number(cell.getAttribute(key))))"
    )
    assert cells[1:] == there  # the first is the background


def root_of(browser, name):
    return ElementTree.fromstring(saved(browser, name, "SVG").read_bytes())


def test_a_saved_png_is_three_times_as_large_and_shows_the_same(browser, page, described):
    opened(browser, page, len(described))
    with Image.open(saved(browser, "change_loss", "PNG")) as image:
        wide = browser.evaluate("document.querySelector('[data-chart=change_loss] svg').getBoundingClientRect().width")
        assert image.width == pytest.approx(3 * wide, abs=3)
        pixels = image.convert("RGB")
        at, tone = browser.evaluate(
            """(() => { const svg = document.querySelector('[data-chart=change_loss] svg');
            const edge = svg.getBoundingClientRect();
            const cell = svg.querySelector('[data-cell="2 1"]'), box = cell.getBoundingClientRect();
            const pen = document.createElement('canvas').getContext('2d');
            pen.fillStyle = getComputedStyle(cell).fill; pen.fillRect(0, 0, 1, 1);
            return [[box.left - edge.left + 4, box.top - edge.top + 4], [...pen.getImageData(0, 0, 1, 1).data]]; })()"""
        )
        assert pixels.getpixel((int(3 * at[0]), int(3 * at[1]))) == pytest.approx(tuple(tone[:3]), abs=3)


def test_a_saved_csv_has_the_data(browser, page, run, described):
    opened(browser, page, len(described))

    def rows(name):
        return list(csv.reader(io.StringIO(saved(browser, name, "CSV").read_text(encoding="utf-8"))))

    head, *cells = rows("change_loss")
    assert head == ["panel", "head", "layer", "change of effect on loss, nats per target token"]
    change = run.data["effect_change"].sel(metric="loss").mean("prompt")
    close(
        [float(value) for *_, value in cells], [change.sel(head=int(h), layer=int(layer)) for _, h, layer, _ in cells]
    )
    assert len(cells) == 12
    head, *cells = rows("sets_loss")
    assert head == ["panel", "set", "series", "mean", "low", "high", "prompt 0", "prompt 1", "prompt 2"]
    for row in cells:
        close(list(map(float, row[6:])), run.data["set_effect"].sel(metric="loss", set=row[1]))
    head, *cells = rows("pruning_loss")
    assert [row[:3] for row in cells[:2]] == [["effect", "1", "L1H2"], ["effect", "2", "L1H2"]]
    mean = run.data["cumulative_effect"].sel(metric="loss").mean("prompt").values
    close([float(row[3]) for row in cells[:10]], mean[[0, 2]].ravel())
    _, *cells = rows("prompts_loss")
    close([list(map(float, row[1:])) for row in cells], described["prompts_loss"]["pairs"])
    _, *cells = rows("methods")
    assert len(cells) == 2 * 3 * 2
    _, *cells = rows("pairs_loss")
    assert sum(row[3] == "" for row in cells) == 12 * 12 - 2 * 11


def test_a_caption_is_copied(browser, page, described):
    opened(browser, page, len(described))
    browser.page.locator("[data-chart=methods] .figure-tools button", has_text="Caption").click()
    browser.wait("document.querySelector('[data-chart=methods] .status').textContent === 'copied'")


def test_a_frame_that_may_save_no_files_offers_to_copy(browser, page, described, tmp_path):
    inside = page.read_text(encoding="utf-8").replace("&", "&amp;").replace('"', "&quot;")
    (tmp_path / "frame.html").write_text(
        '<!doctype html><html data-ready=1><iframe sandbox="allow-scripts" width="900" height="700" '
        f'srcdoc="{inside}"></iframe>'
    )
    browser.open(tmp_path / "frame.html")
    with browser.frame(0):
        browser.wait("document.documentElement.dataset.ready === 'true'")
        browser.evaluate(ALL_TABS)
        browser.wait(f"{DRAWN} === {len(described)}")
        tools = browser.evaluate(
            "[...document.querySelectorAll('[data-chart=methods] .figure-tools button')].map((one) => one.textContent)"
        )
    assert tools == ["Copy data", "Caption"]


#: What the page draws without SVG: buttons of a map, a legend's gradient, words in a line and cut off, and a canvas.
ANY_FIGURE = """<div id="figure" style="width: 300px">
<div class="legend">0 <i style="background: linear-gradient(90deg in oklab, var(--neutral), var(--helps))"></i>
2 nats</div>
<table class="map"><tr><th>H0</th><td><button class="helps sure" style="--share: .5"></button></td>
<td><button class="hurts" style="--share: 1"></button></td></tr></table>
<p style="font: 12px monospace; width: 150px">one &lt;b&gt; three four five six seven eight</p>
<p id="cut" style="font: 12px monospace; width: 80px; overflow: hidden; white-space: nowrap">one twothreefour five</p>
<canvas id="drawn" width="20" height="10"></canvas><p class="readout">read only here</p>
<select><option>chosen only here</option></select></div>"""


def any_figure(browser, folder):
    """The SVG of `ANY_FIGURE`, and where its cells and the words' lines stand on the page."""
    code = "".join(asset(f"{name}.js") for name in ("draw", "tables", "save"))
    script = f"<script>{code}; window.saved = () => svgText(document.getElementById('figure'));</script>"
    style = f"<style>{asset('page.css')}</style>"
    (folder / "any.html").write_text(
        f"<!doctype html><html data-ready=1>{style}<body>{ANY_FIGURE}{script}</body></html>"
    )
    browser.open(folder / "any.html")
    browser.evaluate("document.getElementById('drawn').getContext('2d').fillRect(0, 0, 20, 10)")
    return ElementTree.fromstring(browser.evaluate("saved()"))


def test_any_figure_of_the_page_is_saved_as_it_stands(browser, tmp_path):
    root = any_figure(browser, tmp_path)
    cells = browser.evaluate(
        """(() => { const edge = document.getElementById('figure').getBoundingClientRect();
        return [...document.querySelectorAll('.map button')].map((one) => one.getBoundingClientRect())
        .map((box) => [box.left - edge.left, box.top - edge.top, box.width, box.height]); })()"""
    )
    there = [[float(each.get(key)) for key in ("x", "y", "width", "height")] for each in root.iter(f"{SVG}rect")]
    for cell in cells:
        assert any(each == pytest.approx(cell, abs=0.02) for each in there)
    at = [each for each in root.iter(f"{SVG}rect") if float(each.get("x")) == pytest.approx(cells[1][0], abs=0.02)]
    assert "rgb(194, 87, 12)" in [each.get("fill") for each in at], "orange in full"
    assert [each for each in root.iter(f"{SVG}path") if each.get("stroke")], "and hatched"
    assert len([each for each in root.iter(f"{SVG}circle")]) == 1, "the dot of a shown head"
    texts = [each.text for each in root.iter(f"{SVG}text")]
    assert texts[:3] == ["0", "2 nats", "H0"]
    lines = [text for text in texts if any(word in text.split() for word in ("one", "four", "five", "eight"))]
    assert " ".join(lines[:-1]) == "one <b> three four five six seven eight"
    assert len(lines) > 2
    assert re.fullmatch(r"one two\w*…", lines[-1]), "what the box cuts off is cut off"
    assert "only here" not in " ".join(texts)
    (image,) = root.iter(f"{SVG}image")
    assert image.get("href").startswith("data:image/png")
    strips = [each.get("fill") for each in root.iter(f"{SVG}rect") if float(each.get("height")) == 10]
    assert len(set(strips)) > 20, "a gradient in strips"
    width = float(root.get("width"))
    assert all(x + wide <= width + 1 for x, _, wide, _ in there)
