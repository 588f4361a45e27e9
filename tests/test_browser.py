"""The pages in a real browser with the network off: they draw, they answer, and they run nothing that a token says.

Skipped when there is no Chromium or Chrome, unless HARNESS_REQUIRE_BROWSER=1.
"""

import os
import time
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from axe import axe_script
from fakes import fake_run, fake_t5, with_claims
from scipy import stats as scipy_stats
from test_views import HOSTILE
from thinned import most

import harness
from harness import study, views
from harness.config import RunSpec, parse
from harness.views import notebook
from harness.views.glyphs import MissingGlyphs
from harness.words import merge_pattern

SIZES = [(1280, 800), (390, 844)]
INK = """(() => { const canvas = document.querySelector('{}'); const seen = new Set(); if (!canvas) return 0;
const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
for (let i = 0; i < pixels.length; i += 4) seen.add(pixels.slice(i, i + 4).join()); return seen.size; })()"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return with_claims(fake_run(tmp_path_factory.mktemp("run"), lengths=[8, 5, 8]))


@pytest.fixture(scope="module")
def page(run):
    return views.write_report(run, run.path / "report.html")


def colours(browser, selector):
    return browser.evaluate(INK.replace("{}", selector))


def show(browser, tab):
    """Open a tab, as a link to it does."""
    browser.evaluate(f"location.hash = '#tab={tab}'")
    browser.wait(f"document.documentElement.dataset.tab === '{tab}'")


def pick(browser, name, value):
    """Choose in a menu, as a person would."""
    browser.evaluate(
        f"(() => {{ const box = document.querySelector('select[data-name=\"{name}\"]'); box.value = '{value}';"
        "box.dispatchEvent(new Event('change')); })()"
    )


def quiet(browser):
    """Nothing on the console, no request but the page itself, and no script of a token ran."""
    assert [error for error in browser.errors if "willReadFrequently" not in error] == []  # INK reads pixels, not we
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in browser.requests if url.startswith("file:")]) == 1
    assert browser.evaluate("window.pwned === undefined")


ASKS = """<!doctype html><html data-ready=1><body style="background: url(http://page.example/style)">
<iframe sandbox="allow-scripts" srcdoc="<script>fetch('http://frame.example/').catch(() => 0)</script>"></iframe>
<script>fetch('http://127.0.0.1:9/address').catch(() => 0); navigator.sendBeacon('http://page.example/beacon', '');
new WebSocket('ws://page.example/socket'); new Worker(URL.createObjectURL(new Blob(
["fetch('http://worker.example/').catch(() => 0)"])))</script>"""


def test_what_a_page_asks_for_is_seen_and_does_not_leave(browser, tmp_path):
    """What `quiet` goes by: of the page, of a sandbox in it and of a worker."""
    (tmp_path / "page.html").write_text(ASKS)
    browser.open(tmp_path / "page.html")
    asked = {
        *("http://page.example/style", "http://page.example/beacon", "ws://page.example/socket"),
        *("http://127.0.0.1:9/address", "http://frame.example/", "http://worker.example/"),
    }
    end, unseen = time.monotonic() + 20, asked
    while unseen and time.monotonic() < end:
        browser.evaluate("new Promise((done) => setTimeout(done, 30))")
        unseen = {url for url in asked if url not in browser.requests and url not in str(browser.errors)}
    assert not unseen
    assert browser.errors
    assert all("DISCONNECTED" in said or "NOT_RESOLVED" in said for said in browser.errors), browser.errors


@pytest.mark.parametrize(("width", "height"), most(SIZES, 1))
@pytest.mark.parametrize("dark", most([False, True], 1))
def test_everything_draws(browser, page, width, height, dark):
    browser.open(page, width, height, dark)
    assert browser.evaluate("document.querySelectorAll('.map button').length") == 12
    assert browser.evaluate("document.querySelectorAll('.ranking circle.dot').length") == 8 * 3
    if width > 1000:  # the answer, the map, the list and the head are there without scrolling
        for part in ("h1", ".figures", ".map", ".ranking", "canvas.inspected"):
            assert browser.evaluate(f"document.querySelector('{part}').getBoundingClientRect().bottom") < height, part
        assert colours(browser, "canvas.inspected") > 5
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    show(browser, "rollout")
    browser.wait("document.querySelectorAll('.three canvas').length === 4")
    assert colours(browser, ".three canvas") > 5
    show(browser, "patterns")
    browser.wait("!!document.querySelector('.circuitsvis canvas')")
    browser.wait(INK.replace("{}", ".circuitsvis canvas") + " > 5")
    assert colours(browser, ".thumbs canvas") > 3
    assert colours(browser, ".stage canvas") > 5
    assert colours(browser, "canvas.model") > 50
    assert browser.evaluate("document.querySelectorAll('.column [role=option]').length") == 16
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    quiet(browser)


def test_circuitsvis_tells_a_weight_on_hover(browser, page):
    browser.open(page)
    show(browser, "patterns")
    browser.wait("!!document.querySelector('.circuitsvis canvas')")
    browser.wait(INK.replace("{}", ".circuitsvis canvas") + " > 5")
    plain = "document.querySelector('.circuitsvis canvas').toDataURL()"
    before = browser.evaluate(plain)
    for down in (0.3, 0.31, 0.32):
        browser.hover(".circuitsvis canvas", across=0.4, down=down)
    browser.wait(f"{plain} !== {before!r}")


def test_a_click_on_the_map_opens_the_head_with_the_runs_numbers(browser, page, run):
    browser.open(page)
    browser.click(".map button[data-head=L2H3]")
    browser.wait("document.getElementById('picked').textContent === 'L2H3'")
    browser.evaluate("document.querySelector('.all-numbers').open = true")
    browser.wait("document.querySelectorAll('#effects-of-head tbody tr').length === 2")
    shown = browser.evaluate(
        "[...document.querySelectorAll('#effects-of-head tbody tr')]"
        ".map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    effect = run.data["effect"].sel(layer=2, head=3)
    for row, metric in zip(shown, ("logit_diff", "loss"), strict=True):
        here, mean = (float(text.split(" ")[0].replace("−", "-")) for text in row[1:3])
        assert here == pytest.approx(float(effect.sel(metric=metric)[0]), rel=5e-3)
        assert mean == pytest.approx(float(effect.sel(metric=metric).mean()), rel=5e-3)
        claimed = run.heads.query(f"metric == '{metric}' and layer == 2 and head == 3").iloc[0]
        low, high = (float(text.replace("−", "-")) for text in row[4].split(" to "))
        assert [low, high] == pytest.approx([claimed["ci_low"], claimed["ci_high"]], rel=5e-3)
        assert float(row[5]) == pytest.approx(claimed["p_adjusted"], rel=0.06)
        assert row[3] == "unsure"  # three prompts cannot show that it hurts
    quiet(browser)


def test_the_keyboard_reaches_a_head(browser, page):
    browser.open(page)
    browser.focus('.map button[tabindex="0"]')
    browser.press("ArrowRight")
    browser.press("ArrowDown")
    assert browser.evaluate("document.activeElement.dataset.head") == "L2H3"
    browser.wait("document.getElementById('picked').textContent === 'L2H3'")


def test_the_metric_switch_redraws_map_and_list(browser, page):
    browser.open(page)
    assert "logits" in browser.evaluate("document.querySelector('.ranking').textContent")
    browser.click("input[name=metric][value='1'] + span")
    browser.wait("document.querySelector('.map').getAttribute('aria-label').includes('loss')")
    assert "nats" in browser.evaluate("document.querySelector('.ranking').textContent")
    quiet(browser)


def test_another_prompt_and_a_cell_by_mouse_and_keys(browser, page, run):
    browser.open(page)
    browser.press("]")
    browser.wait("document.querySelector('.prompt-line').textContent.startsWith('Prompt 1 of 3')")
    show(browser, "rollout")
    assert browser.evaluate("location.hash") == "#tab=rollout"
    browser.press("]")
    browser.wait("document.querySelectorAll('#draw-compare tbody tr').length === 5")
    browser.focus(".three canvas", 2)
    browser.press("ArrowUp")
    said = browser.evaluate("document.querySelector('#draw-compare .readout').textContent")
    assert said.startswith("from “John” (3) to “")
    key = int(said.split("” (")[2].split(")")[0])
    assert float(said.rsplit(" ", 1)[1]) == pytest.approx(float(run.data["pattern"][1, 1, 2, 3, key]), abs=0.0025)
    browser.hover(".three canvas", across=0.3, down=0.98)
    assert "from “ went” (4)".replace(" ", "") in browser.evaluate(
        "document.querySelector('#draw-compare .readout').textContent"
    ).replace(" ", "")
    quiet(browser)


@pytest.mark.parametrize(("width", "height"), most(SIZES, 1))
def test_hostile_tokens_stay_text(browser, tmp_path, width, height):
    run = fake_run(tmp_path, tokens=[HOSTILE, ["<b>one", "two"]])
    run = replace(run, spec={**run.spec, "model": {"name": HOSTILE[0]}}, manifest={HOSTILE[1]: HOSTILE[9]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MissingGlyphs)
        page = views.write_report(run, tmp_path / "hostile.html")
    browser.open(page, width, height)
    show(browser, "patterns")
    browser.wait("!!document.querySelector('.circuitsvis canvas')")
    browser.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    browser.hover(".circuitsvis canvas", across=0.3, down=0.3)
    browser.hover(".column.left [role=option]")
    browser.hover("canvas.model", across=0.5, down=0.5)
    shown = ".tokens.shaded bdi" if width > 820 else ".how-read .tokens bdi"
    line = browser.evaluate(f"[...document.querySelectorAll('{shown}')].map((token) => token.textContent)")
    assert line[:3] == [HOSTILE[0], HOSTILE[1], "⟨U+202E⟩evil"]
    assert (
        browser.evaluate("document.querySelectorAll('main img, svg[onload], bdi *, td b, h1 *, .findings li *').length")
        == 0
    )
    assert browser.evaluate("document.querySelectorAll('script').length") == 2  # the data and ours
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    quiet(browser)


def test_without_scripts_the_figures_are_pictures(browser, page):
    browser.open(page, scripts=False)
    browser.wait("[...document.images].length === 5 && [...document.images].every((image) => image.naturalWidth > 300)")
    assert browser.evaluate("getComputedStyle(document.getElementById('draw-map')).display") == "none"


@pytest.mark.parametrize("parts", [("pattern",), ("effect",)])
def test_partial_runs(browser, tmp_path, parts):
    browser.open(views.write_report(fake_run(tmp_path, n_prompts=1, parts=parts), tmp_path / "report.html", []))
    drawn = "canvas.model" if parts == ("pattern",) else ".map button"
    browser.wait(f"!!document.querySelector('{drawn}')")
    quiet(browser)


def test_heads_beyond_chance_are_marked_and_the_others_doubted(browser, run, tmp_path):
    sure = (run.heads["layer"] == 1) & (run.heads["head"] == 2)
    tested = replace(run, heads=run.heads.assign(p_adjusted=np.where(sure, 0.0001, 0.4)))
    browser.open(views.write_report(tested, tmp_path / "report.html", []))
    browser.wait("document.querySelectorAll('.map button.sure').length === 1")
    assert browser.evaluate("document.querySelector('.map button.sure').dataset.head") == "L1H2"
    assert browser.evaluate("document.querySelectorAll('.ranking svg.doubtful').length") == 7
    browser.hover(".map button[data-head=L0H0]")
    browser.wait("document.querySelector('#draw-map .readout').textContent.includes('max-T p 0.4: not shown')")
    assert "L0H0 unsure: effect on logit_diff" in browser.evaluate(
        "document.querySelector('#draw-map .readout').textContent"
    )
    browser.hover(".map button[data-head=L1H2]")
    browser.wait("document.querySelector('#draw-map .readout').textContent.endsWith('; max-T p <0.001)')")
    quiet(browser)


def test_views_draw_inside_their_sandboxes_one_after_the_other(browser, run, tmp_path):
    """What a notebook shows: two CircuitsVis views (whose own pages draw only the first) and a map, each in a frame."""
    shown = [
        *(views.attention(run, layer=1), views.attention(run, prompt=1, head="L2H0"), views.effects(run)),
        *(views.head_view(run, prompt=1), views.model_view(run), views.rollout(run)),
    ]
    page = tmp_path / "notebook.html"
    frames = "".join(view._repr_html_() for view in shown)
    page.write_text(f"<!doctype html><html data-ready=1><meta charset=utf-8><body>{frames}", encoding="utf-8")
    browser.open(page)
    assert browser.evaluate("[...document.querySelectorAll('iframe')].every((frame) => !frame.contentDocument)")
    for number, (title, tokens) in enumerate((("L1H2 on prompt 0", 8), ("L2H0 on prompt 1", 5))):
        with browser.frame(number):
            browser.wait(f"document.getElementById('picked-in-layer')?.textContent === '{title}'")
            browser.wait(INK.replace("{}", ".circuitsvis canvas") + " > 5")
            assert browser.evaluate("document.querySelectorAll('.tokens bdi').length") == tokens
            assert browser.evaluate("window.origin") == "null"  # the notebook's page is out of its reach
    with browser.frame(2):
        browser.wait("document.querySelectorAll('.map button').length === 12")
        assert browser.evaluate("document.querySelectorAll('.ranking circle.dot').length") == 8 * 3
    for number, drawn, picks in ((3, ".stage canvas", ["Layer", "Head"]), (4, "canvas.model", ["Layer", "Head"])):
        with browser.frame(number):
            browser.wait(INK.replace("{}", drawn) + " > 5")
            named = browser.evaluate("[...document.querySelectorAll('select')].map((box) => box.dataset.name)")
            assert named == picks
    with browser.frame(5):
        browser.wait(INK.replace("{}", ".three canvas") + " > 5")
        assert browser.evaluate("document.querySelectorAll('.three canvas').length") == 4
    quiet(browser)


class Shell:
    """A notebook's kernel that runs one cell after another."""

    kernel, execution_count = True, 1

    def __init__(self):
        self.cell = "first"

    def get_parent(self):
        return {"metadata": {"cellId": self.cell}}


