"""The report of a run that has everything: each section, table and note is there when its data are, and only then."""

import html
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from fakes import fake_run, fake_t5, with_claims
from test_figures import SHORT, whole_run

from harness.config import RequestError
from harness.hooks import Head
from harness.results import Run
from harness.results.run import IN_MEMORY
from harness.views import number_tables, sections, segment_section, selection, terminal
from harness.views.axis import axis, place_of
from harness.views.figures import Picture
from harness.views.payload import payload
from harness.views.report import report
from harness.views.saliency import saliency
from harness.views.selection import choose
from harness.views.token_colours import colour

#: Sections in their order, and for each the variable or the table that it shows; of others the figure.
NEEDS = {
    "changed": "clean_change",
    "map": "effect",
    "strongest": "effect",
    "roles": "role_given",
    "positions": "positions",
    "sets": "sets",
    "pruning": "pruning",
    "pairs": "pairs",
    "methods": "methods",
    "parts": "parts",
    "sources": "attribution",
    "rollout": "pattern",
    "modelview": "pattern",
    "headview": "pattern",
    "head": "pattern",
    "numbers": "effect",
    "prompts": "text",
    "how": "text",
}
PICTURED = ("positions", "sets", "pruning", "pairs", "methods")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return whole_run(tmp_path_factory.mktemp("whole"))


def pictured(*parts):
    return [Picture(f"{part}_loss", part, f"label of {part}", b"", part.encode()) for part in parts]


DRAWN = pictured(*NEEDS)


def without(run, *names):
    """The run without some variables or tables."""
    tables = {name: pd.DataFrame() for name in names if name in ("methods", "parts", "changes", "part_heads")}
    return replace(run, data=run.data.drop_vars([name for name in names if name in run.data]), **tables)


def made(run, drawn=DRAWN, left_out=""):
    return {section.anchor: section for section in sections.sections(run, drawn, left_out)}


def test_a_report_has_each_section_in_order(run):
    assert list(made(run)) == list(NEEDS)


@pytest.mark.parametrize("gone", ["clean_change", "effect", "role_given", "pattern", "parts", "attribution"])
def test_a_section_is_there_when_and_only_when_its_data_are(run, gone):
    also = {"attribution": ("attribution", "cause")}.get(gone, (gone,))
    expected = [anchor for anchor, needed in NEEDS.items() if needed != gone]
    assert list(made(without(run, *also))) == expected


def test_sources_are_there_for_methods_and_for_causes_alone(run):
    assert "sources" in made(without(run, "attribution"))
    assert "sources" in made(without(run, "cause"))


@pytest.mark.parametrize("part", PICTURED)
def test_a_section_of_figures_is_there_when_they_were_drawn(run, part):
    assert part not in made(run, pictured(*[each for each in NEEDS if each != part]))
    body = made(run, pictured(part))[part].body
    assert body.count("<img") == 1
    assert f'alt="label of {part}"' in body


def test_a_section_shows_the_figures_of_its_part_and_no_others(run):
    for anchor, section in made(run).items():
        shown = re.findall(r'<img alt="label of (\w+)"', section.body)
        figured = anchor not in ("head", "headview", "modelview", "sources", "numbers", "prompts", "how")
        assert shown == ([anchor] if figured else []), anchor


def tabs(page):
    """The tabs of a page, and for each the sections in it."""
    listed = re.findall(r'<a href="#tab-([\w-]+)">', re.search(r'<nav class="tabs".*?</nav>', page, re.S)[0])
    panels = re.split(r'<div data-tab="(\w+)" id="tab-\1">', page)[1:]
    held = {
        name: re.findall(r'<section id="(\w+)"', panel) for name, panel in zip(panels[::2], panels[1::2], strict=True)
    }
    assert listed == list(held)
    return held


def test_every_section_is_in_one_tab_and_every_tab_in_the_bar(run):
    held = tabs(report(run, DRAWN))
    assert sorted(anchor for sections in held.values() for anchor in sections) == sorted(NEEDS)
    assert held["overview"] == ["changed", "map", "strongest"]
    assert held["attribution"] == ["methods", "sources", "rollout"]
    assert held["patterns"] == ["modelview", "headview", "head"]
    assert list(held)[-2:] == ["numbers", "how"]


