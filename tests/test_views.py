"""Pages and figures without a browser: what is in them, what cannot be, and how big they are."""

import ast
import base64
import hashlib
import html
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
import zlib
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from fakes import fake_run, fake_t5, with_claims
from fontTools.ttLib import TTFont
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

import harness
from harness import views
from harness.command.terminal import format_warning
from harness.config import RequestError
from harness.findings import findings
from harness.hooks import Head
from harness.views import circuitsvis, figures, glyphs, number_tables, segment_section, terminal
from harness.views.charts.joint import pairs_of
from harness.views.figures import positions, rollout, together
from harness.views.number_tables import html_table, settings
from harness.views.pack import pack_weights
from harness.views.page import asset
from harness.views.payload import payload, words_of
from harness.views.report import report
from harness.views.selection import choose, shown_prompts
from harness.views.text import json_block, short, visible

HOSTILE = [
    "</script><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    "\u202eevil",
    "a\x00b",
    "W" * 300,
    "$x^2$",
    "&amp;",
    "\u2028",
    "${title}",
    "'\"><svg onload=window.pwned=1>",
    "\ud800",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fake_run(tmp_path_factory.mktemp("run"), lengths=[5, 8, 1])


@pytest.fixture(scope="module")
def page(run):
    return report(run)


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def unpacked(packed):
    return np.frombuffer(zlib.decompress(base64.b64decode(packed["data"])), dtype="<" + packed["type"])


def test_the_page_holds_the_numbers_of_the_run(run, page):
    data = data_of(page)
    effect = unpacked(data["metrics"][0]["effect"]).reshape(3, 3, 4)
    np.testing.assert_array_equal(effect, run.data["effect"].sel(metric="logit_diff").values)
    assert [metric["name"] for metric in data["metrics"]] == ["logit_diff", "loss"]  # the leading one first
    assert [len(prompt["tokens"]) for prompt in data["prompts"]] == [5, 8, 1]
    assert data["start"]["head"] == [1, 2, ""]


def test_patterns_are_packed_to_half_a_255th(run):
    weights = run.pattern(1).values.astype(float)
    packed = unpacked(pack_weights(weights, causal=True)).reshape(3, 4, 36)
    query, key = np.tril_indices(8)
    assert np.abs(packed / 255 - weights[..., query, key]).max() <= 0.5 / 255 + 1e-9


def test_a_pattern_that_looks_ahead_is_kept_whole(tmp_path):
    both = fake_run(tmp_path, causal=False, n_prompts=2)
    data = payload(both, choose(both), prompt=0, head=None)
    assert not data["stacks"][0]["causal"]
    assert data["patterns"]["0"]["heads"][""]["shape"] == [12, 8, 8]


def test_user_text_stays_text(tmp_path):
    run = fake_run(tmp_path, tokens=[HOSTILE, ["<b>one"]])
    spec = {**run.spec, "model": {"name": "<script>window.pwned=1</script>"}, "note": "</style><script>"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", glyphs.MissingGlyphs)
        page = report(replace(run, spec=spec, manifest={"<i>key": {"</td>": "<u>"}}))
    ours = page.replace(circuitsvis.bundle(), "")
    assert "<script>window.pwned" not in ours
    assert not re.search(r"<(img src=x|svg onload|i>|u>|b>one)", ours)
    assert ours.count("<script") == ours.count("</script>") == 3  # the data, the packed library, and ours
    assert "\x00" not in page
    assert "\u202e" not in page
    assert "\u2028" not in ours


def test_a_column_of_a_table_has_one_precision_and_holds_its_numbers_whole():
    table = html_table(["value"], [[-0.5], [0.1234567], [1e-7], [0.0]])
    assert '<td data-value="-0.5">−0.5000</td>' in table
    assert '<td data-value="0.1234567">0.1235</td>' in table
    assert '<td data-value="1e-07">1.0e−07</td>' in table
    assert '<td data-value="0">0</td>' in table
    assert '<td data-value="1234.5">1234</td>' in html_table(["value"], [[1234.5]])
    assert '<td data-value="3">3</td>' in html_table(["value"], [[3.0], [5.0]])


def test_settings_are_keys_and_values_as_words(run):
    row = '<tr><td class="text">a.b</td><td class="text long">1</td></tr>'
    assert row in settings({"a": {"b": 1}}, "spec")


def test_tables_set_heads_as_words_and_their_numbers_as_numbers(run):
    change = {"metric": "logit_diff", "layer": 1, "head": 2, "change_mean": 0.5, "significant": True, "rank": 1}
    carries = {"part": "note", "layer": 1, "head": 2, "mean": 0.5, "ci_low": 0.25, "ci_high": 0.75, "rank": 1}
    carries |= {"p_adjusted": 0.01, "attention": 0.125}
    run = replace(run, changes=pd.DataFrame([change]), part_heads=pd.DataFrame([carries]))
    half = '<td data-value="0.5">0.5000</td>'
    assert f'<td class="text">L1H2</td>{half}<td class="text">yes</td><td>1</td>' in number_tables.changes(run)
    assert f'<td class="text">note</td><td class="text">L1H2</td>{half}' in segment_section._heads(run)


def test_the_table_of_prompts_has_words_and_numbers(run):
    """The number, the text and what goes with it as words, each metric's clean value as a number."""
    row = number_tables.prompts(run).partition("<tbody><tr>")[2].partition("</tr>")[0]
    kinds = re.findall(r"<td( class=\"[a-z ]+\")?(?: data-value=\"[^\"]+\")?>", row)
    assert kinds == ["", ' class="text long"', *[' class="text"'] * 3, "", ""]


def test_json_in_a_page_survives_and_ends_no_element():
    value = {"</script>": "<!-- & \u2028 \u00e9"}
    assert not set("<>&\u2028\u00e9") & set(json_block(value))
    assert json.loads(json_block(value)) == value


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" the", " the"),
        ("\n", "↵"),
        ("  ", "␣␣"),
        ("", "␣"),
        ("a\x00b", "a⟨U+0000⟩b"),
        ("\u202e", "⟨U+202E⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("日本", "日本"),
    ],
)
def test_every_character_can_be_seen(token, shown):
    assert visible(token) == shown