def outputs(monkeypatch, run, cells):
    """What these cells of one notebook show, a view each."""
    shell = Shell()
    monkeypatch.setattr(notebook, "_shell", lambda: shell)
    monkeypatch.setattr(notebook, "_held_by", {})
    made = []
    for cell in cells:
        shell.cell = cell
        made.append(views.attention(run, prompt=len(made))._repr_html_())
    return made


def as_page(path, shown):
    path.write_text(f"<!doctype html><html data-ready=1><meta charset=utf-8><body>{''.join(shown)}", encoding="utf-8")
    return path


def test_many_views_of_a_notebook_have_one_copy_of_the_script(browser, run, tmp_path, monkeypatch):
    """Each in its own sandbox; a cell that is run again hands the script out again."""
    first, second, again = outputs(monkeypatch, run, ["first", "second", "first"])
    packed = notebook.library()[40:400]
    assert [packed in each for each in (first, second, again)] == [True, False, True]
    assert len(second) < 0.3 * len(first)
    browser.open(as_page(tmp_path / "notebook.html", [second, first]))
    for number, prompt in ((0, 1), (1, 0)):
        with browser.frame(number):
            browser.wait(f"document.getElementById('picked-in-layer')?.textContent === 'L1H2 on prompt {prompt}'")
            browser.wait(INK.replace("{}", ".circuitsvis canvas") + " > 5")
            assert browser.evaluate("window.origin") == "null"
    quiet(browser)


