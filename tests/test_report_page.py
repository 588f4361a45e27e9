"""The report as an instrument: its address, its keys, the sink, a pinned head, the search, at three sizes."""

from dataclasses import replace

import numpy as np
import pytest
from fakes import fake_run, with_claims
from test_browser import INK, quiet, show
from thinned import most

from harness import views


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two prompts of eight tokens that differ and one of five; the first token takes most of L0H0."""
    run = with_claims(fake_run(tmp_path_factory.mktemp("run"), lengths=[8, 5, 8]))
    pattern = run.data["pattern"].values.astype(float).copy()
    pattern[:, 0, 0] *= 0.1
    pattern[:, 0, 0, :, 0] += 0.9 * (pattern[:, 0, 0].sum(-1) > 0)
    return replace(run, data=run.data.assign(pattern=(run.data["pattern"].dims, pattern)))


@pytest.fixture(scope="module")
def page(run):
    return views.write_report(run, run.path / "report.html", [])


def picked(browser):
    return browser.evaluate("document.getElementById('picked').textContent")


def goes_to(browser, address):
    browser.evaluate(f"location.hash = '{address}'")


def boxes(browser, *parts):
    """The places of these parts on the page, in whole pixels."""
    return browser.evaluate(
        f"{list(parts)}.map((part) => document.querySelector(part).getBoundingClientRect())"
        ".map(({x, y, width}) => [x, y, width].map(Math.round))"
    )


@pytest.mark.parametrize("dark", most([False, True], 1))
@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1280, 800)])
def test_a_click_fills_the_inspector_and_moves_nothing(browser, page, width, height, dark):
    browser.open(page, width, height, dark)
    parts = ("h1", ".map", ".ranking", "#draw-inspector", "#picked", ".prompt-line", "footer")
    before = boxes(browser, *parts)
    for head in ("L2H3", "L0H1"):
        browser.hover(f".map button[data-head={head}]")
        browser.click(f".map button[data-head={head}]")
        browser.wait(f"document.getElementById('picked').textContent === '{head}'")
        browser.wait(INK.replace("{}", "canvas.inspected") + " > 3")
        assert boxes(browser, *parts) == before
    browser.click(".ranking .link[data-head=L2H3]")
    browser.wait("document.getElementById('picked').textContent === 'L2H3'")
    assert boxes(browser, *parts) == before
    quiet(browser)


def test_on_a_phone_the_answer_and_the_list_come_first_and_the_head_from_below(browser, page):
    browser.open(page, 390, 844)
    tops = [place[1] for place in boxes(browser, "h1", ".ranking", ".map")]
    assert tops == sorted(tops)
    assert tops[1] < 844
    assert browser.evaluate("document.documentElement.scrollWidth") == 390
    assert not browser.evaluate("document.querySelector('.inspector-body').offsetHeight")
    browser.click(".ranking .link[data-head=L2H3]")
    browser.wait("document.querySelector('#draw-inspector.unfolded') !== null")
    browser.wait(INK.replace("{}", "canvas.inspected") + " > 3")
    bottom = browser.evaluate("document.getElementById('draw-inspector').getBoundingClientRect().bottom")
    assert round(bottom) == 844
    browser.click(".sheet")
    assert not browser.evaluate("document.querySelector('.inspector-body').offsetHeight")
    quiet(browser)


def test_an_address_restores_the_whole_state(browser, page):
    browser.open(page)
    address = "#tab=patterns&head=L2H1&prompt=2&metric=loss&sink=hidden&how=lines&pin=L0H0%400"
    goes_to(browser, address)
    browser.wait("document.getElementById('picked').textContent === 'L2H1'")
    assert browser.evaluate("document.documentElement.dataset.tab") == "patterns"
    browser.wait("document.querySelector('.prompt-line').textContent.startsWith('Prompt 2 of 3')")
    assert browser.evaluate("document.querySelector('.facts b').textContent").endswith("nats")
    chosen = browser.evaluate("[...document.querySelectorAll('.modes input:checked')].map((one) => one.dataset.value)")
    assert chosen == ["lines", "false"]
    browser.wait("document.querySelector('.pinned h3')?.textContent.startsWith('L0H0 on prompt 0')")
    assert browser.evaluate("location.hash") == address
    quiet(browser)


def test_what_is_opened_is_in_the_address_and_back_goes_back(browser, page):
    browser.open(page)
    for head in ("L2H3", "L0H1"):
        browser.click(f".map button[data-head={head}]")
        browser.wait(f"location.hash === '#head={head}'")
    show(browser, "numbers")
    browser.evaluate("history.back()")
    browser.wait("document.documentElement.dataset.tab === 'overview'")
    assert picked(browser) == "L0H1"
    browser.evaluate("history.back()")
    browser.wait("document.getElementById('picked').textContent === 'L2H3'")
    browser.evaluate("history.back()")
    browser.wait("document.getElementById('picked').textContent === 'L1H2'")
    assert browser.evaluate("location.hash") == ""
    quiet(browser)


@pytest.mark.parametrize(
    "address", ["#head=L9H9&prompt=77&metric=nothing&tab=none", "#head=%E0%A4%A&prompt=-1", "#nowhere", "#pin=L1H2"]
)
def test_a_wrong_address_opens_the_page_as_it_opens(browser, page, address):
    browser.open(page)
    before = browser.evaluate("document.body.innerText")
    goes_to(browser, address)
    browser.evaluate("new Promise((done) => setTimeout(done, 50))")
    assert browser.evaluate("document.body.innerText") == before
    quiet(browser)


def test_the_name_of_a_section_is_an_address_too(browser, page):
    browser.open(page)
    goes_to(browser, "#headview")
    browser.wait("document.documentElement.dataset.tab === 'patterns'")


def test_keys_move_among_heads_and_prompts_and_switch_the_view(browser, page):
    browser.open(page)
    for key, head in (("ArrowRight", "L2H2"), ("ArrowDown", "L2H3"), ("ArrowLeft", "L1H3"), ("ArrowUp", "L1H2")):
        browser.press(key)
        browser.wait(f"document.getElementById('picked').textContent === '{head}'")
    browser.press("ArrowUp")
    browser.press("ArrowUp")
    browser.press("ArrowUp")  # at the edge it stays
    assert picked(browser) == "L1H0"
    browser.press("]")
    browser.press("]")
    browser.press("]")
    browser.press("[")
    browser.wait("document.querySelector('.prompt-line').textContent.startsWith('Prompt 1 of 3')")
    for key, said in (("l", "how=lines"), ("s", "sink=hidden"), ("p", "pin=L1H0%401")):
        browser.press(key)
        browser.wait(f"location.hash.includes('{said}')")
        browser.press(key)
        browser.wait(f"!location.hash.includes('{said}')")
    browser.press("?")
    browser.wait("document.querySelector('dialog').open")
    assert browser.evaluate("document.querySelectorAll('dialog dd').length") == 9
    browser.press("Escape")
    browser.wait("!document.querySelector('dialog')")
    quiet(browser)


def test_who_reads_rows_by_keyboard_stays_in_the_drawing(browser, page):
    browser.open(page)
    goes_to(browser, "#how=lines")
    browser.wait("document.querySelector('.key')?.textContent.startsWith('queries left')")
    browser.focus("canvas.inspected")
    for row in (6, 5, 4):  # from the last of eight
        browser.press("ArrowUp")
        browser.wait(f"location.hash === '#how=lines&row={row}'")
    assert picked(browser) == "L1H2"
    browser.focus(".tokens.shaded .unit", 2)
    browser.press("Enter")
    browser.wait("location.hash === '#how=lines&row=2'")
    browser.wait("document.querySelector('.prompt-line').textContent.includes('and')")
    assert browser.evaluate("document.activeElement.textContent.trim()") == "and"
    quiet(browser)


def test_letters_that_are_typed_into_a_field_are_no_keys(browser, page):
    browser.open(page)
    browser.press("/")
    browser.wait("document.activeElement.id === 'search'")
    browser.page.keyboard.type("spl")
    assert browser.evaluate("location.hash") == ""
    assert browser.evaluate("document.getElementById('search').value") == "spl"


def test_the_search_goes_to_a_head_or_a_prompt(browser, page):
    browser.open(page)
    browser.press("/")
    browser.page.keyboard.type("l2")
    found = browser.evaluate("[...document.querySelectorAll('#found li')].map((item) => item.textContent)")
    assert found == ["L2H0", "L2H1", "L2H2", "L2H3"]
    browser.press("ArrowDown")
    browser.press("Enter")
    browser.wait("document.getElementById('picked').textContent === 'L2H1'")
    browser.press("/")
    browser.page.keyboard.type("prompt 1")
    browser.press("Enter")
    browser.wait("document.querySelector('.prompt-line').textContent.startsWith('Prompt 1 of 3')")
    quiet(browser)


def row_read(browser, n):
    """The weights of the row that is read, from the titles of the shaded tokens."""
    titles = browser.evaluate("[...document.querySelectorAll('.tokens.shaded .unit')].map((one) => one.title)")
    assert len(titles) == n
    return [float(title.removeprefix("weight ").partition(",")[0]) for title in titles]


def test_a_hidden_sink_leaves_rows_that_sum_to_one(browser, page, run):
    browser.open(page)
    goes_to(browser, "#head=L0H0")
    browser.wait("document.querySelector('#draw-inspector .note').textContent.includes('first token takes 9')")
    row = run.data["pattern"].values[0, 0, 0, 7].astype(float)
    assert row_read(browser, 8) == pytest.approx(row, abs=0.003)
    browser.click("#draw-inspector .note button")
    browser.wait("document.querySelectorAll('.tokens.shaded .unit').length === 7")
    hidden = row_read(browser, 7)
    assert sum(hidden) == pytest.approx(1, abs=0.004)
    assert hidden == pytest.approx(row[1:] / row[1:].sum(), abs=0.03)  # bytes of a tenth of a row
    assert "made to sum to 1 again" in browser.evaluate("document.querySelector('#draw-inspector .note').textContent")
    quiet(browser)


def test_a_pinned_head_is_shown_with_the_difference_of_the_arrays(browser, page, run):
    browser.open(page)
    goes_to(browser, "#head=L2H1&pin=L0H2%400")
    browser.wait("document.querySelectorAll('.pinned canvas').length === 2")
    shown = browser.evaluate("[...document.querySelectorAll('.pinned canvas')[1].difference]")
    pattern = run.data["pattern"].values[0].astype(float)
    assert np.reshape(shown, (8, 8)) == pytest.approx(pattern[2, 1] - pattern[0, 2], abs=0.005)
    goes_to(browser, "#head=L2H1&pin=L0H2%401")  # another length
    browser.wait("document.querySelector('.pinned').textContent.includes('other tokens')")
    assert browser.evaluate("document.querySelectorAll('.pinned canvas').length") == 1
    quiet(browser)


def test_a_head_is_shown_beside_the_same_head_of_the_other_model(browser, tmp_path):
    run = fake_run(tmp_path, n_prompts=1)
    other = run.data["pattern"][:, ::-1].values  # its layers in reverse
    data = run.data.assign(
        other_pattern=(run.data["pattern"].dims, other),
        pattern_distance=(("prompt", "layer", "head"), np.ones((1, 3, 4))),
    )
    compared = replace(run, data=data, spec={**run.spec, "compare": {"model": {"name": "tuned"}}})
    browser.open(views.write_report(compared, tmp_path / "report.html", []))
    goes_to(browser, "#head=L2H1&pin=other")
    browser.wait("document.querySelector('.pinned h3')?.textContent.startsWith('L2H1 of tuned on prompt 0')")
    shown = browser.evaluate("[...document.querySelectorAll('.pinned canvas')[1].difference]")
    pattern = run.data["pattern"].values[0].astype(float)
    assert np.reshape(shown, (8, 8)) == pytest.approx(pattern[2, 1] - pattern[0, 1], abs=0.005)
    browser.press("ArrowDown")  # the other model's head goes along
    browser.wait("document.querySelector('.pinned h3')?.textContent.startsWith('L2H2 of tuned')")
    quiet(browser)


def test_a_token_that_is_clicked_is_the_row_that_is_read(browser, page, run):
    browser.open(page)
    browser.click(".tokens.shaded .unit:nth-child(4)")
    browser.wait("document.querySelector('.prompt-line').textContent.includes('John')")
    assert row_read(browser, 8) == pytest.approx(run.data["pattern"].values[0, 1, 2, 3], abs=0.003)
    assert browser.evaluate("location.hash") == "#row=3"


def test_values_weigh_a_pattern_where_they_were_kept(browser, tmp_path):
    run = with_claims(fake_run(tmp_path, n_prompts=1))
    v = np.random.default_rng(1).normal(size=(1, 3, 2, 8, 5)) * np.arange(1, 9)[:, None]
    data = run.data.assign(v=(("prompt", "layer", "kv_head", "position", "d_head"), v))
    browser.open(views.write_report(replace(run, data=data), tmp_path / "report.html", []))
    goes_to(browser, "#how=values")
    browser.wait("document.querySelector('#draw-inspector .note').textContent.includes('norm of the key')")
    expected = data["pattern"].values[0, 1, 2, 7] * np.linalg.norm(v[0, 1, 1], axis=-1)  # four heads share two values
    assert row_read(browser, 8) == pytest.approx(expected, rel=0.03, abs=0.02)


def test_without_patterns_there_is_nothing_to_draw_or_save_of_one(browser, tmp_path):
    run = with_claims(fake_run(tmp_path, n_prompts=2, parts=("effect",)))
    browser.open(views.write_report(run, tmp_path / "report.html", []))
    browser.wait("document.querySelector('.pattern-stage').textContent.includes('does not hold the pattern')")
    for part in (".modes fieldset", "#draw-inspector .figure-tools"):
        assert not browser.evaluate(f"!!document.querySelector('{part}')?.offsetWidth"), part
    assert browser.evaluate("document.querySelector('#draw-map .foot .figure-tools').offsetWidth") > 0


def test_important_heads_are_ringed_and_the_sums_are_those_of_the_layers(browser, page, run):
    ringed = (run.heads["metric"] == "logit_diff") & (run.heads["rank"] <= 2)
    judged = replace(run, heads=run.heads.assign(p_adjusted=np.where(ringed, 0.001, 0.5), important=ringed))
    browser.open(views.write_report(judged, run.path / "judged.html", []))
    shown = browser.evaluate("[...document.querySelectorAll('.map button.important')].map((one) => one.dataset.head)")
    assert sorted(shown) == sorted(str(head) for head in run.top_heads("logit_diff", 2))
    effect = run.data["effect"].sel(metric="logit_diff").mean("prompt").sum("head").values
    said = browser.evaluate("[...document.querySelectorAll('.map .sum')].map((bar) => bar.getAttribute('aria-label'))")
    numbers = [float(text.split(" sum to ")[1].split(" ")[0].replace("−", "-")) for text in said]
    assert numbers == pytest.approx(effect, rel=0.01)


def test_the_page_prints_its_legend_and_a_few_rows(browser, page):
    browser.open(page)
    show(browser, "numbers")
    browser.page.emulate_media(media="print")
    rows = "[...document.querySelectorAll('section#numbers tbody tr')].filter((row) => row.offsetHeight).length"
    assert browser.evaluate(rows) == 24
    show(browser, "overview")
    assert browser.evaluate("document.querySelector('#draw-map .legend').offsetHeight") > 0
    assert not browser.evaluate("document.querySelector('nav.tabs').offsetHeight")
    browser.page.emulate_media(media="screen")


def test_no_text_on_the_first_screen_is_under_eleven_pixels(browser, page):
    for width in (1440, 390):
        browser.open(page, width, 900)
        small = browser.evaluate(
            "[...document.querySelectorAll('body *')].filter((one) => one.offsetHeight"
            " && one.firstChild?.nodeType === 3 && one.firstChild.textContent.trim()"
            " && parseFloat(getComputedStyle(one).fontSize) < 11)"
            ".map((one) => one.outerHTML.slice(0, 80))"
        )
        assert small == []


def test_a_table_is_sorted_by_value_filtered_and_opens_heads(browser, page, run):
    browser.open(page)
    show(browser, "numbers")
    browser.click("#numbers thead th:nth-child(3) button")
    heads = "[...document.querySelectorAll('section#numbers tbody tr')].filter((row) => !row.hidden).map((row) => {})"
    values = browser.evaluate(heads.format("Number(row.cells[2].dataset.value)"))
    assert values == pytest.approx(sorted(run.heads["effect_mean"], reverse=True), rel=1e-6)
    browser.click("#numbers thead th:nth-child(3) button")
    assert browser.evaluate(heads.format("Number(row.cells[2].dataset.value)")) == values[::-1]
    browser.focus("#numbers .filter input")
    browser.page.keyboard.type("L2H3")
    assert browser.evaluate(heads.format("row.cells[0].textContent")) == ["L2H3", "L2H3"]
    browser.click("#numbers tbody tr:not([hidden]) button")
    browser.wait("document.getElementById('picked').textContent === 'L2H3'")
    browser.click("#prompts tbody tr:nth-child(2) button")
    browser.wait("document.querySelector('.prompt-line').textContent.startsWith('Prompt 1 of 3')")
    quiet(browser)