def test_long_labels_are_cut_and_say_so():
    assert short(" " + "W" * 300) == "W" * 13 + "…"
    assert short(" the") == "the"


def test_short_leaves_a_label_of_exactly_the_limit_whole():
    assert short("W" * 14) == "W" * 14
    assert short("W" * 15) == "W" * 13 + "…"


def test_policy_allows_only_our_scripts(page):
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert not re.search(r"https?:|connect-src|unsafe-inline'.*script|\*", policy.split("style-src")[0])
    assert not re.search(r'(?:src|href)="(?!data:|#)', page.replace(circuitsvis.bundle(), ""))


def library_of(page):
    packed = re.search(r'<script type="application/json" id="circuitsvis">(.*?)</script>', page, re.S)
    return packed and unpacked(json.loads(packed[1])).tobytes().decode()


def test_one_packed_copy_of_circuitsvis_whose_hash_the_policy_knows(page):
    bundle = circuitsvis.bundle()
    assert library_of(page) == bundle
    assert page.count('id="circuitsvis"') == 1
    assert "sourceMappingURL" not in bundle
    digest = base64.b64encode(hashlib.sha256(bundle.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in html.unescape(page)
    assert "var CircuitsVis=" not in page  # packed to a third


def test_circuitsvis_is_named_in_one_file_and_only_its_text_component_is_drawn():
    rooms = Path(views.__file__).parent
    importers = [p.name for p in rooms.glob("*.py") if 'find_spec("circuitsvis")' in p.read_text(encoding="utf-8")]
    drawn = {
        name
        for p in (rooms / "assets").glob("*.js")
        for name in re.findall(r"CircuitsVis\.([A-Z]\w+)", p.read_text(encoding="utf-8"))
    }
    assert importers == ["circuitsvis.py"]
    assert drawn == set(circuitsvis.COMPONENTS)


def test_views_import_no_model(tmp_path):
    code = "import sys, harness.views; print(sorted({'torch', 'transformer_lens', 'circuitsvis'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_our_scripts_never_write_markup():
    for path in (Path(views.__file__).parent / "assets").glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", path.read_text(encoding="utf-8")
        ), path


def test_the_default_study_fits(tmp_path):
    big = fake_run(tmp_path, n_prompts=32, n_layers=30, n_heads=9, lengths=[14] * 32)
    assert views.write_report(big, tmp_path / "report.html").stat().st_size < 5_000_000


def test_left_out_patterns_are_said_and_the_strongest_kept(run):
    kept = choose(run, budget=250)
    assert Head(1, 2) in kept.heads
    assert len(kept.heads) < 12
    assert kept.left_out.startswith(f"This page holds the patterns of {len(kept.heads)} of 12 heads on ")
    assert "harness.open_run(DIR).data.pattern" in kept.left_out
    assert choose(run).left_out == ""


@pytest.mark.covering(1)
@pytest.mark.parametrize("parts", [("pattern",), ("effect",), ("pattern", "effect")])
@pytest.mark.parametrize("n_prompts", [1, 3])
def test_reports_of_partial_runs(tmp_path, parts, n_prompts):
    page = report(fake_run(tmp_path, n_prompts=n_prompts, parts=parts), [] if len(parts) == 2 else None)
    assert ('id="draw-map"' in page) == ("effect" in parts)
    assert ('id="draw-head"' in page) == ("pattern" in parts)
    assert bool(library_of(page)) == ("pattern" in parts)
    assert "nan" not in re.sub(r"<(script|style).*?</\1>|base64,[^\"]*", "", page, flags=re.S).lower()


def test_heads_that_were_not_ablated_and_other_types(run):
    effect = run.data["effect"].copy()
    effect.values[:, :, :2] = np.nan
    data = run.data.assign(effect=effect, cluster=("prompt", [0, 1, 1]))
    known = run.heads["layer"] == 2
    heads = run.heads[known].assign(significant=pd.array([True, False, None] * 2 + [True, None], dtype="boolean"))
    page = report(replace(run, data=data, heads=heads))
    assert "4 heads were ablated one at a time" in page
    assert data_of(page)["start"]["head"] == [2, 3, ""]
    assert "NA&gt;" not in page


def test_figures_as_svg_and_png(run, tmp_path):
    paths = views.write_figures(run, tmp_path / "figures")
    names = ("effect_loss", "effect_logit_diff", "strongest_loss", "strongest_logit_diff", "rollout", "patterns")
    assert {path.name for path in paths} == {
        f"{name}.{ending}"
        for name in (*names, *(f"pattern_{head}" for head in run.top_heads(run.lead_metric, 4)))
        for ending in ("svg", "png")
    }
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG" if path.suffix == ".png" else b"<?xml")


def test_figures_do_not_read_mathematics_into_tokens(tmp_path):
    run = fake_run(tmp_path, tokens=[["$x^2$", "$\\frac{$", "_", "^"]])
    figure = rollout.compare(run, 0, figures.LOOKS["screen"])
    assert figures.as_picture("", "", "", figure, figures.LOOKS["screen"]).png.startswith(b"\x89PNG")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["$x^2$", "$\\frac{$", "_", "^"]


def test_a_letter_that_no_font_has_is_named():
    with pytest.warns(glyphs.MissingGlyphs, match="no installed font draws '\U00012000'"):
        glyphs._warn_about({"\U00012000"})


JAPANESE = "東京タワーの犬 (tower)"


@pytest.fixture
def bare_system(monkeypatch, tmp_path_factory):
    """A system whose only font is DejaVu Sans: what matplotlib has listed, and what it would find."""
    manager = font_manager.fontManager
    caches = (glyphs._added, glyphs._packaged, glyphs._letters_of, manager._findfont_cached)
    monkeypatch.setattr(mpl, "get_cachedir", lambda: str(tmp_path_factory.mktemp("lists")))
    for cached in caches:
        cached.cache_clear()
    monkeypatch.setattr(manager, "ttflist", [each for each in manager.ttflist if each.name == "DejaVu Sans"])
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda *_, **__: [])
    yield manager
    for cached in caches:
        cached.cache_clear()