def test_a_view_whose_script_is_gone_says_where_it_was(browser, run, tmp_path, monkeypatch):
    browser.open(as_page(tmp_path / "notebook.html", outputs(monkeypatch, run, ["first", "second"])[1:]))
    with browser.frame(0):
        browser.wait("document.body.textContent.includes('waits for its script, which is in the output of the cell')")


def test_scripts_that_are_not_ours_do_not_run_in_a_view(browser, run, tmp_path, monkeypatch):
    """A notebook's page that answers with another script: the frame's policy refuses it."""
    second = outputs(monkeypatch, run, ["first", "second"])[1]
    forged = f"<script>window.attentionHarness = {{'{notebook._key()}': {{code: 'window.pwned = 1', circuitsvis: ''}}}}"
    browser.open(as_page(tmp_path / "notebook.html", [forged, "</script>", second]))
    with browser.frame(0):
        browser.wait("document.querySelectorAll('script').length > 2")
        assert browser.evaluate("window.pwned === undefined")


def test_a_run_too_large_says_what_it_left_out(browser, tmp_path, monkeypatch):
    run = fake_run(tmp_path, n_prompts=3)
    monkeypatch.setattr("harness.views.selection.BUDGET", 250)
    browser.open(views.write_report(run, tmp_path / "report.html", []))
    browser.wait("document.getElementById('head').textContent.includes('This page holds the patterns of')")
    kept = browser.evaluate("JSON.parse(document.getElementById('data').textContent).stacks[0].slots")
    head = next(f"L{layer}H{number}" for layer in range(3) for number in range(4) if [layer, number] not in kept)
    browser.click(f".map button[data-head={head}]")
    browser.wait(
        f"document.querySelector('.pattern-stage').textContent.includes('does not hold the pattern of {head}')"
    )
    quiet(browser)