OPENS = {
    ("clean_change",): ["map", "strongest"],
    ("clean_change", "effect"): ["parts"],
    ("clean_change", "effect", "parts"): ["positions"],
    ("clean_change", "effect", "parts", "positions", "sets", "pruning", "pairs"): ["methods", "sources", "rollout"],
}


@pytest.mark.parametrize("gone", OPENS)
def test_a_run_opens_on_what_it_is_about(run, gone):
    drawn = pictured(*[anchor for anchor in NEEDS if anchor not in gone])
    assert tabs(report(without(run, *gone), drawn))["overview"] == OPENS[gone]


def test_a_run_of_patterns_alone_opens_on_every_head(tmp_path):
    held = tabs(report(fake_run(tmp_path, parts=("pattern",)), []))
    assert held["overview"] == ["modelview", "headview", "head"]
    assert held["rollout"] == ["rollout"]


@pytest.mark.parametrize(
    ("anchor", "text", "needed"),
    [
        ("map", sections.LAYERS, ("layer_effect", "mlp_effect")),
        ("map", sections.DIRECT, ("direct",)),
        ("head", sections._SINK, ("sink",)),
    ],
)
def test_an_explanation_stands_where_its_data_do(run, anchor, text, needed):
    full = replace(run, data=run.data.assign(sink=run.data["pattern"].isel(key=0, drop=True)))
    assert text in made(full)[anchor].about
    assert text not in made(without(full, *needed))[anchor].about
    for name in needed[1:]:
        assert text in made(without(full, name))[anchor].about


def test_tests_of_heads_are_explained_where_heads_were_tested(run):
    untested = replace(run, heads=run.heads.assign(p_adjusted=np.nan))
    for anchor, words in (
        ("map", "A faint <b>dot</b> marks"),
        ("strongest", "Hollow: not shown"),
        ("numbers", "max-T"),
    ):
        assert words in made(run)[anchor].about
        assert words not in made(untested)[anchor].about
    assert "max-T p &lt; 0.05: at most a 5 % chance" in made(run)["map"].about
    strict = replace(run, spec={**run.spec, "stats": {"level": 0.01, "min_effect": 0.1, "confidence": 0.9}})
    assert "max-T p &lt; 0.01: at most a 1 % chance" in made(strict)["map"].about
    about = made(strict)["numbers"].about
    for words in ("90 % interval", "p_adjusted &lt; 0.01", "±10 % of the clean", "at most a 1 % chance"):
        assert words in about


def test_a_role_is_chosen_on_its_chart_or_on_the_map_where_neither_it_nor_effects_are(run):
    effects_gone = without(run, "effect")
    assert 'data-chart="roles' in made(effects_gone)["roles"].body
    for each, drawn in ((run, ()), (run, DRAWN), (effects_gone, DRAWN)):
        assert 'id="draw-map"' not in made(each, drawn)["roles"].body
    assert 'id="draw-map"' in made(effects_gone, ())["roles"].body


def test_what_is_read_of_a_source_is_explained_for_an_encoder_decoder(run, tmp_path):
    t5 = made(fake_t5(tmp_path))["rollout"]
    assert sections.CROSS in t5.about
    assert sections.ROLLOUT in made(run)["rollout"].about
    assert t5.title != made(run)["rollout"].title


def test_what_changed_is_a_table_of_heads_or_else_of_roles(run):
    assert 'data-name="changes"' in made(run)["changed"].body
    assert 'data-name="roles_of_both"' in made(without(run, "changes"))["changed"].body
    assert "other metrics are in changes.csv" in made(run)["changed"].body


def test_how_it_was_run_is_the_spec_and_the_manifest(run):
    rows = cells(made(run)["how"].body)
    assert ["prompts.seed", "0"] in rows
    assert ["model.name", "tiny"] in rows
    assert ["wall_time", "71.5"] in rows
    assert ["prompts.text", "[]"] in cells(number_tables.settings({"prompts": {"text": []}, "none": {}}, "spec"))


def test_patterns_that_are_left_out_are_noted_at_the_head(run):
    assert '<p class="note">' not in made(run)["head"].body.replace("'", '"')
    assert "<p class='note'>12 &lt;of&gt; 40</p>" in made(run, left_out="12 <of> 40")["head"].body