def packaged_font():
    """The font that matplotlib-fontja carries, found without the harness and without an import, which has effects."""
    return Path(str(distribution("matplotlib-fontja").locate_file("matplotlib_fontja/fonts/ipaexg.ttf")))


def draw_text(text):
    """The text in the fonts that are chosen for it, as pixels; matplotlib warns of letters that they lack."""
    figure = Figure(figsize=(4, 1))
    figure.text(0, 0.5, text, family=glyphs.families(text))
    pixels = io.BytesIO()
    FigureCanvasAgg(figure).print_png(pixels)
    return pixels.getvalue()


def test_glyphs_draw_japanese_on_a_system_without_a_font_for_it(bare_system):
    before = list(mpl.rcParams["font.family"])
    assert glyphs.families(JAPANESE) == ["DejaVu Sans", "IPAexGothic"]
    own = TTFont(packaged_font()).getBestCmap()
    assert {ord(letter) for letter in JAPANESE} <= own.keys()
    assert Path(bare_system.findfont("IPAexGothic")).samefile(packaged_font())
    assert len({draw_text(text) for text in ("犬", "東", "猫")}) == 3  # boxes would all look alike
    assert mpl.rcParams["font.family"] == before
    assert "matplotlib_fontja" not in sys.modules


def test_glyphs_find_a_font_that_is_newer_than_matplotlibs_list(bare_system, monkeypatch, tmp_path):
    installed = shutil.copy(packaged_font(), tmp_path / "new.ttf")
    gone = replace(bare_system.ttflist[0], name="Noto Sans CJK JP", fname=str(tmp_path / "gone.ttc"))
    bare_system.ttflist.append(gone)
    (tmp_path / "damaged.ttf").write_bytes(b"no font")
    found = [str(tmp_path / "damaged.ttf"), str(installed)]
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda *_, **__: found)
    monkeypatch.setattr(glyphs, "find_spec", lambda _: None)
    assert glyphs.families(JAPANESE) == ["DejaVu Sans", "IPAexGothic"]
    assert Path(bare_system.findfont("IPAexGothic")).samefile(installed)


def font_list(folder, seconds_ago):
    """Matplotlib's list of fonts on disk, of so long ago."""
    path = folder / f"fontlist-v{font_manager.FontManager.__version__}.json"
    path.write_text("{}")
    then = time.time() - seconds_ago
    os.utime(path, (then, then))
    return path