@pytest.mark.soak
def test_long_prompts_wait_to_be_asked(browser, tmp_path):
    run = fake_run(tmp_path, n_prompts=1, n_layers=1, n_heads=2, lengths=[180])
    browser.open(views.write_report(run, tmp_path / "report.html", []))
    show(browser, "patterns")
    browser.wait("document.querySelector('.circuitsvis button')?.textContent.startsWith('Draw all 180 tokens')")
    assert np.isfinite(colours(browser, ".three canvas"))
    quiet(browser)


def test_an_encoder_decoder_draws_stack_by_stack(browser, tmp_path):
    run = fake_t5(tmp_path)
    browser.open(views.write_report(run, tmp_path / "report.html", []))
    assert browser.evaluate(
        "[...document.querySelectorAll('.map')].map((one) => one.querySelectorAll('button').length)"
    ) == [12, 8, 8]
    browser.wait("document.getElementById('picked').textContent === 'cross.L1H2'")
    browser.wait(INK.replace("{}", "canvas.inspected") + " > 5")
    browser.hover("canvas.inspected", across=0.6, down=0.6)
    said = browser.evaluate("document.querySelector('#draw-inspector .readout').textContent")
    query, key = (int(part.split(")")[0]) for part in said.split("” (")[1:])
    weight = float(run.data["cross_pattern"][0, 1, 2, query, key])
    assert float(said.rsplit(" ", 1)[1]) == pytest.approx(weight, abs=0.0025)
    browser.click(".map button[data-head='encoder.L2H1']")
    browser.wait("document.getElementById('picked').textContent === 'encoder.L2H1'")
    assert browser.evaluate("location.hash") == "#head=encoder.L2H1"
    show(browser, "patterns")
    browser.wait(INK.replace("{}", ".circuitsvis canvas") + " > 5")
    assert browser.evaluate("document.querySelectorAll('canvas.model').length") == 3
    assert browser.evaluate("document.querySelectorAll('.thumbs canvas').length") == 4
    show(browser, "rollout")
    browser.wait("document.querySelectorAll('.three canvas').length === 3")  # their mean, two heads
    quiet(browser)