def test_the_foot_names_the_directory_or_memory(run):
    assert "Computed in memory. This page loads nothing" in report(replace(run, path=IN_MEMORY), [])
    assert "Made from the run directory" in report(run, [])


TITLES = {
    (): "tiny and the other on ioi: what changed",
    ("clean_change",): "tiny on ioi: effects of ablating attention heads",
    ("clean_change", "effect", "clean"): "tiny on ioi: what attention heads do",
    ("clean_change", "effect"): "tiny on ioi: what attention heads do",
    ("clean_change", "effect", "role_given"): "tiny on ioi: effects of ablating attention heads",
    ("clean_change", "effect", "clean", "role_given"): "tiny on ioi: attention patterns",
}


@pytest.mark.parametrize("gone", TITLES)
def test_the_title_is_what_the_run_is_about(run, gone):
    from harness.views.report import _title

    assert _title(without(run, *gone)) == TITLES[gone]
    traced = run.data[["token", "length"]].assign(part_cause=("part", [1.0] * 3))
    assert _title(replace(run, data=traced)) == "tiny on ioi: which part was used"
    assert _title(replace(run, data=traced.assign(pattern=run.data["pattern"]))) == "tiny on ioi: attention patterns"


# --- tables -------------------------------------------------------------------------------------------------------


def cells(markup):
    """The rows of a table as text."""
    rows = re.findall(r"<tr>(.*?)</tr>", markup, re.S)
    return [[html.unescape(each) for each in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.S)] for row in rows]


def number_of(text):
    return float(text.replace("−", "-")) if text else np.nan


def test_the_table_of_heads_has_every_row_in_order_and_columns_that_were_computed(tmp_path):
    run = with_claims(fake_run(tmp_path, n_prompts=6))
    head, *rows = cells(number_tables.numbers(run))
    by_metric = [run.heads[run.heads["metric"] == metric].sort_values("rank") for metric in ("logit_diff", "loss")]
    table = pd.concat(by_metric)
    assert [row[0] for row in rows] == [f"L{row.layer}H{row.head}" for row in table.itertuples()]
    assert head[:6] == ["head", "metric", "effect_mean", "ci_low", "ci_high", "important"]
    for name in ("effect_mean", "ci_low", "p_adjusted"):
        shown = [number_of(row[head.index(name)]) for row in rows]
        np.testing.assert_allclose(shown, table[name], atol=5.1e-4)
    whole = re.findall(r'data-value="([^"]+)"', number_tables.numbers(run))
    np.testing.assert_allclose([float(each) for each in whole[::7]][:1], table["effect_mean"].iloc[:1], rtol=1e-6)
    assert {"direct_mean", "estimate", "roles", "layer", "stack", "method", "n_prompts"}.isdisjoint(head)
    assert "The same in every row: n_prompts 6; n_clusters 4; method exact." in number_tables.numbers(run)
    assert [row[head.index("significant")] for row in rows] == [
        "yes" if each else "no" for each in table["significant"]
    ]


def test_the_table_of_heads_says_how_many_rows_it_leaves_out(run, monkeypatch):
    assert "rows; all are in heads.csv" not in number_tables.numbers(run)
    monkeypatch.setattr(number_tables, "_ROWS", 5)
    shown = number_tables.numbers(run)
    assert len(cells(shown)) == 1 + 5
    assert "The first 5 of 24 rows; all are in heads.csv." in shown


def test_what_differs_between_rows_is_a_column(run):
    mixed = replace(run, heads=run.heads.assign(method=["fast", "exact"] * 12))
    head, *rows = cells(number_tables.numbers(mixed))
    assert {row[head.index("method")] for row in rows} == {"fast", "exact"}
    assert "The same in every row: n_prompts 3" in number_tables.numbers(mixed)


def test_the_table_of_roles_has_the_highest_score_and_the_heads_with_it(run):
    head, *rows = cells(number_tables.roles(run))
    for row, role in zip(rows, ("induction", "previous_token"), strict=True):
        said = dict(zip(head, row, strict=True))
        data = run.data.sel(role=role)
        layer, at = np.unravel_index(int(data["role_score"].values.argmax()), (3, 4))
        having = sorted(
            zip(*np.nonzero(data["role_given"].values), strict=True), key=lambda x: -data["role_score"].values[x]
        )
        assert said["a head with it"]
        assert said["highest"] == f"L{layer}H{at}"
        assert said["heads"] == str(len(having))
        assert said["which, highest score first"] == ", ".join(f"L{a}H{b}" for a, b in having)
        for column, name in (("score", "score"), ("by chance", "chance"), ("max-T p", "p")):
            assert number_of(said[column]) == pytest.approx(float(data[f"role_{name}"].values[layer, at]), rel=1e-3)
    assert "as many at random (median)" not in head