@pytest.mark.parametrize(("ago", "anew"), [(60, True), (-60, False)])
def test_glyphs_make_matplotlibs_list_anew_where_a_font_is_newer(bare_system, monkeypatch, tmp_path, ago, anew):
    installed = str(shutil.copy2(packaged_font(), tmp_path / "new.ttf"))  # with the time at which the font was made
    path = font_list(tmp_path, ago)
    monkeypatch.setattr(mpl, "get_cachedir", lambda: str(tmp_path))
    monkeypatch.setattr(glyphs, "find_spec", lambda _: None)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda *_, **__: [installed])
    assert "IPAexGothic" in glyphs.families(JAPANESE)
    assert ("IPAexGothic" in path.read_text()) == anew


def test_glyphs_see_a_font_that_is_installed_while_a_process_runs(bare_system, monkeypatch, tmp_path):
    monkeypatch.setattr(glyphs, "find_spec", lambda _: None)
    with pytest.warns(glyphs.MissingGlyphs, match="pip install matplotlib-fontja"):
        assert glyphs.families(JAPANESE) == ["DejaVu Sans"]
    installed = str(shutil.copy(packaged_font(), tmp_path / "new.ttf"))
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda *_, **__: [installed])
    for _ in range(2):  # the second time it is in the list
        assert glyphs.families(JAPANESE) == ["DejaVu Sans", "IPAexGothic"]


def test_glyphs_without_any_font_give_one_line_that_names_the_package(bare_system, monkeypatch, tmp_path):
    monkeypatch.setattr(glyphs, "find_spec", lambda _: None)
    run = fake_run(tmp_path, tokens=[["東", "京", "a", "b"]])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure = rollout.compare(run, 0, figures.LOOKS["screen"])
        figures.as_picture("", "", "", figure, figures.LOOKS["screen"])
    assert {each.category for each in caught} == {glyphs.MissingGlyphs}
    said = format_warning(caught[0].message, caught[0].category, "file.py", 1)
    remedy = "for a font that has them: pip install matplotlib-fontja"
    assert said == f"no installed font draws '京東': figures show boxes for them; {remedy}\n"


def test_page_names_fonts_for_japanese_that_systems_have(page):
    for family in ("Hiragino Sans", "Yu Gothic", "Meiryo", "Noto Sans CJK JP", "IPAexGothic", "Hiragino Mincho ProN"):
        assert family in page


def test_notebook_views_stand_in_a_sandbox(run):
    shown = views.effects(run, metric="logit_diff")._repr_html_()
    assert shown.startswith('<iframe sandbox="allow-scripts"')
    inside = re.search(r'srcdoc="([^"]*)">This view [^<>]*</iframe>$', shown)[1]
    assert data_of(html.unescape(inside))["start"]["metric"] == "logit_diff"


def test_notebook_views_save(run, tmp_path):
    path = views.rollout(run, prompt=1).save(tmp_path / "view.html")
    assert 'id="draw-compare"' in path.read_text(encoding="utf-8")
    assert library_of(views.attention(run, prompt=1, layer=2, head=3).html) == circuitsvis.bundle()
    assert data_of(views.attention(run, head="L2H1").html)["start"]["head"] == [2, 1, ""]
    assert data_of(views.attention(run, layer=2).html)["offered"]["layers"] == [2]


def test_an_encoder_decoder_has_a_pattern_for_each_stack(tmp_path):
    run = fake_t5(tmp_path)
    data = data_of(report(run))
    stacks = {stack["name"]: stack for stack in data["stacks"]}
    assert [len(stack["layers"]) for stack in stacks.values()] == [3, 2, 2]
    assert [stack["causal"] for stack in stacks.values()] == [False, True, False]
    assert data["start"]["head"] == [1, 2, "cross"]
    prompt = data["prompts"][0]
    assert [len(prompt["tokens"]), len(prompt["source"]["tokens"])] == [4, 9]
    packed = data["patterns"]["0"]
    sent = unpacked(packed["heads"]["cross"]).reshape(packed["heads"]["cross"]["shape"]) / 255
    slot = stacks["cross"]["slots"].index([1, 2])
    np.testing.assert_allclose(sent[slot], run.data["cross_pattern"].values[0, 1, 2, :4, :9], atol=0.5 / 255)
    np.testing.assert_allclose(
        unpacked(packed["mean"]).reshape(4, 9) / 65535,
        run.data["cross_pattern"].values[0, :2, :, :4, :9].mean((0, 1)),
        atol=1e-5,
    )
    assert "rollout" not in packed
    effect = unpacked(data["metrics"][0]["effect"]).reshape(3, 28)
    np.testing.assert_allclose(effect[:, 12 + 8 + 4 + 2], run.data["effect"].sel(stack="cross")[0, :, 1, 2], rtol=1e-6)
    assert np.isfinite(effect).all()