def weights_beside(browser, side):
    """The numbers beside the tokens of one column of the head view; nothing written is nothing."""
    return browser.evaluate(
        f"[...document.querySelectorAll('.column.{side} .weight')].map((cell) => Number(cell.textContent || 0))"
    )


def test_the_head_view_tells_where_a_token_looks_and_who_looks_at_it(browser, page, run):
    browser.open(page)
    show(browser, "patterns")
    browser.wait("document.querySelectorAll('.column [role=option]').length === 16")
    browser.wait(INK.replace("{}", ".circuitsvis canvas") + " > 5")  # after which nothing above moves
    pattern = run.data["pattern"].values[0].astype(float)
    browser.focus(".column.left [role=option]")
    for _ in range(5):
        browser.press("ArrowDown")
    assert weights_beside(browser, "right") == pytest.approx(pattern[1, 2, 5], abs=0.008)
    browser.hover(".column.right [role=option]:nth-child(2)")
    assert weights_beside(browser, "left") == pytest.approx(pattern[1, 2, :, 1], abs=0.008)
    browser.click(".column.right [role=option]:nth-child(2)")  # held: what is pointed at next changes nothing
    browser.hover(".column.right [role=option]:nth-child(4)")
    assert weights_beside(browser, "left") == pytest.approx(pattern[1, 2, :, 1], abs=0.008)
    browser.click(".column.right [role=option]:nth-child(2)")
    browser.hover(".column.right [role=option]:nth-child(4)")
    assert weights_beside(browser, "left") == pytest.approx(pattern[1, 2, :, 3], abs=0.008)
    browser.click(".swatch[data-number='3']")
    browser.hover(".column.right [role=option]:nth-child(2)")
    assert weights_beside(browser, "left") == pytest.approx(pattern[1, 2:4, :, 1].mean(0), abs=0.008)
    assert browser.evaluate("document.querySelector('#headview .readout').textContent").endswith("on average: H2, H3")
    boxes = browser.evaluate("[...document.querySelectorAll('.column.left .boxes i')].map((box) => box.title)")
    shown = [float(title.split(": ")[1]) for title in boxes]  # a box for each head, beside each token
    assert shown == pytest.approx(pattern[1, 2:4, :, 1].T.ravel(), abs=0.008)
    browser.click("#headview [aria-label='next layer']")
    browser.wait("document.getElementById('picked').textContent === 'L2H2'")
    browser.hover(".column.left [role=option]:nth-child(4)")
    assert weights_beside(browser, "right") == pytest.approx(pattern[2, 2, 3], abs=0.008)
    quiet(browser)


