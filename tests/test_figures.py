"""Every figure of a run that has everything: its numbers are the run's, and its writing stands inside it."""

import csv
import re
import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from fakes import fake_run, fake_t5, with_claims
from matplotlib.colors import to_hex
from matplotlib.text import Text
from thinned import most

from harness.hooks import Head
from harness.results.schema import TABLES
from harness.views import figures
from harness.views.charts.rows import rows_of
from harness.views.draw import draw_for_paper
from harness.views.figures import changes, together, words
from harness.views.figures.base import LOOKS, TONE, style
from harness.views.figures.patterns import heatmap, heatmaps, lines, products
from harness.views.figures.view import figure_view
from harness.views.pattern_table import weights
from harness.views.token_colours import colour

SCREEN, PAPER, PAGE = LOOKS["screen"], LOOKS["column"], LOOKS["page"]
SHORT = ["When", " Mary", " and", " John", " went"]
LONG = [f" word{at}-{'m' * 20}" for at in range(30)]


def whole_run(folder, tokens=SHORT, n_layers=3, n_heads=4, model="tiny"):
    """A run of one model, with every array and table that a figure or a section of the report shows."""
    n = 3
    run = with_claims(fake_run(folder, tokens=[tokens] * n, n_layers=n_layers, n_heads=n_heads))
    rng, m, size = np.random.default_rng(1), len(run.data["metric"]), len(tokens)
    heads = list(map(str, run.all_heads))
    ends = list(pairwise(heads))
    given = rng.random((2, n_layers, n_heads)) < 0.2
    given[:, 1, 2] = True
    by_head = ("prompt", "layer", "head")
    data = {
        "layer_effect": (("metric", "prompt", "layer"), rng.normal(size=(m, n, n_layers))),
        "mlp_effect": (("metric", "prompt", "layer"), rng.normal(size=(m, n, n_layers))),
        "direct": (("metric", *by_head), rng.normal(size=(m, n, n_layers, n_heads))),
        "position_effect": (("metric", *by_head, "position"), rng.normal(size=(m, n, n_layers, n_heads, size))),
        "set_effect": (("metric", "prompt", "set"), rng.normal(size=(m, n, 3))),
        "cumulative_effect": (("metric", "prompt", "order", "step"), rng.normal(size=(m, n, 4, 5)).cumsum(-1)),
        "pair_effect": (("metric", "prompt", "pair"), rng.normal(size=(m, n, len(ends)))),
        "cumulative_head": (("order", "step"), np.full((4, 5), "L1H2")),
        "pair_sum": (("metric", "prompt", "pair"), rng.normal(size=(m, n, len(ends)))),
        "pair_difference": (("metric", "prompt", "pair"), rng.normal(size=(m, n, len(ends)))),
        **{f"role_{name}": (("role", "layer", "head"), rng.random((2, n_layers, n_heads))) for name in ROLE},
        "role_given": (("role", "layer", "head"), given),
        "other_role_given": (("role", "layer", "head"), given[::-1]),
        "other_role_score": (("role", "layer", "head"), rng.random((2, n_layers, n_heads))),
        "clean_change": (("metric", "prompt"), rng.normal(size=(m, n))),
        "other_clean": (("metric", "prompt"), rng.normal(size=(m, n)) + 3),
        "effect_change": (("metric", *by_head), rng.normal(size=(m, n, n_layers, n_heads))),
        "pattern_distance": (by_head, rng.random((n, n_layers, n_heads))),
        "other_pattern": run.data["pattern"][:, ::-1, ::-1].variable,
        "attribution": (("prompt", "attribution_method", *OVER), np.ones((n, 2, 1, size))),
        "cause": (("prompt", "cause_kind", *OVER), np.ones((n, 2, 1, size))),
        "traced_value": (("prompt", "traced"), np.ones((n, 1)), {"units": "nats, of a token"}),
        "resid_effect": (("metric", "prompt", "depth", "position"), rng.normal(size=(m, n, n_layers + 1, size))),
        "attn_effect": (("metric", "prompt", "layer", "position"), rng.normal(size=(m, n, n_layers, size))),
        "corrupted": (("metric", "prompt"), rng.normal(size=(m, n))),
    }
    coords = {
        "set": ["movers", "early " + "and late " * 8, "late"],
        "order": ["effect", "random 1", "greedy", "random 2"],
        "step": np.arange(1, 6),
        "head_a": ("pair", [a for a, _ in ends]),
        "head_b": ("pair", [b for _, b in ends]),
        "role": ["induction", "previous_token"],
        "policy": ["keep", "drop"],
        "cause_kind": ["occlusion", "knockout"],
        "attribution_method": ["rollout", "gradient"],
        "part": ["note", "a long name of a document", "question"],
        "taken": ["delete", "knockout"],
    }
    return replace(
        run,
        data=run.data.assign(data).assign_coords(coords),
        spec={**run.spec, "model": {"name": model}, "compare": {"model": {"name": "the other"}}},
        methods=methods_table(rng),
        parts=parts_table(rng),
        changes=changes_table(run, rng),
    )


ROLE = ("score", "low", "high", "chance", "p")
OVER = ("target_position", "position")


def methods_table(rng):
    rows = [
        {"method": method, "cause": cause, "policy": policy, "statistic": statistic}
        for method in ("rollout", "gradient", "raw")
        for cause in ("occlusion", "knockout")
        for policy in ("keep", "drop")
        for statistic in ("spearman", "overlap")
    ]
    return spread_around(pd.DataFrame(rows), rng)


def parts_table(rng):
    measures = ("tokens", "attention", "rollout", "gradient", "delete", "knockout")
    parts = ("note", "a long name of a document", "question")
    rows = [{"measure": measure, "part": part, "over": "prompts"} for measure in measures for part in parts]
    made = spread_around(pd.DataFrame(rows).assign(n_prompts=3), rng)
    return made.assign(rank=made.groupby("measure")["mean"].rank(ascending=False).astype(int))


def changes_table(run, rng):
    rows = [
        {"metric": metric, "layer": head.layer, "head": head.head, "distance_mean": rng.random()}
        for metric in run.metrics
        for head in run.all_heads
    ]
    made = spread_around(pd.DataFrame(rows), rng).rename(columns={"mean": "change_mean"})
    given = {"effect_base": 0.5, "effect_other": 0.25, "p_value": 0.4, "p_adjusted": 0.5, "significant": False}
    given |= {"distance_sd": 0.01, "distance_low": made["distance_mean"] - 0.05, "roles_base": "", "roles_other": ""}
    given |= {"distance_high": made["distance_mean"] + 0.05, "rank": np.arange(len(made)) + 1, "distance_rank": 1}
    return made.assign(**given).reindex(columns=list(TABLES["changes"].columns))