def test_a_head_of_a_stack_as_a_table(tmp_path):
    run = fake_t5(tmp_path)
    cross = views.table(run, 0, "cross.L1H2")
    assert list(cross.columns) == ["When", " Mary", " and", " John", " went", " to", " the", " store", "</s>"]
    assert list(cross.index) == ["When", " Mary", " and", " John"]
    assert views.table(run, 1, "encoder.L2H0").shape == (7, 7)
    with pytest.raises(RequestError, match="decoder.L2H0 is outside the decoder stack of smollm2: it has layers 0-1"):
        views.table(run, 0, "decoder.L2H0")


def test_layers_and_mlps_stand_beside_their_heads(run):
    means = np.array([0.1, -0.2, 3.0])
    whole = run.data["clean"].values[:, :, None] * 0 + means
    beside = {name: (("metric", "prompt", "layer"), whole) for name in ("layer_effect", "mlp_effect")}
    page = report(replace(run, data=run.data.assign(beside)), [])
    shown = data_of(page)["metrics"][0]["beside"]
    assert [each["name"] for each in shown] == ["all heads of the layer", "its MLP"]
    np.testing.assert_allclose(shown[1]["means"][""], means)


def test_the_strongest_anywhere_are_by_the_mean_over_prompts_that_have_the_position(run):
    """L0H0 does 1 at the first position of all three prompts, L1H1 does 2 at a position that only one has."""
    values = np.full((2, 3, 3, 4, 8), np.nan)
    values[:, 0, ..., :5], values[:, 1], values[:, 2, ..., :1] = 0, 0, 0
    values[:, :, 0, 0, 0] = 1
    values[:, 1, 1, 1, 7] = 2
    effect = (("metric", "prompt", "layer", "head", "position"), values)
    found = positions.strongest_anywhere(replace(run, data=run.data.assign(position_effect=effect)), "loss")
    assert list(found) == ["L1H1", "L0H0"]


def test_effects_by_position_have_a_figure(run):
    values = np.zeros((2, 3, 3, 4, 8))
    values[:, :, 1, 3, 2] = 1.0
    values[:, 0, :, :, 5:] = np.nan
    only = run.data.drop_vars(["effect", "ablated"]).assign(
        position_effect=(("metric", "prompt", "layer", "head", "position"), values)
    )
    found = positions.strongest_anywhere(replace(run, data=only), "loss")
    assert list(found) == ["L1H3"]
    np.testing.assert_array_equal(found["L1H3"][1], [0, 0, 1, 0, 0, 0, 0, 0])
    names = {picture.name for picture in figures.pictures(replace(run, data=only, heads=run.heads.iloc[:0]))}
    assert names == {"positions_loss", "positions_logit_diff", "rollout"}


def test_other_sweeps_have_figures_and_sections(run):
    only = run.data.drop_vars(["effect", "ablated"])
    pairs = [("L0H0", "L1H2"), ("L0H0", "L2H3"), ("L1H2", "L2H3")]
    joint = np.array([[1.0, 2.0, 4.0]] * 3)
    steps = np.cumsum(np.ones((2, 3, 3, 5)), axis=-1)
    given = {
        "set_effect": (("metric", "prompt", "set"), np.stack([joint] * 2)),
        "cumulative_effect": (("metric", "prompt", "order", "step"), steps),
        "cumulative_head": (("order", "step"), np.full((3, 5), "L0H0")),
        "pair_effect": (("metric", "prompt", "pair"), np.stack([joint] * 2)),
        "pair_sum": (("metric", "prompt", "pair"), np.full((2, 3, 3), 0.5)),
        "pair_difference": (("metric", "prompt", "pair"), np.stack([joint - 0.5] * 2)),
    }
    coords = {
        "set": ["movers", "<b>early", "late"],
        "order": ["effect", "random 1", "random 2"],
        "step": [1, 2, 3, 4, 5],
        "head_a": ("pair", [a for a, _ in pairs]),
        "head_b": ("pair", [b for _, b in pairs]),
    }
    other = replace(run, data=only.assign(given).assign_coords(coords), heads=run.heads.iloc[:0])
    drawn = figures.pictures(other)
    assert {picture.part for picture in drawn} == {"sets", "pruning", "pairs", "rollout"}
    page = report(other, drawn)
    assert "Ablated: named sets of heads, heads one after another and heads in pairs." in page
    for part in ("sets", "pruning", "pairs"):
        assert f'id="{part}"' in page
    of = pairs_of(other, "loss")
    values, ends = of.beyond, of.ends
    assert ends == pairs
    assert values.tolist() == pytest.approx([0.5, 1.5, 3.5])


