"""What a notebook shows of every public object: short, escaped, and in frames as high as what is in them.

JupyterLab shows an output of a trusted notebook as it is. From one that is not trusted its sanitiser
(packages/apputils/src/sanitizer.ts) removes scripts with their text and the tags of frames, whose text it leaves.
nbviewer and nbconvert show what a trusted notebook does.
"""

import os
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

import harness

ROOT = Path(__file__).parents[1]
HOSTILE = "</script><script>pwned()</script><b>\x00"

SETUP = """
import harness
model, planted = harness.load_model("random"), harness.load_model("planted")
prompts = harness.load_prompts("ioi", model, n=4)
patterns = harness.cache_attention(model, prompts)
seen, at = harness.look(model, "The dog chased the cat"), harness.look(planted, " da ko li da ko")
"""
#: Cells, and what their text begins with.
CELLS = {
    "model": "Model(random: decoder, 3 layers × 4 heads, float32 on cpu)",
    "planted": "Model(planted: decoder, 2 layers × 6 heads, float32 on cpu)",
    "prompts": "Prompts(ioi: 4 prompts of 18–21 tokens, with answers, distractors and counterfactuals)",
    "patterns": "Patterns(random on 4 prompts of ioi: 12 heads",
    "harness.ablate_heads(model, prompts, metrics='loss')": "Effects(random on 4 prompts of ioi: zero-ablation",
    "harness.compare_attributions(model, prompts.take([0, 1]), ['rollout'], ['knockout'])": "Attributions(random on 2",
    "seen": "Look('The dog chased the cat', 16 tokens, 12 heads)",
    "seen.head('L1H0')": "View(L1H0 · The dog chased the cat)",
    "seen.grid()": "View(Every head · The dog chased the cat)",
    "at.grid(layer=1)": "View(Every head of layer 1 · da ko li da ko)",
    "at.lines(head='L1H4')": "View(Lines of L1 (first L1H4) · da ko li da ko)",
    "seen.values('L1H0')": "View(L1H0: attention × norm of the value ·",
    "seen.scores('L1H0')": "View(L1H0: scores before the softmax ·",
    "seen.qk(3, 1, 'L1H0')": "View(L1H0: ",
    "at.rollout(start_layer=1)": "View(Attention rollout start_layer=1 · da ko li da ko)",
    "seen.saliency()": "View(Text coloured by the norm of the gradient of the loss, mean over ",
    "at.follow(5, [1, 2])": "View(From “ko (5)” to “da (1)” and “ko (2)”, in every head)",
    "harness.look(patterns, prompt=2).head('L0')": "View(Mean of 4 heads (L0) · prompt 2: ",
}
PLAIN = {
    "harness.Head(5, 1)": "Head(layer=5, head=1, stack='')",
    "harness.zero('L0H1')": "zero('L0H1')",
}


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """The cells of a notebook after a run, by their source."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in (SETUP, *CELLS, *PLAIN)]
    place = tmp_path_factory.mktemp("kernel")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(place), "OMP_NUM_THREADS": "1"}
    resources = {"metadata": {"path": str(place)}}
    NotebookClient(notebook, timeout=120, resources=resources).execute(env=environment)
    return {cell.source: cell for cell in notebook.cells}


def shown(cell, kind):
    return "".join(out["data"][kind] for out in cell.outputs if kind in out.get("data", {}))


def page(path, fragments):
    outputs = "".join(f'<div style="width:900px">{each}</div>' for each in fragments)
    path.write_text(f"<!doctype html><html data-ready=1><meta charset=utf-8><body>{outputs}", encoding="utf-8")
    return path


def sanitised(html):
    """What JupyterLab leaves of an output of a notebook that is not trusted."""
    return re.sub(r"</?iframe[^>]*>", "", re.sub(r"<script>.*?</script>", "", html, flags=re.S))


#: Height of each frame, of its page, and whether it has a scroll bar, by number.
INNER = "[document.body.getBoundingClientRect().height, document.documentElement.scrollHeight]"
OUTER = "[...document.querySelectorAll('iframe')].map((frame) => frame.clientHeight)"


def heights(browser):
    """Each frame's height, and that of the page in it."""
    outer, inner = browser.evaluate(OUTER), []
    for number in range(len(outer)):
        with browser.frame(number):
            inner.append(browser.evaluate(INNER))
    return [(frame, round(body), whole) for frame, (body, whole) in zip(outer, inner, strict=True)]


def drawn(browser, n):
    """Wait until all that is drawn by scripts is there."""
    for number in range(n):
        browser.page.locator("iframe").nth(number).scroll_into_view_if_needed()  # out of sight nothing is laid out
        with browser.frame(number):
            if browser.evaluate("!!document.querySelector('.drawn')"):
                browser.wait("!!document.documentElement.dataset.ready && !!document.querySelector('.drawn canvas')")
        browser.page.wait_for_timeout(100)