def test_the_table_of_roles_has_what_all_of_its_heads_do_together(run):
    over, n = ("metric", "prompt", "having"), 3
    effect, draws = np.arange(6.0).reshape(2, n, 1), np.arange(30.0).reshape(2, n, 1, 5) ** 2
    data = run.data.assign(role_effect=(over, effect), random_effect=((*over, "draw"), draws))
    head, first, second = cells(number_tables.roles(replace(run, data=data.assign_coords(having=["induction"]))))
    assert head[-2:] == ["logit_diff, all ablated", "as many at random (median)"]
    assert list(map(number_of, first[-2:])) == pytest.approx([4.0, np.median(draws[1, :, 0].mean(axis=0))], rel=1e-3)
    assert second[-2:] == ["", ""]


def test_a_role_of_many_heads_names_some_and_a_role_without_scores_none(tmp_path):
    run = whole_run(tmp_path, n_layers=4, n_heads=4)
    given = np.zeros((2, 4, 4), bool)
    given[0] = True
    score = run.data["role_score"].values.copy()
    score[1] = np.nan
    over = ("role", "layer", "head")
    head, *rows = cells(
        number_tables.roles(replace(run, data=run.data.assign(role_given=(over, given), role_score=(over, score))))
    )
    (row,) = rows
    named = row[head.index("which, highest score first")]
    assert named.endswith(" …")
    assert named.count("L") == 12


def test_what_is_listed_whole_has_no_sign_of_a_cut(tmp_path):
    """At the limit nothing is cut; one more is."""
    run = whole_run(tmp_path)  # 12 heads
    given = np.zeros((2, 3, 4), bool)
    given[0] = True
    role = replace(run, data=run.data.assign(role_given=(("role", "layer", "head"), given)))
    head, *rows = cells(number_tables.roles(role))
    assert rows[0][head.index("which, highest score first")].count("L") == 12
    assert "…" not in rows[0][head.index("which, highest score first")]
    with pytest.raises(RequestError) as twelve:
        place_of(axis(fake_run(tmp_path, tokens=[[f" w{at}" for at in range(12)]]), 0), "none", "query")
    with pytest.raises(RequestError) as thirteen:
        place_of(axis(fake_run(tmp_path, tokens=[[f" w{at}" for at in range(13)]]), 0), "none", "query")
    assert str(twelve.value).endswith("w10, w11")
    assert str(thirteen.value).endswith("w10, w11, …")


def test_the_bar_changes_from_seconds_each_to_units_a_second_at_one():
    assert "1.0/s" in terminal.bar("sweep", 5, 10, 5.0, 0, width=120)
    assert "1.2 s each" in terminal.bar("sweep", 5, 10, 6.0, 0, width=120)
    assert "/s" not in terminal.bar("sweep", 5, 10, 5.0, 5, width=120), "no unit was done in these seconds"
    assert "each" not in terminal.bar("sweep", 5, 10, 0.0, 0, width=120)
    assert terminal.bar("sweep", 0, 0, 1.0, 0, width=120).endswith("█ 0/0")


def test_the_table_of_changes_is_of_the_leading_metric_in_order(run):
    head, *rows = cells(number_tables.changes(run))
    table = run.changes.query("metric == 'logit_diff'").sort_values("rank")
    assert [row[0] for row in rows] == [f"L{row.layer}H{row.head}" for row in table.itertuples()]
    np.testing.assert_allclose(
        [number_of(row[head.index("change_mean")]) for row in rows], table["change_mean"], rtol=1e-3
    )