def test_a_matrix_of_pairs_has_its_heads_in_the_order_in_which_they_run(run):
    ends = [("L10H0", "L2H1"), ("L2H1", "L2H0")]
    beyond = (("metric", "prompt", "pair"), np.tile([1.0, -2.0], (2, 3, 1)))
    data = run.data.assign(pair_effect=beyond, pair_difference=beyond)
    data = data.assign_coords(head_a=("pair", [a for a, _ in ends]), head_b=("pair", [b for _, b in ends]))
    figure = together.pairs(replace(run, data=data), "loss", figures.LOOKS["screen"])
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["L2H0", "L2H1", "L10H0"]
    drawn = np.ma.filled(axes.images[0].get_array(), np.nan)
    np.testing.assert_array_equal(drawn, [[np.nan, -2, np.nan], [-2, np.nan, 1], [np.nan, 1, np.nan]])


def test_many_pairs_are_listed(run):
    ends = [(f"L{a}H0", f"L{a}H1") for a in range(30)]
    data = run.data.drop_vars(["effect", "ablated"]).assign(
        pair_effect=(("metric", "prompt", "pair"), np.tile(np.arange(30.0), (2, 3, 1))),
        pair_difference=(("metric", "prompt", "pair"), np.tile(np.arange(30.0), (2, 3, 1))),
    )
    coords = {"head_a": ("pair", [a for a, _ in ends]), "head_b": ("pair", [b for _, b in ends])}
    figure = together.pairs(replace(run, data=data.assign_coords(coords)), "loss", figures.LOOKS["screen"])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][:2] == ["L29H0 + L29H1", "L28H0 + L28H1"]


def test_what_hurts_is_hatched_to_be_told_in_grey(run):
    figure = figures.effects.effect_map(run, "loss", figures.LOOKS["screen"])
    hatched = {each.get_xy() for each in figure.axes[0].patches if each.get_hatch()}
    mean = run.data["effect"].sel(metric="loss").mean("prompt").values
    layer, head = np.nonzero(mean < -0.1 * np.abs(mean).max())
    assert hatched == set(zip(layer - 0.5, head - 0.5, strict=True))
    assert hatched
    assert "orange hatched hurts" in figure.axes[0].get_title(loc="left")


def test_figures_of_roles_hide_the_panels_that_no_role_needs(run):
    """Seven roles, six panels to a row."""
    names = [f"role {at}" for at in range(7)]
    given = np.zeros((7, 3, 4), bool)
    given[:, 1, 2] = True
    over = ("role", "layer", "head")
    data = run.data.assign(role_given=(over, given), role_score=(over, given * 0.9)).assign_coords(role=names)
    panels = figures.roles(replace(run, data=data), figures.LOOKS["screen"]).axes[:12]
    assert [axes.get_title(loc="left") for axes in panels if axes.get_visible()] == names


def dots_of(figure):
    """Each row's label in a figure of the strongest heads, the values of its dots, and their colour."""
    axes = figure.axes[0]
    labels = dict(zip(axes.get_yticks().tolist(), (each.get_text() for each in axes.get_yticklabels()), strict=True))
    for dots in axes.collections:
        across, down = dots.get_offsets().T
        (row,) = set(np.rint(down).tolist())
        tone = dots.get_facecolor() if len(dots.get_facecolor()) else dots.get_edgecolor()
        yield labels[row], across, to_hex(tone[0])


def test_figures_label_each_row_of_the_strongest_heads_with_its_own_head(run):
    rows = list(dots_of(figures.effects.strongest(run, "loss", figures.LOOKS["screen"])))
    table = run.heads.query("metric == 'loss'").sort_values("rank")
    assert [label for label, *_ in rows] == [f"L{row.layer}H{row.head}" for row in table.itertuples()]
    for label, across, _ in rows:
        of_head = run.data["effect"].sel(metric="loss", **Head.parse(label).place).values
        np.testing.assert_allclose(across, of_head, rtol=1e-6)


def test_figures_draw_the_interval_of_each_of_the_strongest_heads(run):
    claimed = with_claims(run)
    table = claimed.heads.query("metric == 'loss'").sort_values("rank")
    lines = figures.effects.strongest(claimed, "loss", figures.LOOKS["screen"]).axes[0].lines
    flat = [line.get_xdata() for line in lines if len(set(line.get_ydata())) == 1]
    np.testing.assert_allclose(flat, table[["ci_low", "ci_high"]].head(12))


def is_blue(tone):
    red, _, blue = to_rgb(tone)
    return blue > red


@pytest.mark.parametrize("metric", ["loss", "logit_diff"])
def test_figures_draw_what_helps_in_blue_and_what_hurts_in_orange(run, metric):
    """L1H2 helps and L2H3 hurts, by a metric that falls when the model gets better and by one that rises."""
    tones = {label: tone for label, _, tone in dots_of(figures.effects.strongest(run, metric, figures.LOOKS["screen"]))}
    assert is_blue(tones["L1H2"])
    assert not is_blue(tones["L2H3"])
    image = figures.effects.effect_map(run, metric, figures.LOOKS["screen"]).axes[0].images[0]
    drawn = {(layer, head): image.to_rgba(image.get_array())[head, layer, :3] for layer, head in ((1, 2), (2, 3))}
    assert is_blue(drawn[1, 2])
    assert not is_blue(drawn[2, 3])