def test_the_model_view_opens_a_head_by_mouse_and_keys(browser, page):
    browser.open(page)
    show(browser, "patterns")
    browser.wait("!!document.querySelector('canvas.model')")
    browser.focus("canvas.model")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        browser.press(key)
    assert browser.evaluate("document.querySelector('#modelview .readout').textContent").startswith("L1H1 ")
    browser.press("Enter")
    browser.wait("document.getElementById('picked').textContent === 'L1H1'")
    box = browser.evaluate("[document.querySelector('canvas.model')].map((c) => [c.clientWidth, c.clientHeight])[0]")
    browser.hover("canvas.model", across=(30 + 80 * 3.5) / box[0], down=(18 + 80 * 2.5) / box[1])
    assert browser.evaluate("document.querySelector('#modelview .readout').textContent").startswith("L2H3 unsure")
    browser.click("#modelview fieldset label:nth-of-type(2) span")
    browser.wait(INK.replace("{}", "canvas.model") + " > 20")
    quiet(browser)


def test_words_and_hidden_special_tokens_and_sentence_pairs(browser, tmp_path):
    run = fake_run(tmp_path, lengths=[8, 8], causal=False)
    word, marks = np.array([0, 1, 1, 2, 3, 4, 4, 5]), np.arange(8) == 0
    grid = {"word": np.tile(word, (2, 1)), "special": np.tile(marks, (2, 1)), "sentence": np.tile(word > 2, (2, 1)) * 1}
    run = replace(run, data=run.data.assign({name: (("prompt", "position"), value) for name, value in grid.items()}))
    browser.open(views.write_report(run, tmp_path / "report.html", []))
    show(browser, "patterns")
    browser.wait("document.querySelectorAll('.column.left [role=option]').length === 8")
    browser.click("fieldset[data-name=By] label:nth-of-type(2) span")
    browser.wait("document.querySelectorAll('.column.left [role=option]').length === 6")
    shown = browser.evaluate("[...document.querySelectorAll('.column.left bdi')].map((token) => token.textContent)")
    assert shown == ["When", "Mary and", "John", "went", "to the", "store"]
    pattern = run.data["pattern"].values[0, 1, 2].astype(float)
    merged = merge_pattern(pattern, word)
    browser.hover(".column.left [role=option]:nth-child(5)")
    assert weights_beside(browser, "right") == pytest.approx(merged[4], abs=0.012)
    browser.click("fieldset[data-name='Special tokens'] label:nth-of-type(2) span")
    browser.wait("document.querySelectorAll('.column.left [role=option]').length === 5")
    browser.hover(".column.left [role=option]:nth-child(4)")
    assert weights_beside(browser, "right") == pytest.approx(merged[4, 1:] / merged[4, 1:].sum(), abs=0.015)
    assert "Special tokens are hidden" in browser.evaluate(
        "document.querySelector('#draw-inspector .note').textContent"
    )
    pick(browser, "Sentences", "AB")
    browser.wait("document.querySelectorAll('.column.left [role=option]').length === 2")
    browser.hover(".column.left [role=option]:nth-child(2)")
    assert weights_beside(browser, "right") == pytest.approx(merged[2, 3:] / merged[2, 1:].sum(), abs=0.015)
    browser.wait(INK.replace("{}", "canvas.inspected") + " > 3")
    quiet(browser)


def test_tables_are_copied_and_saved(browser, page, run):
    browser.open(page)
    browser.context.grant_permissions(["clipboard-read", "clipboard-write"])
    show(browser, "numbers")
    browser.click("#numbers .tools > button")
    browser.wait("document.querySelector('#numbers .tools > .status').textContent === 'copied'")
    copied = browser.evaluate("navigator.clipboard.readText()").splitlines()
    assert len(copied) == 1 + len(run.heads)
    assert copied[0].split("\t")[:3] == ["head", "metric", "effect_mean"]
    with browser.page.expect_download() as saved:
        browser.click("#numbers .tools > button:nth-of-type(2)")
    assert saved.value.suggested_filename == "heads.csv"
    table = pd.read_csv(saved.value.path())
    first = run.heads.query("metric == 'logit_diff' and rank == 1").iloc[0]
    assert table["head"][0] == f"L{first['layer']}H{first['head']}"
    assert table["effect_mean"][0] == pytest.approx(first["effect_mean"], rel=1e-6)  # whole, not as it is shown