def test_the_table_of_prompts_has_each_clean_value(run):
    head, *rows = cells(number_tables.prompts(run))
    for name in ("loss", "logit_diff"):
        shown = [number_of(row[head.index(f"clean {name}")]) for row in rows]
        np.testing.assert_allclose(shown, run.data["clean"].sel(metric=name), rtol=1e-3)
    bare = replace(run, data=run.data.drop_vars(["answer", "clean"]).assign(distractor=("prompt", [""] * 3)))
    assert cells(number_tables.prompts(bare))[0] == ["number", "prompt", "cluster"]


def test_the_table_of_parts_has_each_mean_with_its_interval_the_largest_cause_first(run):
    shown = segment_section.traced(run)
    head, *rows = cells(shown)
    table = run.parts.set_index(["part", "measure"])
    order = run.parts.query("measure == 'knockout'").sort_values("rank")["part"]
    assert [row[0] for row in rows] == list(order)
    measures = ("tokens", "attention", "rollout", "gradient", "delete", "knockout")
    causes = ["cause: it is removed", "cause: attention to it is knocked out"]
    assert head == ["part", *measures[:4], *causes]
    for row in rows:
        for measure, cell in zip(measures, row[1:], strict=True):
            numbers = re.findall(r"[+−]?\d[\d.e−-]*", cell)
            about = table.loc[(row[0], measure)]
            np.testing.assert_allclose(
                list(map(number_of, numbers)), [about["mean"], about["ci_low"], about["ci_high"]], rtol=6e-3, atol=1e-4
            )
            assert ("+" in cell) <= (measure in ("delete", "knockout")), "only causes have a sign"
    assert "Means with 95 % intervals over prompts; every number is in parts.csv." in shown
    assert "Heads that carry it" not in shown


def test_parts_without_an_interval_or_a_cause_are_listed_too(run):
    table = run.parts.assign(ci_low=np.nan, ci_high=np.nan).query("measure == 'tokens' or part == 'note'")
    _, *rows = cells(segment_section.traced(replace(run, parts=table)))
    assert rows[0][0] == "note"
    assert len(rows) == 3
    assert not any("to" in cell for row in rows for cell in row[1:])
    assert rows[1][-1] == ""


def test_the_heads_that_carry_a_part_are_the_first_by_rank(run):
    n = 25
    table = pd.DataFrame({"part": "note", "layer": 1, "head": np.arange(n), "rank": np.arange(n)[::-1] + 1})
    table = table.assign(mean=0.5, ci_low=0.1, ci_high=0.9, p_adjusted=0.01, attention=0.25, n_prompts=3)
    shown = segment_section.traced(replace(run, part_heads=table))
    carrying = cells(shown.partition("Heads that carry it")[2])[1:]
    assert [row[1] for row in carrying] == [f"L1H{at}" for at in range(24, 4, -1)]
    assert carrying[0][2:] == ["0.5000", "0.1000", "0.9000", "0.01000", "0.2500"]
    assert "The 20 of 25 heads" in shown


def test_a_run_in_a_notebook_shows_the_first_three_of_each_metric(tmp_path):
    run = with_claims(fake_run(tmp_path, metrics=["loss", "accuracy", "logit_diff"]))
    shuffled = replace(run, heads=run.heads.sample(frac=1, random_state=0))
    text = Run._repr_html_(shuffled)
    head, *rows = cells(re.sub(r"<tr[^>]*>", "<tr>", text.partition("<thead>")[2]))
    assert len(rows) == 9
    by_metric = {}
    for row in rows:
        by_metric.setdefault(row[head.index("metric")], []).append(
            f"L{row[head.index('layer')]}H{row[head.index('head')]}"
        )
    assert {metric: heads for metric, heads in by_metric.items()} == {
        metric: list(map(str, run.top_heads(metric, 3))) for metric in ("loss", "accuracy", "logit_diff")
    }


# --- what fits in a page ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    return fake_run(tmp_path_factory.mktemp("large"), n_prompts=12, n_layers=6, n_heads=5, lengths=[6, 9, 4] * 4)


def packed_size(run, kept):
    data = payload(run, kept, prompt=kept.prompts[0], head=None)
    return sum(len(packed["data"]) for each in data["patterns"].values() for packed in each["heads"].values())