def test_every_public_object_shows_what_it_is(cells):
    for source, text in {**CELLS, **PLAIN}.items():
        outputs = cells[source].outputs
        assert [out.output_type for out in outputs] == ["execute_result"], (source, outputs)
        plain = shown(cells[source], "text/plain")
        assert plain.startswith(text), source
        assert len(plain) < 300, source
        assert bool(shown(cells[source], "text/html")) == (source in CELLS), source


def test_frames_of_a_trusted_notebook_are_as_high_as_their_pages(cells, browser, tmp_path):
    fragments = [shown(cells[source], "text/html") for source in CELLS]
    browser.open(page(tmp_path / "trusted.html", fragments))
    n = "".join(fragments).count("<iframe")
    assert n == 12
    drawn(browser, n)
    for number, (frame, body, whole) in enumerate(heights(browser)):
        assert body > 100, number
        assert abs(frame - body) <= 2, number
        assert whole <= frame + 1, number  # no scroll bar
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith("file:")] == []


def test_a_notebook_that_is_not_trusted_says_how_to_see_its_views(cells, browser, tmp_path):
    fragments = [sanitised(shown(cells[source], "text/html")) for source in CELLS]
    browser.open(page(tmp_path / "untrusted.html", fragments), scripts=False)
    for source, fragment in zip(CELLS, fragments, strict=True):
        view = CELLS[source].startswith(("View(", "Look("))
        assert (fragment == harness.views.notebook._UNTRUSTED) == view, source
    assert "hidden until the notebook is trusted" in browser.page.content()


@pytest.mark.soak
def test_frames_have_about_the_height_of_their_page_without_any_message(tiny, browser, tmp_path):
    """Outside a kernel no script sets a frame's height: it is the one estimated from the content."""
    seen = harness.look(tiny("gpt2"), "a drink to Mary")
    both = harness.look(tiny("t5"), "a b c d", target="e f")
    short = harness.look(tiny("t5"), "When Mary and John went to the store, John gave a drink to", target="M")
    views = [
        *(seen.head("L1H0"), seen.grid(), seen.grid(layer=0), seen.lines(head="L1H0"), seen.values("L1H0")),
        *(seen.scores("L1H0"), seen.qk(3, 1, "L1H0"), seen.rollout(), seen.saliency(), seen.follow(1, [0])),
        *(both.head("cross.L1H0"), both.grid(layer=1), both.lines(head="cross.L0H0")),
        *(both.grid(), short.grid(), short.grid(layer=1)),
    ]
    browser.open(page(tmp_path / "frames.html", [view._repr_html_() for view in views]))
    drawn(browser, len(views))
    for view, (frame, body, whole) in zip(views, heights(browser), strict=True):
        assert 0 <= frame - body <= 80, (view, frame, body)
        assert whole <= frame + 1, view


def test_a_forged_height_changes_no_other_frame(cells, browser, tmp_path):
    """A frame of someone else cannot set the height of a view, nor have the scripts."""
    fragment = shown(cells["seen.grid()"], "text/html") + shown(cells["seen"], "text/html")
    forged = "<script>parent.postMessage({attentionHarness: 'height', height: 5}, '*')</script>"
    browser.open(
        page(tmp_path / "forged.html", [fragment, f'<iframe sandbox="allow-scripts" srcdoc="{forged}"></iframe>'])
    )
    browser.page.wait_for_timeout(500)
    assert min(browser.evaluate(OUTER)[:2]) > 100
    assert browser.evaluate(OUTER)[2] > 100


def test_prompts_in_a_notebook_show_hostile_text_as_text(tiny):
    prompts = harness.load_prompts([HOSTILE, "a b"], tiny("gpt2"), answer=[" a", " b"], distractor=[" b", " a"])
    html = prompts._repr_html_()
    assert "<script" not in html
    assert "<b>\x00" not in html
    assert "⟨U+0000⟩" in html
    assert "a| b" in html
    assert repr(prompts).startswith("Prompts(inline: 2 prompts of ")


def test_a_models_table_has_what_is_ablated_now(tiny):
    model = tiny("llama")
    assert "ablated now" not in model._repr_html_()
    with harness.ablated(model, "L0H1") as check:
        assert "zero(&#x27;L0H1&#x27;)" in model._repr_html_()
        model.generate("a drink", max_new_tokens=2)
    assert repr(check) == "Check(zero('L0H1'): 2 edits verified at W_O)"


def test_a_figure_draws_weights_above_one_by_rounding(tiny):
    seen = harness.look(tiny("gpt2"), "a drink")
    seen.run.data["pattern"].values[0, 1, 0, 0, 0] = np.float32(1.0000001)
    alphas = [line.get_alpha() for line in seen.lines(head="L1H0").figure().axes[0].lines]
    assert max(alphas) == 1.0