def spread_around(table, rng):
    mean = rng.uniform(-0.9, 0.9, len(table))
    return table.assign(mean=mean, ci_low=mean - 0.1, ci_high=mean + 0.2, q_value=0.1)


def drawn_of(run, look=SCREEN):
    return {name: draw for name, _, _, draw in figures._drawings(run, look)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return whole_run(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Long labels, and more of everything than a figure has room for."""
    return whole_run(tmp_path_factory.mktemp("wide"), tokens=LONG, n_layers=24, n_heads=4, model="m" * 30)


# --- for a paper ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paper(run, tmp_path_factory):
    """The folder of a run's figures for a paper."""
    folder = tmp_path_factory.mktemp("paper")
    draw_for_paper(replace(run, path=folder), views=("report", "saliency"))
    return folder / "figures" / "paper"


def rows_in(folder, name):
    """The rows of a figure's numbers, by title."""
    with (folder / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.soak
def test_a_paper_gets_each_figure_at_two_widths_with_its_caption_and_its_numbers(run, paper):
    names = {"saliency", *(name for name, *_ in figures._drawings(run, PAPER))}
    assert len(names) > 15
    drawn = {f"{name}_{wide}.{kind}" for name in names for wide in ("column", "page") for kind in ("svg", "pdf", "png")}
    beside = {f"{name}.{kind}" for name in names for kind in ("txt", "csv")}
    assert {path.name for path in paper.iterdir()} == drawn | beside
    for name in names:
        caption = (paper / f"{name}.txt").read_text(encoding="utf-8")
        assert len(caption) > 40
        assert caption.count("\n") == 1
        assert "logit_diff" not in caption
        assert len(rows_in(paper, name)) > 1
    for look, inches in (("column", 3.3), ("page", 6.8)):
        svg = (paper / f"saliency_{look}.svg").read_text(encoding="utf-8")
        assert float(re.search(r'width="([\d.]+)pt"', svg)[1]) == pytest.approx(72 * inches)
    scores = [float(row["score"]) for row in rows_in(paper, "saliency") if row["prompt"] == "1"]
    assert scores == pytest.approx(colour(run).texts[1].by["word"].score, rel=1e-5)


@pytest.mark.soak
@pytest.mark.parametrize(("look", "inches"), [("column", 3.3), ("page", 6.8)])
def test_a_figure_for_a_paper_has_its_width_and_letters_as_text(paper, look, inches):
    svg = (paper / f"rollout_{look}.svg").read_text(encoding="utf-8")
    assert float(re.search(r'width="([\d.]+)pt"', svg)[1]) <= 72 * inches + 0.1
    texts = re.findall(r"<text[^>]*>([^<]+)</text>", svg)
    assert {"Mary", "(b) Mean pattern", "key (attended to)"} <= set(texts)
    pdf = (paper / f"rollout_{look}.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/FontFile2" in pdf, "TrueType, embedded"
    assert b"/Type3" not in pdf
    screen = figures.as_picture("", "", "", heatmap(weights(whole_run(paper), 0, "L1H2")), SCREEN)
    assert b"<text" not in screen.svg
    assert not screen.pdf


def test_a_map_for_a_paper_fills_its_width(wide):
    for look in (PAPER, PAGE):
        assert drawn_of(wide, look)["effect_loss"]().get_size_inches()[0] == pytest.approx(look.width)


@pytest.mark.soak
def test_the_numbers_beside_a_figure_are_those_it_draws(run, paper):
    by_name = {row["name"]: row for row in rows_in(paper, "effect_loss")}
    mean = run.data["effect"].sel(metric="loss").mean("prompt")
    for head in run.all_heads:
        assert float(by_name[str(head)]["mean effect"]) == pytest.approx(float(mean.sel(head.place)), rel=1e-5)
        assert float(by_name[str(head)]["low"]) == pytest.approx(run.claims("loss")[head].low, rel=1e-5)
    whole = run.data["mlp_effect"].sel(metric="loss").mean("prompt").values
    assert [float(by_name[f"L{at} MLP"]["mean effect"]) for at in range(3)] == pytest.approx(whole, rel=1e-5)
    first = rows_in(paper, "strongest_loss")[0]
    effect = run.effect("loss", run.top_heads("loss", 1)[0])
    assert [float(first[f"prompt {at}"]) for at in range(3)] == pytest.approx(effect, rel=1e-5)
    seen = [row for row in rows_in(paper, "rollout") if row["panel"] == "Mean pattern"]
    np.testing.assert_allclose(
        [float(row["weight"]) for row in seen],
        run.data["pattern"].values[0].astype(float).mean(axis=(0, 1)).ravel(),
        rtol=1e-5,
    )
    assert [(row["query"], row["key"]) for row in seen[:6]] == [
        *(("When", key.strip()) for key in SHORT),
        ("Mary", "When"),
    ]
    roles = rows_in(paper, "roles")
    assert {row["panel"] for row in roles} == {"induction", "previous_token"}
    scores = run.data["role_score"].sel(role="induction").values.T
    np.testing.assert_allclose(
        [float(row["score"]) for row in roles if row["panel"] == "induction"], scores.ravel(), rtol=1e-5
    )


def test_the_numbers_of_each_kind_of_chart_as_rows():
    heat = {
        "axes": ["", "layer"],
        "value": "score",
        "panels": [{"name": "p", "rows": ["a"], "columns": [0, 1], "values": [[1, None]]}],
    }
    assert rows_of({"kind": "heat", **heat}) == [
        ["panel", "row", "layer", "score"],
        ["p", "a", 0, 1],
        ["p", "a", 1, None],
    ]
    bars = {"kind": "bars", "rows": "pair", "value": "more", "bars": [{"label": "x", "value": 2}]}
    assert rows_of(bars) == [["pair", "more"], ["x", 2]]
    pairs = {"kind": "pairs-of-dots", "x": {"label": "prompt"}, "series": ["a", "b"], "pairs": [[1, 2], [3, 4]]}
    assert rows_of(pairs) == [["prompt", "a", "b"], [0, 1, 2], [1, 3, 4]]
    curve = {"x": {"label": "layer", "values": [0, 1]}, "series": [{"name": "s", "values": [5, 6]}]}
    curve["band"] = {"name": "random", "low": [1, 2], "high": [3, 4]}
    assert rows_of({"kind": "curves", "panels": [curve]})[1:] == [
        ["layer", "s", 0, None, 5, None, None],
        ["layer", "s", 1, None, 6, None, None],
        ["layer", "random", 0, None, None, 1, 3],
        ["layer", "random", 1, None, None, 2, 4],
    ]
    point = {"series": 0, "mean": 1, "low": 0, "high": 2, "prompts": [7, 8]}
    dots = {
        "kind": "dots",
        "rows": "set",
        "series": ["s"],
        "panels": [{"name": "", "rows": [{"label": "a", "points": [point]}]}],
    }
    assert rows_of(dots) == [
        ["panel", "set", "series", "mean", "low", "high", "prompt 0", "prompt 1"],
        ["", "a", "s", 1, 0, 2, 7, 8],
    ]


# --- where writing stands -----------------------------------------------------------------------------------------


def written(figure, look):
    """Every text that is drawn, with its box in pixels."""
    texts, draw = [], Text.draw

    def noted(text, renderer, *rest, **options):
        texts.append(text)
        draw(text, renderer, *rest, **options)

    with style("", look), warnings.catch_warnings(), pytest.MonkeyPatch.context() as patched:
        warnings.simplefilter("ignore", UserWarning)  # of letters that no font has
        figure.draw_without_rendering()  # twice, as the layout of a picture is computed
        patched.setattr(Text, "draw", noted)
        figure.draw_without_rendering()
    last = {id(text): text for text in texts if text.get_text().strip()}
    return [(text.get_text(), text.get_window_extent()) for text in last.values()]


def overlap(labels):
    """How far labels that stand one below the other reach into each other, in pixels."""
    boxes = [label.get_window_extent() for label in labels if label.get_text().strip()]
    down = sorted((box.y0, box.y1) for box in boxes)
    return max((a[1] - b[0] for a, b in pairwise(down)), default=0.0)


def check_layout(name, figure, look):
    wide, high = figure.get_size_inches()
    assert 0 < wide <= look.width + 0.3 + 1e-9, f"{name} is {wide:.1f} inches wide"
    assert 0.7 < high < 16, f"{name} is {high:.1f} inches high"
    texts, edge = written(figure, look), figure.bbox
    for text, box in texts:
        inside = box.y0 >= -3 and box.y1 <= edge.height + 3 and box.x0 >= -3
        inside &= look.titles or box.x1 <= edge.width + 3  # titles of a screen may be long
        assert inside, f"{name}: {text[:40]!r} leaves the figure: {box} of {edge}"
    for axes in figure.axes:
        if axes.get_visible() and not hasattr(axes, "_colorbar"):
            box = axes.get_window_extent()
            assert min(box.width, box.height) > 0.25 * figure.dpi, f"{name}: an axes of {box.width} × {box.height}"
            room = 0.25 * look.small * figure.dpi / 72
            assert overlap(axes.get_yticklabels()) <= room, f"{name}: labels stand in each other"


def every_figure(run, look):
    yield from drawn_of(run, look).items()
    layers = replace(run, data=run.data.drop_vars(["effect", "ablated"]))
    yield from ((name, draw) for name, draw in drawn_of(layers, look).items() if name.startswith("layers_"))
    shown = weights(run, 0, "L1H2")
    yield "heatmap", lambda: heatmap(shown, look)
    yield "heatmaps", lambda: heatmaps([shown] * 5, 3, look)
    yield "lines", lambda: lines(shown, look)
    table = pd.DataFrame({name: [1.0, -2.0, 0.5] for name in ("q", "k", "product")})
    table.attrs["title"] = "L1H2: one → other"
    yield "products", lambda: products(table, look)
    yield "saliency", lambda: words.draw_saliency(run, prompts=[0], look=look)
    yield "follow", lambda: words.draw_follow(run, 0, len(run.tokens(0)[0]) - 1, [0, 1], look)


def once(run, look):
    """Every kind of figure once: of one metric, and of one head."""
    more = ("_loss", *(f"_{head}" for head in run.top_heads("logit_diff", 4)[1:]))
    return ((name, draw) for name, draw in every_figure(run, look) if not name.endswith(more))


@pytest.mark.parametrize("look", most([PAPER, PAGE], 1))
def test_every_figure_on_paper_holds_its_writing_and_can_be_seen(run, look):
    for name, draw in once(run, look):
        check_layout(name, draw(), look)


def test_heads_beside_a_map_with_layers_and_mlps_are_numbered_as_can_be_read(tmp_path):
    """Sixteen heads of 24 layers in a column: every second has its number."""
    many = whole_run(tmp_path, n_layers=24, n_heads=16)
    check_layout("effect_loss", figure := drawn_of(many, PAPER)["effect_loss"](), PAPER)
    labels = list(ticks(figure.axes[0].yaxis).values())
    assert labels == [*map(str, range(0, 16, 2)), "all heads", "MLP"]


@pytest.mark.parametrize(
    "name", ["effect_loss", "rollout", "positions_loss", "pairs_loss", "sets_loss", "pruning_loss"]
)
def test_figures_of_long_labels_and_many_heads_hold_their_writing_in_a_column(wide, name):
    check_layout(name, drawn_of(wide, PAPER)[name](), PAPER)


@pytest.mark.soak
def test_every_figure_of_long_labels_and_many_heads_holds_its_writing_and_can_be_seen(wide):
    for name, draw in once(wide, SCREEN):
        check_layout(name, draw(), SCREEN)


# --- what is drawn ------------------------------------------------------------------------------------------------


def ticks(axis):
    """The place and the label of each tick."""
    return dict(zip(axis.get_ticklocs().tolist(), (each.get_text() for each in axis.get_ticklabels()), strict=True))


def bars(axes, upright=False):
    """Of each set of dots with bars: its label, and the middle, low and high ends along the bars."""
    made = {}
    for each in axes.containers:
        line, _, (segments,) = each
        ends = np.array(segments.get_segments())
        made[each.get_label()] = (line.get_ydata() if upright else line.get_xdata(), *ends[:, :, int(upright)].T, line)
    return made


def without_effects(run):
    return replace(run, data=run.data.drop_vars(["effect", "ablated"]))


def test_the_figure_of_layers_has_means_and_standard_errors(run):
    drawn = bars(drawn_of(without_effects(run))["layers_loss"]().axes[0], upright=True)
    assert list(drawn) == ["all heads", "MLP"]
    for label, name in (("all heads", "layer_effect"), ("MLP", "mlp_effect")):
        values = run.data[name].sel(metric="loss").values
        mean, error = values.mean(axis=0), values.std(axis=0, ddof=1) / 3**0.5
        np.testing.assert_allclose(drawn[label][:3], [mean, mean - error, mean + error])


def test_the_figure_of_layers_of_one_prompt_has_no_error(run):
    one = without_effects(run)
    one = replace(one, data=one.data.isel(prompt=[0]))
    mean, low, high, _ = bars(drawn_of(one)["layers_loss"]().axes[0], upright=True)["MLP"]
    np.testing.assert_array_equal(mean, one.data["mlp_effect"].sel(metric="loss").values[0])
    np.testing.assert_array_equal([low, high], [mean, mean])


def test_the_figure_of_methods_has_each_agreement_with_its_interval(run):
    figure = drawn_of(run)["methods"]()
    order = list(ticks(figure.axes[0].yaxis).values())
    without_special = run.methods.query("statistic == 'spearman' and policy == 'drop'")
    without_special = without_special.groupby("method")["mean"].mean().sort_values()
    assert order == list(without_special.index), "the best on top by the last policy"
    for axes, policy in zip(figure.axes, ("keep", "drop"), strict=True):  # noqa: B007 (queries read it)
        drawn = bars(axes)
        assert list(drawn) == ["occlusion", "knockout"]
        for cause, (mean, low, high, line) in drawn.items():
            rows = run.methods.query("statistic == 'spearman' and policy == @policy and cause == @cause")
            rows = rows.set_index("method").loc[order]
            np.testing.assert_allclose([mean, low, high], rows[["mean", "ci_low", "ci_high"]].T)
            beside = {"occlusion": -0.15, "knockout": 0.15}[cause]
            np.testing.assert_allclose(line.get_ydata(), np.arange(3) + beside)


def test_the_figure_of_parts_has_shares_on_the_left_and_causes_on_the_right(run):
    left, right = drawn_of(run)["parts"]().axes
    of_cause = run.parts.query("measure == 'knockout'").sort_values("rank")
    order = list(ticks(left.yaxis).values())
    assert order == list(of_cause["part"])[::-1], "the largest cause on top"
    assert set(ticks(right.yaxis).values()) == {""}
    assert right.get_xlabel() == "nats when the part is taken away (95 % interval)"
    names = {"delete": "it is removed", "knockout": "attention to it is knocked out"}
    for axes, measures in ((left, ("tokens", "attention", "rollout", "gradient")), (right, names)):
        drawn = bars(axes)
        assert list(drawn) == [names.get(measure, measure) for measure in measures]
        for number, measure in enumerate(measures):
            rows = run.parts[run.parts["measure"] == measure].set_index("part").loc[order]
            mean, low, high, line = drawn[names.get(measure, measure)]
            np.testing.assert_allclose([mean, low, high], rows[["mean", "ci_low", "ci_high"]].T)
            n = len(measures)
            np.testing.assert_allclose(line.get_ydata(), np.arange(3) - 0.6 / n * (number - (n - 1) / 2))


def test_the_figure_of_sets_has_a_dot_a_prompt_and_a_bar_of_an_error_each_way(run):
    axes = drawn_of(run)["sets_loss"]().axes[0]
    effect = run.data["set_effect"].sel(metric="loss").values
    order = np.argsort(-np.abs(effect.mean(axis=0)))
    names = run.data["set"].values[order]
    shown = [name if len(name) <= 40 else name[:39] + "…" for name in names]
    assert list(ticks(axes.yaxis).values()) == shown
    dots = [np.asarray(each.get_offsets()) for each in axes.collections]
    np.testing.assert_allclose([each[:, 0] for each in dots], effect.T[order])
    assert [set(each[:, 1]) for each in dots] == [{0}, {1}, {2}]
    for row, at in enumerate(order):
        mean, error = effect[:, at].mean(), effect[:, at].std(ddof=1) / 3**0.5
        upright, flat = axes.lines[1 + 2 * row : 3 + 2 * row]
        np.testing.assert_allclose(upright.get_xdata(), [mean, mean])
        assert min(upright.get_ydata()) < row < max(upright.get_ydata())
        np.testing.assert_allclose(flat.get_xdata(), [mean - error, mean + error])
        assert set(flat.get_ydata()) == {row}
        assert to_hex(axes.collections[row].get_facecolor()[0]) == TONE["helps" if mean > 0 else "hurts"]
    low, high = axes.get_ylim()
    assert low > high, "the largest on top"


def test_the_figure_of_pruning_has_a_line_an_order_and_a_band_of_the_random_ones(run):
    axes = drawn_of(run)["pruning_loss"]().axes[0]
    mean = run.data["cumulative_effect"].sel(metric="loss").mean("prompt").values
    drawn = {line.get_label(): line for line in axes.lines[1:]}
    assert list(drawn) == ["effect", "greedy"]
    for name, row in (("effect", 0), ("greedy", 2)):
        np.testing.assert_allclose(drawn[name].get_xydata(), np.column_stack([np.arange(1, 6), mean[row]]))
    assert len({line.get_color() for line in drawn.values()}) == len({line.get_linestyle() for line in drawn.values()})
    (band,) = axes.collections
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices.round(9)}
    low, high = mean[[1, 3]].min(axis=0), mean[[1, 3]].max(axis=0)
    assert corners >= {(at + 1.0, round(float(end), 9)) for side in (low, high) for at, end in enumerate(side)}


def image_of(axes):
    return np.ma.filled(axes.images[0].get_array().astype(float), np.nan)


def test_the_figure_of_positions_has_the_effects_of_its_prompt(run):
    figure = drawn_of(run)["positions_loss"]()
    effect = run.data["position_effect"].sel(metric="loss")
    rows = list(ticks(figure.axes[0].yaxis).values())
    size = {str(head): float(abs(effect.sel(head.place).mean("prompt")).max()) for head in run.all_heads}
    assert rows == sorted(size, key=size.__getitem__, reverse=True)[:12]
    shown = image_of(figure.axes[0])
    np.testing.assert_allclose(shown, [effect.sel(Head.parse(name).place).values[0] for name in rows])
    assert list(ticks(figure.axes[0].xaxis).values()) == [token.strip() for token in SHORT]
    low, high = figure.axes[0].images[0].get_clim()
    assert -low == high == pytest.approx(np.abs(shown).max())


def test_the_figure_of_maps_has_the_mean_shares_of_the_way_to_the_corrupted_run(run):
    figure = drawn_of(run)["maps_loss"]()
    data = run.data.sel(metric="loss")
    apart = float((data["corrupted"] - data["clean"]).mean())
    for axes, name in zip(figure.axes, ("resid_effect", "attn_effect"), strict=False):
        np.testing.assert_allclose(image_of(axes), data[name].mean("prompt").values / apart)
        assert list(ticks(axes.xaxis).values()) == [token.strip() for token in SHORT]
    assert list(ticks(figure.axes[0].yaxis).values()) == ["L0", "L1", "L2", "end"]
    low, high = figure.axes[0].images[0].get_clim()
    assert -low == high


def test_the_figure_of_roles_has_their_scores_and_a_dot_for_each_head_with_one(run):
    figure = drawn_of(run)["roles"]()
    for axes, role in zip(figure.axes, ("induction", "previous_token"), strict=False):
        score, given = (run.data[f"role_{name}"].sel(role=role).values for name in ("score", "given"))
        np.testing.assert_allclose(image_of(axes), score.T)
        dots = {tuple(each) for each in axes.collections[0].get_offsets().astype(int).tolist()}
        assert dots == set(zip(*np.nonzero(given), strict=True))
        assert axes.images[0].get_clim() == (0, 1)


def test_the_figures_of_changes_have_the_mean_over_prompts(run):
    drawn = drawn_of(run)
    for name, variable in (("change_loss", "effect_change"), ("pattern_distance", "pattern_distance")):
        array = run.data[variable]
        mean = (array.sel(metric="loss") if "metric" in array.dims else array).mean("prompt")
        image = drawn[name]().axes[0].images[0]
        np.testing.assert_allclose(image.get_array(), mean.transpose("head", "layer"))
        most = float(abs(mean).max())
        assert image.get_clim() == pytest.approx((-most if variable == "effect_change" else 0, most))
    base, other = (run.data[name].sel(metric="loss").values for name in ("clean", "other_clean"))
    axes = drawn["prompts_loss"]().axes[0]
    lines, *dots = axes.collections
    np.testing.assert_allclose([each.get_offsets()[:, 1] for each in dots], [base, other])
    assert [each.get_label() for each in dots] == ["tiny", "the other"]
    np.testing.assert_allclose([segment[:, 1] for segment in lines.get_segments()], np.stack([base, other], axis=1))


@pytest.mark.parametrize("draw", [changes.effects, together.pairs])
@pytest.mark.parametrize(
    ("metric", "low", "high"),
    [("loss", "hurts", "helps"), ("logit_diff", "helps", "hurts"), ("kl", "hurts", "matters")],
)
def test_the_ends_of_a_map_of_differences_say_what_they_are(run, draw, metric, low, high):
    """Of a distance more is no help: it matters more."""
    metrics = ["kl" if metric == "kl" else "loss", "logit_diff"]
    renamed = replace(run, data=run.data.assign_coords(metric=metrics))
    image = draw(renamed, metric, SCREEN).axes[0].images[0]
    least, most = image.get_clim()
    assert most == -least > 0
    assert [to_hex(image.cmap(end)) for end in (0.0, 1.0)] == [TONE[low], TONE[high]]


def test_the_most_changed_head_is_shown_in_both_models_where_they_are_furthest_apart(run):
    table = run.changes.query("metric == 'logit_diff'").sort_values("distance_mean")
    last = table.iloc[-1]
    head = Head(int(last["layer"]), int(last["head"]))
    prompt = int(run.data["pattern_distance"].sel(head.place).values.argmax())
    axes = drawn_of(run)["most_changed"]().axes
    for each, name, model in zip(axes, ("pattern", "other_pattern"), ("tiny", "the other"), strict=True):
        np.testing.assert_allclose(image_of(each), run.data[name].sel(head.place).values[prompt], rtol=1e-6)
        assert each.get_title(loc="left") == f"{head} of {model}\nprompt {prompt}"
        assert list(ticks(each.xaxis).values()) == [token.strip() for token in SHORT]


def test_both_models_of_the_most_changed_head_have_the_scale_of_the_larger_weight(run):
    weaker = replace(run, data=run.data.assign(other_pattern=run.data["other_pattern"] * 0.5))
    axes = drawn_of(weaker)["most_changed"]().axes
    largest = [np.nanmax(image_of(each)) for each in axes]
    assert largest == pytest.approx([1, 0.5], abs=1e-3)
    assert [each.images[0].norm.vmax for each in axes] == pytest.approx([1, 1], abs=1e-3)


def test_of_equal_patterns_the_head_whose_effect_changed_most_is_shown(run):
    table = run.changes.assign(distance_mean=0.0)
    same = replace(run, changes=table)
    most = table.query("metric == 'logit_diff'").pipe(lambda rows: rows.loc[rows["change_mean"].abs().idxmax()])
    assert figures.changes.most_changed(same) == Head(int(most["layer"]), int(most["head"]))


def test_the_figure_of_rollout_has_rollout_mean_and_the_top_head(run):
    pattern = run.data["pattern"].values[0].astype(float)
    mixed = [0.5 * layer.mean(axis=0) + 0.5 * np.eye(5) for layer in pattern]
    rolled = mixed[2] @ mixed[1] @ mixed[0]
    axes = drawn_of(run)["rollout"]().axes
    for each, weights_, title in zip(
        axes,
        (rolled, pattern.mean(axis=(0, 1)), pattern[1, 2]),
        ("Attention rollout", "Mean pattern", "L1H2, largest effect on logit difference"),
        strict=True,
    ):
        np.testing.assert_allclose(image_of(each), weights_, atol=2e-3)
        assert each.get_title(loc="left").replace("\n", " ") == title
        assert (each.images[0].norm.gamma, each.images[0].norm.vmin, each.images[0].norm.vmax) == (0.5, 0, 1)


def test_the_figure_of_rollout_shows_a_learnt_sink_as_the_last_column(run):
    pattern = run.data["pattern"] * 0.75
    sunk = replace(run, data=run.data.assign(pattern=pattern, sink=pattern.isel(key=0, drop=True) * 0 + 0.25))
    for axes in drawn_of(sunk)["rollout"]().axes[1:]:
        np.testing.assert_allclose(image_of(axes)[:, -1], 0.25, atol=2e-3)
        assert list(ticks(axes.xaxis).values())[-1] == "(sink)"


def test_figures_of_an_encoder_decoder_have_a_panel_for_each_stack(tmp_path):
    t5 = fake_t5(tmp_path)
    axes = drawn_of(t5)["rollout"]().axes
    shapes = [(9, 9), (4, 4), (4, 9), (4, 9)]
    assert [image_of(each).shape for each in axes] == shapes
    titles = [
        "Mean encoder pattern",
        "Mean decoder pattern",
        "Mean cross pattern",
        "cross.L1H2, largest effect on loss",
    ]
    assert [each.get_title(loc="left").partition("\n")[0] for each in axes] == titles
    maps = drawn_of(t5)["effect_loss"]().axes[:3]
    mean = t5.data["effect"].mean("prompt")[0]
    for each, stack, n in zip(maps, ("encoder", "decoder", "cross"), (3, 2, 2), strict=True):
        np.testing.assert_allclose(image_of(each), mean.sel(stack=stack).transpose("head", "layer")[:, :n])
        assert each.get_ylabel() == f"{stack}, head"


def test_the_map_of_effects_has_layers_and_mlps_under_the_heads(run):
    axes = drawn_of(run)["effect_loss"]().axes[0]
    data = run.data.sel(metric="loss").mean("prompt")
    rows = [*data["effect"].transpose("head", "layer").values, data["layer_effect"].values, data["mlp_effect"].values]
    np.testing.assert_allclose(image_of(axes), rows, rtol=1e-6)
    assert list(ticks(axes.yaxis).values()) == ["0", "1", "2", "3", "all heads", "MLP"]
    most = np.abs(rows).max()
    assert axes.images[0].get_clim() == pytest.approx((-most, most))
    lines = [set(line.get_ydata()) for line in axes.lines]
    assert {3.5} in lines, "a line between the heads and what is below"


def test_the_map_of_a_distance_starts_at_zero_and_strikes_nothing_through(tmp_path):
    run = fake_run(tmp_path, metrics=["kl"], n_prompts=2)
    axes = drawn_of(run)["effect_kl"]().axes[0]
    assert axes.images[0].get_clim()[0] == 0
    assert not axes.lines
    assert not any(np.ma.filled(axes.images[0].get_array(), 0).ravel() < 0)
    assert "darker matters more" in axes.get_title(loc="left")


def test_the_map_dots_the_heads_beyond_chance_and_says_by_which_rule(run):
    table = run.heads.assign(p_adjusted=np.where((run.heads["layer"] == 1) & (run.heads["head"] == 2), 0.001, 0.9))
    axes = drawn_of(replace(run, heads=table))["effect_loss"]().axes[0]
    assert axes.collections[0].get_offsets().tolist() == [[1, 2]]
    title = axes.get_title(loc="left").replace("\n", " ")
    assert "; dot: max-T p < 0.05" in title
    assert "frame" not in title
    assert "grey: not ablated" not in title


def frames(axes):
    """The places (across, down) of the framed cells of a map."""
    return {(each.get_x() + 0.42, each.get_y() + 0.42) for each in axes.patches if not each.get_hatch()}


def test_the_map_frames_important_heads_and_dots_those_that_are_only_shown(run):
    """As the page does: L1H2 is important, L0H0 only shown to have an effect, the others neither."""
    place = list(zip(run.heads["layer"], run.heads["head"], strict=True))
    p_adjusted = [0.001 if each in ((1, 2), (0, 0)) else 0.9 for each in place]
    table = run.heads.assign(p_adjusted=p_adjusted, important=[each == (1, 2) for each in place])
    axes = drawn_of(replace(run, heads=table))["effect_loss"]().axes[0]
    assert frames(axes) == {(1, 2)}
    assert axes.collections[0].get_offsets().tolist() == [[0, 0]]
    assert "frame: important, beyond ±5 % of clean" in axes.get_title(loc="left").replace("\n", " ")


def test_the_map_of_untested_heads_has_no_marks(run):
    axes = drawn_of(replace(run, heads=run.heads.assign(p_adjusted=np.nan, important=True)))["effect_loss"]().axes[0]
    assert not frames(axes)
    assert not axes.collections


def test_the_strongest_heads_have_a_dashed_line_at_their_direct_effect(run):
    axes = drawn_of(run)["strongest_loss"]().axes[0]
    dashed = [float(line.get_xdata()[0]) for line in axes.lines if line.is_dashed()]
    expected = [float(run.effect("loss", head, "direct").mean()) for head in run.top_heads("loss", 12)]
    assert dashed == pytest.approx(expected)


@pytest.mark.parametrize("look", [SCREEN, PAPER, PAGE])
@pytest.mark.parametrize("name", ["effect_loss", "roles", "rollout", "positions_loss", "pairs_loss", "change_loss"])
def test_a_colour_bar_is_as_high_as_its_map(run, look, name):
    figure = drawn_of(run, look)[name]()
    with style("", look):
        figure.draw_without_rendering()
    (map_, bar), *more = [(axes, child) for axes in figure.axes for child in axes.child_axes]
    assert not more, "one bar"
    map_box, bar_box = map_.get_window_extent(), bar.get_window_extent()
    assert (bar_box.y0, bar_box.y1) == pytest.approx((map_box.y0, map_box.y1))
    assert 0 < bar_box.x0 - map_box.x1 < 0.1 * figure.dpi


def test_panels_of_methods_have_one_scale(run):
    one, other = drawn_of(run, PAPER)["methods"]().axes
    assert one.get_xlim() == other.get_xlim()
    ends = run.methods.query("statistic == 'spearman'")[["ci_low", "ci_high"]]
    assert one.get_xlim()[0] < ends.min().min()
    assert one.get_xlim()[1] > ends.max().max()


def test_the_rows_of_parts_stand_at_one_height_in_both_panels(run):
    """The question has no cause: its row is empty there, and the others do not move."""
    lacking = replace(run, parts=run.parts.query("part != 'question' or measure not in ('delete', 'knockout')"))
    left, right = drawn_of(lacking)["parts"]().axes
    assert left.get_ylim() == right.get_ylim() == (-0.6, 2.6)


@pytest.mark.parametrize("name", ["rollout", "methods", "roles", "parts", "most_changed"])
def test_several_panels_have_letters_in_a_paper_and_names_on_both(run, name):
    for look in (PAPER, PAGE):
        titles = [axes.get_title(loc="left") for axes in drawn_of(run, look)[name]().axes if axes.get_visible()]
        assert len(titles) > 1
        assert [title[:4] for title in titles] == [f"({letter}) " for letter in "abc"[: len(titles)]]
        assert all(len(title) > 5 for title in titles)


@pytest.mark.parametrize("name", ["effect_logit_diff", "strongest_logit_diff", "pattern_L1H2", "positions_logit_diff"])
def test_a_figure_of_one_panel_has_no_title_in_a_paper_and_names_its_metric_in_words(run, name):
    figure = drawn_of(run, PAPER)[name]()
    assert figure.axes[0].get_title(loc="left") == ""
    texts = " ".join(text.replace("\n", " ") for text, _ in written(figure, PAPER))
    assert "logit_diff" not in texts
    assert ("attention weight" if "pattern" in name else "effect on logit difference, logits") in texts


def test_lines_are_as_wide_as_their_look(run):
    assert lines(weights(run, 0, "L1H2"), PAPER).get_size_inches()[0] == PAPER.width
    assert lines(weights(run, 0, "L1H2"), SCREEN).get_size_inches()[0] == 5


def many_tokens(shown, n):
    """Weights on n tokens that are their numbers."""
    axis = replace(
        shown.queries,
        place=np.arange(n),
        text=tuple(map(str, range(n))),
        **{name: np.zeros(n, int) for name in ("special", "sentence")},
        kept=np.ones(n, bool),
    )
    return replace(shown, values=np.eye(n), queries=axis, keys=axis)


@pytest.mark.parametrize(("look", "every"), [(SCREEN, 1), (PAPER, 4), (PAGE, 2)])
def test_of_70_tokens_as_many_are_labelled_as_stand_apart(run, look, every):
    figure = heatmap(many_tokens(weights(run, 0, "L1H2"), 70), look)
    axes = figure.axes[0]
    for axis in (axes.xaxis, axes.yaxis):
        assert ticks(axis) == {float(at): str(at) for at in range(0, 70, every)}
    with style("", look):
        figure.draw_without_rendering()
    assert overlap(axes.get_yticklabels()) <= 0


@pytest.mark.parametrize("look", [SCREEN, PAPER, PAGE])
def test_a_square_pattern_is_drawn_square_beside_its_names_and_its_bar(wide, look):
    figure = heatmap(weights(wide, 0, "L1H2"), look)
    with style("", look):
        figure.draw_without_rendering()
    box = figure.axes[0].get_window_extent()
    assert box.width == pytest.approx(box.height, rel=0.12)


def test_heatmaps_of_more_numbers_than_weights_span_their_own_scale(run):
    shown = weights(run, 0, "L1H2")
    other = replace(shown, values=np.array([[-2.0, np.nan], [1.0, 3.0]]), unit="score")
    image = heatmap(other).axes[0].images[0]
    assert image.get_clim() == (-2, 3)
    assert heatmap(shown).axes[0].images[0].get_clim() == (0, 1)
    positive = replace(other, values=np.array([[2.0, 3.0]]))
    assert heatmap(positive).axes[0].images[0].get_clim() == (0, 3)


def test_a_grid_of_heatmaps_fills_rows_and_hides_what_is_left(run):
    every = [weights(run, 0, head) for head in run.all_heads[:5]]
    figure = heatmaps(every, 3)
    (axes, bar), (width, height) = figure.axes, figure.get_size_inches()
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, width), (height, 0))
    for image, one in zip(axes.images, every, strict=True):
        np.testing.assert_array_equal(np.ma.filled(image.get_array(), np.nan), one.values)
        assert (image.get_clim(), image.origin) == ((0, 1), "upper")
    left, right, bottom, top = np.array([image.get_extent() for image in axes.images]).T
    np.testing.assert_allclose([left[3], left[4]], left[:2])
    assert left[0] < right[0] < left[1] < right[1] < left[2] < right[2] < width * bar.get_position().x0
    assert top[0] == top[1] == top[2] < bottom[0] < top[3] == top[4] < bottom[3] < height
    assert [text.get_text() for text in axes.texts] == [*map(str, run.all_heads[:5])]
    for text, x, y in zip(axes.texts, left, top, strict=True):  # each above its own image
        assert text.get_position()[0] == x
        assert 0 < y - text.get_position()[1] < 0.15 < y


def test_lines_join_each_query_to_its_keys_the_darker_the_larger(run):
    shown = weights(run, 0, "L1H2")
    axes = lines(shown).axes[0]
    drawn = {tuple(line.get_ydata()): line.get_alpha() for line in axes.lines}
    expected = {(at, to): shown.values[at, to] for at, to in np.ndindex(5, 5) if shown.values[at, to] >= 0.01}
    assert drawn == pytest.approx(expected)
    assert all(tuple(line.get_xdata()) == (0, 1) for line in axes.lines)
    sides = {(text.get_text(), text.get_ha()): text.get_position()[1] for text in axes.texts}
    assert sides == {(token.strip(), ha): at for ha in ("left", "right") for at, token in enumerate(SHORT)}
    thicker = sorted(axes.lines, key=lambda line: line.get_alpha())
    assert thicker[0].get_linewidth() < thicker[-1].get_linewidth()


def test_products_have_a_row_each_with_a_scale_of_its_own():
    table = pd.DataFrame({"q": [1.0, -2.0], "k": [3.0, 0.5], "product": [3.0, -1.0]})
    table.attrs["title"] = "L0H1: a → b"
    panes = products(table).axes
    for axes, name in zip(panes, table.columns, strict=True):
        assert [bar.get_height() for bar in axes.patches] == list(table[name])
        low, high = axes.get_ylim()
        assert -low == high
        assert table[name].abs().max() < high < 1.2 * table[name].abs().max()
    assert [axes.get_ylabel() for axes in panes] == ["query", "key", "query × key"]
    assert panes[0].get_title(loc="left") == "L0H1: a → b"


def test_followed_words_have_a_map_each_on_one_scale(run):
    figure = words.draw_follow(run, 0, "went", ["When", "Mary"])
    pattern = run.data["pattern"].values[0].astype(float)
    for axes, key in zip(figure.axes, (0, 1), strict=False):
        heads, gap, mean = np.split(np.ma.filled(image_of(axes), np.nan), [4, 5], axis=1)
        np.testing.assert_allclose(heads, pattern[:, :, 4, key])
        assert np.isnan(gap).all()
        np.testing.assert_allclose(mean[:, 0], pattern[:, :, 4, key].mean(axis=1))
        assert [*ticks(axes.xaxis).values()] == ["0", "1", "2", "3", "mean"]
        assert axes.images[0].norm.vmax == pytest.approx(pattern[:, :, 4, :2].max())
        assert axes.get_title(loc="left") == f"“went” → “{SHORT[key].strip()}”"
        assert list(ticks(axes.yaxis).values()) == ["0", "1", "2"]


def test_a_figure_as_a_page_is_as_large_as_it_is_drawn(run):
    view = figure_view("a <title>", lambda: lines(weights(run, 0, "L1H2")), "a <note>")
    wide, high = view.figure().get_size_inches()
    assert f'width="{round(96 * wide)}" height="{round(96 * high)}"' in view.html
    assert view.height > 96 * high
    assert '<p class="note">a &lt;note&gt;</p>' in view.html
    assert "<h1>a &lt;title&gt;</h1>" in view.html
    assert 'class="note"' not in figure_view("title", lambda: lines(weights(run, 0, "L1H2"))).html


def test_a_coloured_text_says_how_its_colours_came_about_below_the_words(run):
    axes = words.draw_saliency(run, prompts=[0], head="L1H2").axes[0]
    how = axes.texts[-1]
    assert how.get_text().startswith("A word’s score is the sum over its tokens.\nScaled over each text by itself")
    assert how.get_position()[1] > max(text.get_position()[1] for text in axes.texts[:-1])
    bare = words.draw_saliency(run, prompts=[0], head="L1H2", look=PAPER).axes[0]
    assert [text.get_text() for text in bare.texts][1:] == ["When", "Mary", "and", "John", "went"]


def test_every_figure_is_named_once_and_belongs_to_a_section(run):
    """The names are those of files, the sections those of the report."""
    drawings = [*figures._drawings(run, SCREEN), *figures._drawings(without_effects(run), SCREEN)]
    parts = {name: part for name, part, _, _ in drawings}
    of = {
        **{f"{name}_{metric}": part for name, part in METRIC_FIGURES.items() for metric in ("loss", "logit_diff")},
        **{f"pattern_{head}": "patterns" for head in run.top_heads("logit_diff", 4)},
        **{"patterns": "patterns", "roles": "roles", "rollout": "rollout", "methods": "methods", "parts": "parts"},
        **{"pattern_distance": "changed", "most_changed": "changed"},
    }
    assert parts == of
    names = [name for name, *_ in figures._drawings(run, SCREEN)]
    assert len(names) == len(set(names))


METRIC_FIGURES = {"effect": "map", "strongest": "strongest", "layers": "layers", "change": "changed"}
METRIC_FIGURES |= {"prompts": "changed"} | {name: name for name in ("maps", "positions", "sets", "pruning", "pairs")}


def test_figures_are_drawn_of_what_a_run_has_and_of_nothing_else(run):
    """Each variable or table that is not there takes its figures with it, and no others."""
    gone = {
        "set_effect": {"sets"},
        "cumulative_effect": {"pruning"},
        "pair_effect": {"pairs"},
        "position_effect": {"positions"},
        "pattern": {"pattern", "patterns", "rollout"},
        "role_given": {"roles"},
        "effect_change": {"change", "pattern_distance", "most_changed"},
        "clean_change": {"change", "pattern_distance", "most_changed", "prompts"},
    }
    every = kinds_of(run)
    for variable, figures_of_it in gone.items():
        assert every - kinds_of(replace(run, data=run.data.drop_vars(variable))) == figures_of_it, variable
    assert every - kinds_of(replace(run, methods=pd.DataFrame())) == {"methods"}
    assert every - kinds_of(replace(run, parts=pd.DataFrame())) == {"parts"}
    assert "layers" not in every
    assert "layers" in kinds_of(without_effects(run))


def kinds_of(run):
    names = {name for name, *_ in figures._drawings(run, SCREEN)}
    cut = {"_loss", "_logit_diff"}
    plain = {next((name.removesuffix(end) for end in cut if name.endswith(end)), name) for name in names}
    return {"pattern" if name.startswith("pattern_L") else name for name in plain}


def test_dots_of_heads_that_are_not_shown_are_hollow(run):
    """Of two heads with p-values one is beyond chance; a title says what hollow means."""
    best, next_ = run.top_heads("loss", 2)
    p_adjusted = [0.001 if (row.layer, row.head) == (best.layer, best.head) else 0.9 for row in run.heads.itertuples()]
    tested = replace(run, heads=run.heads.assign(p_adjusted=p_adjusted))
    axes = drawn_of(tested)["strongest_loss"]().axes[0]
    filled = [bool(len(dots.get_facecolor())) for dots in axes.collections]
    filled = dict(zip(ticks(axes.yaxis).values(), filled, strict=True))
    assert filled[str(best)]
    assert not filled[str(next_)]
    assert "(hollow: not shown, max-T p < 0.05)" in axes.get_title(loc="left")
    sure = drawn_of(replace(run, heads=run.heads.assign(p_adjusted=0.001)))["strongest_loss"]().axes[0]
    assert all(len(dots.get_facecolor()) for dots in sure.collections)
    assert "hollow" not in sure.get_title(loc="left")


def test_words_of_a_coloured_text_stand_apart_where_the_text_has_a_space_and_tokens_always(tmp_path):
    made = fake_run(tmp_path, tokens=[["un", "happy", " dog"]])
    inch = 1.2 * SCREEN.letters / 72  # the height of a letter
    for level, gaps in (("word", [0.12, 0.5]), ("token", [0.5, 0.5])):
        figure = words.draw_saliency(made, level, prompts=[0], scores=np.arange(3.0))
        axes = figure.axes[0]
        sheet = words.Sheet(axes, words._WIDTH, 1.2 * SCREEN.letters)
        pieces = axes.texts[:3]
        ends = [piece.get_position()[0] + sheet.measured(piece.get_text()) for piece in pieces]
        found = [after.get_position()[0] - end for after, end in zip(pieces[1:], ends, strict=False)]
        np.testing.assert_allclose(found, np.array(gaps) * inch, atol=0.01)
        assert len({piece.get_position()[1] for piece in pieces}) == 1


@pytest.mark.parametrize("name", ["strongest_loss", "sets_loss", "pairs_loss"])
def test_figures_with_a_row_for_each_have_the_largest_on_top_and_a_line_at_no_effect(wide, name):
    axes = drawn_of(wide)[name]().axes[0]
    low, high = axes.get_ylim()
    assert low > high, "rows are counted from the top"
    size = {
        "strongest_loss": lambda: [float(abs(wide.effect("loss", Head.parse(label)).mean())) for label in labels],
        "sets_loss": lambda: sorted(np.abs(wide.data["set_effect"].sel(metric="loss").mean("prompt").values))[::-1],
        "pairs_loss": lambda: [abs(bar.get_width()) for bar in axes.patches],
    }
    labels = list(ticks(axes.yaxis).values())
    sizes = size[name]()
    assert len(sizes) == len(labels) > 2
    assert sizes == sorted(sizes, reverse=True)
    assert any(set(line.get_xdata()) == {0} for line in axes.lines)