@pytest.mark.parametrize("budget", [1, 300, 1_000, 3_000, 5_000, 9_000, 12_000, 10**9])
def test_a_page_holds_as_many_patterns_as_fit_and_names_what_is_left_out(large, budget):
    kept = choose(large, budget)
    n_prompts, n_heads = len(kept.prompts), len(kept.heads)
    assert kept.prompts == tuple(range(n_prompts))
    assert kept.heads == tuple(sorted(kept.heads))
    strength = abs(large.data["effect"].mean("prompt"))
    share = (strength / strength.max(["layer", "head"])).max("metric")
    order = sorted(large.all_heads, key=lambda head: -float(share.sel(head.place)))
    assert set(kept.heads) == set(order[:n_heads]), "the strongest by any metric"
    if (n_prompts, n_heads) == (12, 30):
        assert kept.left_out == ""
    else:
        words = f"This page holds the patterns of {n_heads} of 30 heads on {n_prompts} of 12 prompts"
        more = ", the heads being those with the largest effects" if n_heads < 30 else ""
        assert kept.left_out.startswith(f"{words}{more}. All of them are in data.zarr")
        assert n_prompts <= 8
    if n_heads > 1:
        assert packed_size(large, kept) < 1.5 * budget, "estimated from the first prompt"
    if n_prompts > 1:
        assert n_heads >= 23, "prompts are left out before heads are fewer than 24 of 30"


def test_larger_budgets_hold_more(large):
    held = [choose(large, budget) for budget in range(200, 16_000, 200)]
    counts = [(len(kept.prompts), len(kept.heads)) for kept in held]
    products = [a * b for a, b in counts]
    assert counts[0][0] == 1
    assert counts[-1] == (12, 30)
    assert all(b >= 0.8 * a for a, b in pairwise(products))


def test_without_effects_the_first_heads_are_kept(tmp_path):
    run = fake_run(tmp_path, parts=("pattern",), n_prompts=2)
    kept = choose(run, 150)
    assert list(kept.heads) == run.all_heads[: len(kept.heads)]
    assert 0 < len(kept.heads) < 12


def test_areas_count_the_weights_of_every_stack(tmp_path):
    t5 = fake_t5(tmp_path)
    own, read = t5.data["length"].values, t5.data["source_length"].values
    assert selection._areas(t5) == [float(a * a + b * b + a * b) for a, b in zip(own, read, strict=True)]
    run = fake_run(tmp_path, lengths=[3, 5])
    assert selection._areas(run) == [9.0, 25.0]


def test_a_pattern_is_causal_only_where_no_query_looks_ahead(tmp_path):
    run, both = fake_run(tmp_path, n_prompts=2), fake_run(tmp_path, n_prompts=2, causal=False)
    assert selection.is_causal("", [run.pattern(0), run.pattern(1)])
    assert not selection.is_causal("", [run.pattern(0), both.pattern(1)])
    assert not selection.is_causal("", [both.pattern(0)])
    back = run.pattern(0).copy(data=np.broadcast_to(np.eye(8, k=1), (3, 4, 8, 8)))
    assert not selection.is_causal("", [back])
    assert not selection.is_causal("cross", [run.pattern(0)])


def test_the_head_to_open_with_is_the_requested_the_strongest_or_the_first(run, tmp_path):
    assert selection.first_head(run) == Head(1, 2)
    assert selection.first_head(replace(run, spec={**run.spec, "show": {"heads": ["L2H1"]}})) == Head(2, 1)
    assert selection.first_head(fake_run(tmp_path, parts=("pattern",))) == Head(0, 0)
    mean = run.data["effect"].sel(metric="logit_diff").mean("prompt")
    for layer in range(3):
        strongest = Head(layer, int(abs(mean).sel(layer=layer).values.argmax()))
        assert selection.first_in_layer(run, layer) == strongest
    assert selection.first_in_layer(fake_run(tmp_path, parts=("pattern",)), 2) == Head(2, 0)


# --- coloured text ------------------------------------------------------------------------------------------------


def coloured(tokens, scores, tmp_path):
    run = fake_run(tmp_path, tokens=[tokens])
    page = saliency(run, 0, scores=np.array(scores, dtype=float)).html
    return re.search(r'<div class="by-token">.*?<p class="text" dir="auto">(.*?)</p>', page, re.S)[1]