def test_figures_have_the_colours_of_the_page():
    style = asset("page.css")
    said = dict(re.findall(r"--(helps|hurts|matters|no-effect): (#[0-9a-f]{6})", style.partition("@media")[0]))
    assert {name.replace("-", " "): tone for name, tone in said.items()} == figures.base.TONE
    assert is_blue(said["helps"])
    assert not is_blue(said["hurts"])


def test_the_foot_of_the_report_names_a_directory_as_text(run):
    page = report(replace(run, path=Path("/tmp/<b>one & 'two'")), [])
    foot = re.search(r"<footer>(.*?)</footer>", page, re.S)[1]
    assert foot.startswith("Made from the run directory &lt;b&gt;one &amp; &#x27;two&#x27;, which holds every number")


def test_a_run_in_a_notebook_names_its_directory_as_text(run):
    shown = replace(run, path=Path("/tmp/<b>one"))._repr_html_()
    assert "/tmp/&lt;b&gt;one</td>" in shown
    assert "<b>" not in shown


def test_words_are_joined_from_their_pieces_or_read_as_they_stand():
    word = np.array([0, 1, 1, 2])
    assert words_of(["[CLS]", "un", "##quiet", " rug"], word, [""] * 4) == ["[CLS]", "unquiet", "rug"]
    assert words_of(["<0xE2>", "a", "b", "c"], word, ["犬", "猫", "", "x"]) == ["犬", "猫", "x"]
    assert words_of(["[CLS]", "a", "b", "[SEP]"], np.array([0, 1, 1, 2]), ["", "ab", "", ""]) == [
        "[CLS]",
        "ab",
        "[SEP]",
    ]
    assert words_of(["<b>", "\x00", "", " "], word, [""] * 4) == ["<b>", "⟨U+0000⟩", "␣"]


def test_methods_and_causes_go_into_the_page(run):
    scores = np.full((3, 2, 8, 8), np.nan)
    scores[0, :, 4, :5] = [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]]
    cause = np.full((3, 1, 8, 8), np.nan)
    cause[0, 0, 4, :5] = -1
    over = ("target_position", "position")
    data = run.data.assign(
        attribution=(("prompt", "attribution_method", *over), scores), cause=(("prompt", "cause_kind", *over), cause)
    ).assign_coords(attribution_method=["gradient", "rollout"], cause_kind=["occlusion"])
    page = report(replace(run, data=data), [])
    sent = data_of(page)["sources"]["0"]
    assert sent["names"] == ["gradient", "rollout", "occlusion"]
    assert (sent["methods"], sent["targets"]) == (2, [4])
    np.testing.assert_array_equal(unpacked(sent["scores"]).reshape(3, 5)[1:], [[5, 4, 3, 2, 1], [-1] * 5])
    assert 'id="draw-sources"' in page


def test_no_piece_of_a_character_is_shown_under_a_byte_level_tokenizer(command):
    """Japanese by bytes: page, sentences and the tokens that figures write have each character whole."""
    text = "prompts.text=['犬が猫を追う。猫が犬を追う。']"
    shape = ("model=random", "prompts=inline", text, "stats.resamples=200", "roles.draws=40")
    code, out, err = command("study", *shape)
    assert code == 0, err
    run = harness.open_run(out.splitlines()[-1])
    assert "\ufffd" in "".join(map(str, run.data["token"].values[0])), "the tokens themselves are pieces"
    page = report(run, [])
    assert "\ufffd" not in page
    (prompt,) = data_of(page)["prompts"]
    assert {each.partition(" ")[0] for each in prompt["tokens"]} >= set("犬が猫を追う。")
    assert not any("\ufffd" in found.text for found in findings(run))
    for stack in run.layers:
        assert not any("\ufffd" in token for side in run.tokens(0, stack) for token in side)


def test_the_strongest_heads_as_a_few_lines(run):
    lines = terminal.strongest(with_claims(run), 2).splitlines()
    table = with_claims(run).heads.query("metric == 'logit_diff' and rank == 1").iloc[0]
    assert lines[0] == "strongest heads by logit_diff, logits:"
    assert lines[1].split()[:2] == ["L1H2", f"−{abs(table['effect_mean']):.2f}"]
    assert lines[1].endswith("unsure")  # three clusters cannot show it, and the last line says so
    assert lines[6].startswith("With 3 clusters of prompts nothing can be significant at the level 0.05")
    assert len(lines) == 7
    shown = with_claims(run)
    shown = replace(shown, heads=shown.heads.assign(p_adjusted=0.01))
    assert terminal.strongest(shown, 2).splitlines()[1].endswith("helps")
    assert terminal.strongest(replace(run, data=run.data.drop_vars("effect"))) == ""


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ((0, 4, 0.0, 0), " 0/4"),
        ((1, 4, 10.0, 0), " 1/4  10.0 s each  0:30 left"),
        ((3, 4, 10.0, 2), " 3/4  10.0 s each  0:10 left"),
        ((300, 400, 10.0, 0), " 300/400  30.0/s  0:03 left"),
        ((1, 1000, 10.0, 0), " 1/1000  10.0 s each  2:46:30 left"),
        ((4, 4, 65.0, 0), " 4/4  16.2 s each  1:05"),
    ],
)
def test_the_bar_tells_rate_and_time_left(asked, said):
    line = terminal.bar("sweep", *asked, width=120)
    assert line.endswith(said)
    assert line.count("█") == round(28 * asked[0] / asked[1])
    assert len(terminal.bar("sweep", *asked, width=40)) < 40