def test_the_map_shows_direct_parts_and_roles_too(browser, run, tmp_path):
    direct = run.data["effect"] * 0.25
    role = xr.DataArray(np.eye(3, 4)[None], dims=("role", "layer", "head"))
    data = run.data.assign(direct=direct, role_score=role).assign_coords(role=["previous token"])
    browser.open(views.write_report(replace(run, data=data), tmp_path / "report.html", []))
    shown = "document.querySelector('.map button[data-head=L1H2]').getAttribute('aria-label')"
    mean = float(run.data["effect"].sel(metric="logit_diff", layer=1, head=2).mean())
    for name, share in (("direct", 0.25), ("later layers", 0.75)):
        number = ["effect", "direct", "later layers"].index(name) + 1
        browser.click(f"#draw-map fieldset[data-name=Show] label:nth-of-type({number}) span")
        browser.wait(f"!{shown}.includes('interval')")
        said = browser.evaluate(shown)
        assert float(said.split(" ")[-2].replace("−", "-")) == pytest.approx(share * mean, rel=5e-3)
    pick(browser, "Role", "previous token")
    browser.wait(f"{shown} === 'L1H2: score as previous token 0'")
    quiet(browser)


@pytest.mark.parametrize(
    ("width", "height", "dark"), most([(390, 844, True), (1280, 800, False), (1280, 800, True), (390, 844, False)], 1)
)
def test_no_serious_fault_of_accessibility(browser, page, width, height, dark):
    browser.open(page, width, height, dark)
    for tab in ("overview", "rollout", "patterns", "numbers", "how"):
        show(browser, tab)
        assert faults(browser) == [], tab


def faults(browser):
    """What the checker finds serious, with everything unfolded."""
    script = axe_script()
    if script is None:
        say = pytest.fail if os.environ.get("HARNESS_REQUIRE_BROWSER") == "1" else pytest.skip
        say("axe-core could not be had: install npm and let it reach its registry once")
    browser.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    browser.evaluate(f"window.axe || (() => {{ {script} }})(); undefined")
    found = browser.evaluate(
        "axe.run().then((found) => found.violations.map((one) => [one.impact, one.id, one.nodes.length, "
        "one.nodes[0].html + one.nodes[0].failureSummary]))"
    )
    return [fault for fault in found if fault[0] in ("serious", "critical")]


@pytest.mark.parametrize(("width", "height", "dark"), most([(390, 844, True), (1280, 800, False)], 1))
def test_no_serious_fault_where_sources_and_causes_are_shown(browser, tmp_path, width, height, dark):
    """An encoder-decoder with scores, its three stacks, and a row of causes: what the plain page has not."""
    run = with_sources(fake_t5(tmp_path))
    browser.open(views.write_report(run, tmp_path / "report.html", []), width, height, dark)
    show(browser, "attribution")
    browser.wait("document.querySelectorAll('.source').length > 0")
    assert faults(browser) == []
    assert browser.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize(("width", "height", "dark"), most([(390, 844, True), (1280, 800, False)], 1))
def test_the_picked_head_leads_to_its_card(browser, tmp_path, width, height, dark):
    """And cards, unfolded, have no serious fault."""
    values = {"model": {"name": "random", "source": "random"}, "prompts": {"name": "ioi", "n": 2}}
    spec = parse(RunSpec, {**values, "heads": ["L0H1", "L1H2"], "stats": {"resamples": 99}})
    made = harness.open_run(study.run("explain_heads", spec, study.Place(str(tmp_path)), lambda *_: None))
    browser.open(views.write_report(made, tmp_path / "report.html", []), width, height, dark)
    browser.evaluate("location.hash = '#head=L1H2'")
    browser.wait("document.querySelector('.chips a')?.hash === '#card-L1H2'")
    browser.evaluate("document.querySelector('.chips a').click()")
    browser.wait("document.documentElement.dataset.tab === 'cards'")
    place = "document.getElementById('card-L1H2').getBoundingClientRect()"
    browser.wait(f"{place}.top >= 0 && {place}.top < innerHeight / 2")
    browser.evaluate("location.hash = '#tab=cards&head=L2H0'")
    browser.wait("document.getElementById('picked').textContent === 'L2H0' && !document.querySelector('.chips a')")
    assert faults(browser) == []
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    quiet(browser)


def test_a_run_of_layers_alone_shows_them(browser, run, tmp_path):
    layers = run.data["effect"].sum("head").rename(None)
    data = run.data.drop_vars(["effect", "pattern"]).assign(layer_effect=layers, mlp_effect=-layers)
    only = replace(run, data=data, heads=run.heads.iloc[:0])
    page = views.write_report(only, tmp_path / "report.html")
    browser.open(page)
    browser.wait("document.querySelectorAll('#layers svg.drawing').length === 2")
    assert browser.evaluate("document.querySelector('#layers h2').textContent") == "Effect of ablating each layer"
    assert browser.evaluate("document.images.length") == 0
    quiet(browser)
    browser.open(page, scripts=False)
    browser.wait("document.images.length === 2 && [...document.images].every((image) => image.naturalWidth > 300)")