def test_white_space_stands_outside_the_colour_and_a_line_break_breaks_the_line(tmp_path):
    text = coloured(["a", " b", "\n", "c", "  "], [1, 2, 3, 4, 5], tmp_path)
    pieces = re.findall(r"( ?)<span class=\"mark\"[^>]*>([^<]*)</span>(<br>)?", text)
    assert pieces == [("", "a", ""), (" ", "b", ""), ("", "↵", "<br>"), ("", "c", ""), ("", "␣␣", "")]


def test_a_word_with_a_line_break_in_it_does_not_break_the_line(tmp_path):
    assert "<br>" not in coloured(["a\n", " b"], [1, 2], tmp_path)


def test_colours_have_two_tones_only_where_a_score_is_negative(tmp_path):
    assert "--mark" not in coloured(["a", "b"], [1, 2], tmp_path)
    signed = re.findall(
        r'style="--mark:var\(--(\w+)\);--share:([\d.]+)"', coloured(["a", "b", "c"], [-1, 2, 0], tmp_path)
    )
    assert signed == [("hurts", "0.500"), ("helps", "1.000"), ("helps", "0.000")]


def test_a_coloured_text_has_its_numbers_as_a_table(tmp_path):
    run = fake_run(tmp_path, tokens=[SHORT])
    page = saliency(run, 0, scores=np.array([1.0, 2, 3, 4, 5])).html
    head, *rows = cells(re.search(r"<table.*?</table>", page, re.S)[0])
    assert head == ["token", "score", "share of the scale"]
    assert [[row[0].strip(), *row[1:]] for row in rows] == [
        [token.strip(), f"{at + 1}", f"{at / 4:.3f}" if at else "0"] for at, token in enumerate(SHORT)
    ]


def test_a_page_of_coloured_texts_shows_forty_of_them_unless_named(tmp_path):
    run = fake_run(tmp_path, n_prompts=43, n_layers=1, n_heads=1, lengths=[2] * 43)
    assert [text.prompt for text in colour(run).texts] == list(range(40))
    assert len(colour(run, range(43)).texts) == 43
    shown = replace(run, spec={**run.spec, "show": {"prompts": [42, 1]}})
    assert [text.prompt for text in colour(shown).texts] == [42, 1]


def test_a_page_lists_the_twelve_strongest_heads_of_each_metric(large):
    data = payload(large, choose(large), prompt=0, head=None)
    for metric in data["metrics"]:
        listed = [Head(*each["head"]) for each in metric["strongest"]]
        assert listed == large.top_heads(metric["name"], 12)
        assert len(listed) == 12


def with_segments(run):
    """One prompt in two documents and its answer; the cause of the second is the larger, and it hurts."""
    word_text = ["Rye ", "bread.", "\n", "An ", "<old> ", "mill.", "\n", " yes"]
    part = ["bread", "bread", "bread", "mill", "mill", "mill", "mill", "answer"]
    over, first = ("prompt", "traced"), run.data.isel(prompt=[0])
    names = ["bread", "mill", "answer"]
    data = first.drop_dims(["part"], errors="ignore").assign(
        word_text=(("prompt", "position"), [word_text]),
        token_part=(("prompt", "position"), [part]),
        part_cause=((*over, "taken", "part"), [[[[0.0, 0.0, 0.0], [0.5, -2.0, np.nan]]]]),
        part_attention=((*over, "layer", "head", "part"), np.full((1, 1, 3, 4, 3), [0.25, 0.5, 0.1])),
        traced_value=(over, [[1.0]], {"units": "loss, nats per token"}),
    )
    return replace(run, data=data.assign_coords(part=names, taken=["delete", "knockout"]))


def test_a_context_is_its_text_shaded_by_cause_and_underlined_by_attention(tmp_path):
    shown = segment_section.texts(with_segments(fake_run(tmp_path, n_prompts=1)))
    bread, mill, answer = re.findall(r"<bdi(.*?)</bdi>", shown)
    assert bread.startswith(' class="helps" style="--share: 0.250; --looked: 3.5px" title="bread: cause +0.500, ')
    assert mill.startswith(' class="hurts" style="--share: 1.000; --looked: 7.0px" title="mill: cause −2.00, ')
    assert bread.endswith(">Rye bread.<br>")
    assert mill.endswith(">An &lt;old&gt; mill.<br>")
    assert answer == ">yes"  # nothing was measured for it
    assert "<b>“<bdi>yes</bdi>”</b>" in shown
    assert "darkest ±2.00 nats per token" in shown