def test_head_and_model_views_in_a_notebook(run):
    head = views.head_view(run, prompt=1, head="L2H1")
    assert 'id="draw-headview"' in head.html
    assert data_of(head.html)["offered"] == {"layers": [2], "heads": [0, 1, 2, 3], "prompts": [1]}
    assert library_of(head.html) is None  # 0.5 MB that it does not need
    model = data_of(views.model_view(run).html)
    assert len(model["stacks"][0]["slots"]) == 12
    assert repr(head) == "View(Lines of L2 (first L2H1) · prompt 1: When Mary and John went to the store)"
    assert "<h1>Lines of L2 (first L2H1) · prompt 1: When Mary and John went to the store</h1>" in head.html


@pytest.mark.parametrize("view", [views.head_view, views.model_view, views.layer_view])
def test_a_view_opens_by_the_level_that_it_is_passed_or_by_the_runs(run, view):
    by_word = replace(run, spec={**run.spec, "show": {"level": "word"}})
    opens = [data_of(view(each, level=level).html)["start"]["level"] for each in (run, by_word) for level in LEVELS]
    assert opens == ["token", "token", "word", "word", "token", "word"]


LEVELS = (None, "token", "word")


def test_a_model_view_that_would_be_too_large_says_what_it_leaves_out(run, monkeypatch):
    monkeypatch.setattr("harness.views.selection.BUDGET", 250)
    page = views.model_view(run).html
    held = len(data_of(page)["stacks"][0]["slots"])
    assert 0 < held < 12
    assert f"This page shows {held} of 12 heads, those with the largest effects: all would be" in page


def test_a_run_in_a_notebook_tells_what_it_is_and_runs_nothing(run):
    spec = {**run.spec, "model": {"name": HOSTILE[0]}}
    shown = replace(with_claims(run), spec=spec)._repr_html_()
    assert HOSTILE[0] not in shown
    assert "&lt;/script&gt;" in shown
    assert shown.count("<tr>") + shown.count("<tr style") == 6 + 1 + 6


def test_a_head_as_a_table_of_tokens(run):
    table = views.table(run, 0, "L1H2")
    assert list(table.index) == list(table.columns) == ["When", " Mary", " and", " John", " went"]
    np.testing.assert_array_equal(table.values, run.data["pattern"].values[0, 1, 2, :5, :5].astype(float))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda run: views.attention(run, prompt=3), "prompt=3: the run has prompts 0-2"),
        (lambda run: views.attention(run, layer=7), "heads=L7H0: L7H0 is outside smollm2: it has layers 0-2"),
        (
            lambda run: views.table(run, 0, "L0H4"),
            "heads=L0H4: L0H4 is outside smollm2: it has heads 0-3 in each layer",
        ),
        (lambda run: views.attention(run, head=2), "head=2: pass the layer too, or name the head, such as L5H1"),
        (lambda run: views.effects(run, metric="kl"), "metric=kl: the run has loss, logit_diff"),
    ],
)
def test_wrong_requests_say_what_would_be_right(run, ask, message):
    with pytest.raises(RequestError) as caught:
        ask(run)
    assert str(caught.value) == message


def test_views_of_parts_a_run_lacks(tmp_path):
    with pytest.raises(RequestError, match=r"this run kept no patterns: make one with experiments\.cache_attention"):
        views.rollout(fake_run(tmp_path, parts=("effect",)))
    with pytest.raises(RequestError, match=r"this run ablated no heads: make one with experiments\.ablate_heads"):
        views.effects(fake_run(tmp_path, parts=("pattern",)))


def test_show_options(run):
    asked = replace(run, spec={**run.spec, "show": {"prompts": [1], "heads": ["L2H0"]}})
    start = data_of(report(asked, []))["start"]
    assert start == {"prompt": 1, "head": [2, 0, ""], "metric": None, "level": "token"}
    wrong = replace(run, spec={**run.spec, "show": {"prompts": [9]}})
    with pytest.raises(RequestError, match=r"^show\.prompts=9: the run has prompts 0-2$"):
        shown_prompts(wrong)


def test_modules_are_short():
    for path in Path(views.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        longest = max(
            (node.end_lineno - node.lineno for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)), default=0
        )
        assert longest < 40, path