def with_sources(run):
    """A cause at two targets, over what was read and what was written."""
    sizes = {name: run.data.sizes[name] for name in ("prompt", "source_position", "position")}
    over = ("prompt", "cause_kind", "target_position")
    of_source = np.tile(np.arange(sizes["source_position"]) * 0.5, (sizes["prompt"], 1, 2, 1))
    data = run.data.assign(
        cause=((*over, "position"), np.zeros((sizes["prompt"], 1, 2, sizes["position"]))),
        source_cause=((*over, "source_position"), of_source),
        explained=(("prompt", "target_position"), np.tile([1, 3], (sizes["prompt"], 1))),
    )
    return replace(run, data=data.assign_coords(cause_kind=["knockout"]))


def test_methods_and_causes_are_shaded_text(browser, run, tmp_path):
    scores = np.full((3, 2, 8, 8), np.nan)
    scores[0, :, 6:8, :7] = np.arange(7)
    scores[0, 1, 6, 3] = -12
    over = ("prompt", "attribution_method", "target_position", "position")
    data = run.data.assign(attribution=(over, scores), cause=(("prompt", "cause_kind", *over[2:]), scores[:, :1]))
    data = data.assign_coords(attribution_method=["gradient", HOSTILE[0]], cause_kind=["occlusion"])
    browser.open(views.write_report(replace(run, data=data), tmp_path / "report.html", []))
    show(browser, "attribution")
    browser.wait("document.querySelectorAll('.source').length === 3")
    titles = browser.evaluate("[...document.querySelectorAll('.source h3')].map((one) => one.firstChild.textContent)")
    assert titles == ["occlusion (cause)", "gradient", HOSTILE[0]]  # the cause, then what agrees with it most
    notes = browser.evaluate("[...document.querySelectorAll('.source small')].map((one) => one.textContent)")
    assert notes[1].endswith("ρ 1.00 with occlusion here")
    pick(browser, "Prediction made at", 6)
    shares = (
        "[...document.querySelectorAll('.source')[{}].querySelectorAll('bdi')]"
        ".map((token) => Number(token.style.getPropertyValue('--share')))"
    )
    browser.wait(f"{shares.format(2)}[3] === 1")
    assert browser.evaluate(shares.format(1)) == pytest.approx([*(np.arange(7) / 6), 0])
    rho = scipy_stats.spearmanr(np.arange(7), [0, 1, 2, -12, 4, 5, 6]).statistic
    said = browser.evaluate("document.querySelectorAll('.source small')[2].textContent").partition("ρ ")[2]
    assert float(said.split(" ")[0].replace("−", "-")) == pytest.approx(rho, abs=0.005)
    assert browser.evaluate("document.querySelectorAll('.source .against').length") == 1
    row = browser.evaluate(
        "[...document.querySelectorAll('#draw-compare tr')].map(({ cells }) => "
        "[cells[0], cells[cells.length - 1]].map((cell) => cell.textContent.trim()))"
    )
    assert row[0] == ["to token", "occlusion (cause)"]  # beside rollout, mean pattern and heads
    said = {int(name.rsplit("(")[1][:-1]): number for name, number in row[1:]}
    assert said == {key: "0" if key == 0 else f"+{key}.00" if key < 7 else "" for key in said}
    quiet(browser)


def test_scores_stand_where_they_were_made_and_over_the_source_too(browser, tmp_path):
    """Of an encoder-decoder: predictions at positions 1 and 3 of the text, what was read before what was written."""
    run = with_sources(fake_t5(tmp_path))
    browser.open(views.write_report(run, tmp_path / "report.html", []))
    show(browser, "attribution")
    browser.wait("document.querySelectorAll('.source').length === 1")
    choices = browser.evaluate("[...document.querySelectorAll('#draw-sources option')].map((one) => one.value)")
    assert choices == ["1", "3"]
    shares = browser.evaluate(
        "[...document.querySelectorAll('.source .tokens')].map((line) => [...line.children].map(({ title }) => title))"
    )
    length, source = int(run.data["length"][0]), int(run.data["source_length"][0])
    assert [len(line) for line in shares] == [source, length]
    assert shares[0][3] == "1.50"
    browser.focus(".three canvas")
    for _ in range(length):
        browser.press("ArrowUp")
    browser.press("ArrowDown")
    titles = "[...document.querySelectorAll('#draw-compare th[scope=col]')].map((one) => one.textContent)"
    assert browser.evaluate(titles)[-1] == "knockout (cause)"
    quiet(browser)
