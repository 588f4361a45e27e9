"""Tables, followed words and coloured text: the numbers on the page are those of the run, brought to words by hand."""

import html
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import xarray as xr
from fakes import fake_run
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from test_views import HOSTILE

import harness
from harness import views
from harness.config import RequestError
from harness.views import token_colours
from harness.views.axis import axis
from harness.views.figures import words as figure_words
from harness.views.glyphs import MissingGlyphs
from harness.views.text import visible

TOKENS = [["[CLS]", "un", "happy", " dog", " the", " cat", " the", "[SEP]"], [" a", " b", "", "", "", "", "", ""]]
WORD = [[0, 1, 1, 2, 3, 4, 5, 6], [0, 1, -1, -1, -1, -1, -1, -1]]
TEXT = [["", "unhappy", "", " dog", " the", " cat", " the", ""], [" a", " b", *[""] * 6]]


@pytest.fixture
def run(tmp_path):
    """Two prompts, the first with special tokens and a word of two tokens."""
    made = fake_run(tmp_path, tokens=[TOKENS[0], TOKENS[1][:2]], causal=False)
    over = ("prompt", "position")
    special = np.isin(np.array(TOKENS), ["[CLS]", "[SEP]"])
    added = {"word": WORD, "word_text": np.array(TEXT), "special": special, "sentence": np.zeros((2, 8), dtype=int)}
    return replace(made, data=made.data.assign({name: (over, np.asarray(values)) for name, values in added.items()}))


def raw(run, head=(1, 2)):
    return run.data["pattern"].values[0, head[0], head[1]].astype(float)


# --- axes and tables --------------------------------------------------------------------------------------------


def test_a_table_by_word_sums_keys_and_averages_queries(run):
    table, weights = views.table(run, 0, "L1H2", level="word"), raw(run)
    assert list(table.columns) == list(table.index) == ["[CLS]", "unhappy", "dog", "the (3)", "cat", "the (5)", "[SEP]"]
    assert table.iloc[2, 1] == pytest.approx(weights[3, 1] + weights[3, 2])
    assert table.iloc[1, 2] == pytest.approx((weights[1, 3] + weights[2, 3]) / 2)
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=2e-3)  # patterns are kept in 16 bits
    assert "summed over a word’s key tokens and averaged" in table.attrs["note"]


def test_special_tokens_left_out_are_said_and_rows_renormalised(run):
    table, weights = views.table(run, 0, "L1H2", special="drop"), raw(run)
    assert list(table.columns) == ["un", "happy", " dog", " the (3)", " cat", " the (5)"]
    kept = weights[1:7, 1:7]
    np.testing.assert_allclose(table.values, kept / kept.sum(1, keepdims=True))
    share = 100 * weights[1:7][:, [0, 7]].sum(1).mean()
    assert f"on average {share:.0f} % of the attention was on them" in table.attrs["note"]


def test_a_layers_mean_the_mean_of_all_and_the_rollout(run):
    pattern = run.data["pattern"].values[0].astype(float)
    np.testing.assert_allclose(views.table(run, 0, "L2"), pattern[2].mean(0))
    np.testing.assert_allclose(views.table(run, 0), pattern.mean((0, 1)))
    np.testing.assert_allclose(views.table(run, 0, "rollout"), harness.attribution.rollout(pattern))
    assert views.table(run, 0, "L1H2").attrs == {"title": "L1H2", "note": ""}


def test_a_table_can_be_written_and_read(run, tmp_path):
    import pandas as pd

    table = views.table(run, 0, "L1H2", level="word")
    table.to_csv(tmp_path / "table.csv")
    np.testing.assert_allclose(pd.read_csv(tmp_path / "table.csv", index_col=0).values, table.values)


def test_strongest_keys_are_the_largest_weights_in_order(run):
    found, weights = views.strongest_keys(run, 0, "L1H2", n=2), raw(run)
    assert len(found) == 16
    for query, group in found.groupby("query_at"):
        assert group["key_at"].tolist() == np.argsort(-weights[query], kind="stable")[:2].tolist()
        np.testing.assert_allclose(group["weight"], np.sort(weights[query])[::-1][:2])


def test_keys_that_are_not_looked_at_are_not_listed(tmp_path):
    assert len(views.strongest_keys(fake_run(tmp_path, n_prompts=1, lengths=[3]), 0, n=3)) == 1 + 2 + 3


def test_tokens_that_spell_a_character_together_are_labelled_with_it(run):
    bad = "\ufffd"
    tokens = np.array([[bad, bad, bad, "は", *[""] * 4], [""] * 8])
    words = {"word": [[0, 0, 0, 1, *[-1] * 4], [-1] * 8], "word_text": [["犬", "", "", "は", *[""] * 4], [""] * 8]}
    data = run.data.assign(token=(("prompt", "position"), tokens), length=("prompt", [4, 1]))
    data = data.assign({name: (("prompt", "position"), np.asarray(value)) for name, value in words.items()})
    assert axis(replace(run, data=data), 0).labels == ["犬 1/3", "犬 2/3", "犬 3/3", "は"]
    assert axis(replace(run, data=data), 0, "word").labels == ["犬", "は"]


def test_a_pair_is_followed_through_every_head(run):
    found = views.follow_table(run, 0, "unhappy", ["dog", 5])
    assert len(found) == 2 * 3 * 4
    for row in found.itertuples():
        weights = raw(run, (row.layer, row.number))
        key = {"dog": 3, "the (5)": 6}[row.key]
        assert row.weight == pytest.approx(weights[[1, 2], key].mean())
        assert row.head == f"L{row.layer}H{row.number}"
    for key, at in (("dog", 3), ("the (5)", 6)):
        means = [np.mean([raw(run, (layer, head))[[1, 2], at].mean() for head in range(4)]) for layer in range(3)]
        assert found.attrs["by_layer"][key] == pytest.approx(dict(enumerate(means)))


def test_what_comes_later_cannot_be_seen_and_that_is_said(tmp_path):
    run = fake_run(tmp_path, n_prompts=1)
    found = views.follow_table(run, 0, "Mary", "went")
    assert not found["weight"].any()
    assert found.attrs["note"].endswith("What comes later cannot be seen from “Mary”: went.")


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda run: views.follow(run, 0, "the", "dog"),
            "query='the': it is at 3 and 5 (counted from 0):",
        ),
        (lambda run: views.follow(run, 0, "dog", "horse"), "keys='horse': it is not a word of this prompt; there are:"),
        (lambda run: views.follow(run, 0, 9, "dog"), "query=9: the prompt has words 0-6"),
        (
            lambda run: views.table(run, 0, "best"),
            "head=best: a head is written L5H1 (layer 5, head 1)",
        ),
        (lambda run: views.table(run, 0, "L9"), "heads=L9: L9 is outside smollm2: it has layers 0-2"),
        (lambda run: views.table(run, 0, level="letter"), "level=letter: choose token or word"),
        (lambda run: views.table(run, 0, special="hide"), "special=hide: choose keep or drop"),
        (lambda run: views.strongest_keys(run, 0, n=0), "n=0: pass 1 or more"),
        (lambda run: views.saliency(run, scale="mine"), "scale=mine: choose text or shared"),
        (lambda run: views.saliency(run, method="lime"), "method=lime: this run has no attributions; pass a head"),
        (
            lambda run: views.saliency(run, method="gradient", head="L1H2"),
            "method=gradient: head is what is shown: leave out one of the two",
        ),
        (
            lambda run: views.saliency(run, 0, method="gradient", scores=np.ones(8)),
            "method=gradient: scores is what is shown: leave out one of the two",
        ),
        (lambda run: views.saliency(run, 0, scores=np.ones(3)), "scores=[3]: prompt 0 needs 8 finite scores"),
        (lambda run: views.saliency(run, merge="median"), "how=median: choose sum, mean or max"),
        (lambda run: views.saliency(run, [7]), "prompts=7: the run has prompts 0-1"),
    ],
)
def test_wrong_requests_say_what_would_be_right(run, ask, message):
    with pytest.raises(RequestError) as error:
        ask(run)
    assert message in str(error.value)


# --- saliency ---------------------------------------------------------------------------------------------------


def told(page, level="word"):
    """What the page's coloured places say: (text, score, percent), prompt by prompt."""
    sections = re.findall(rf'<div class="by-{level}">(.*?)</details></div>', page, re.S)
    place = r'style="([^"]*)" data-tip="([^"]*)"'
    return [[_said(style, html.unescape(said)) for style, said in re.findall(place, section)] for section in sections]


def _said(style, said):
    return (*re.fullmatch(r"(.*): (\S+) \((\d+)% of the scale\)", said, re.S).groups(), style)


def test_scores_are_summed_over_pieces_and_scaled_from_smallest_to_largest(run):
    # Words: unhappy 1 + 3 = 4, dog 2, the 0.5, cat 8, the 1; special tokens (99) are left out. Min–max over these:
    # (4 - .5) / 7.5 = 47 %, (2 - .5) / 7.5 = 20 %, 0, 100 %, 7 %.
    page = views.saliency(run, 0, scores=np.array([99, 1, 3, 2, 0.5, 8, 1, 99])).html
    (words,), (tokens,) = told(page), told(page, "token")
    assert [(text, score, share) for text, score, share, _ in words] == [
        ("unhappy", "4", "47"),
        ("dog", "2", "20"),
        ("the", "0.5", "0"),
        ("cat", "8", "100"),
        ("the", "1", "7"),
    ]
    assert [text for text, *_ in tokens] == ["un", "happy", "dog", "the", "cat", "the"]
    assert "the smallest score has no colour and the largest the full one (min–max)" in page


def test_a_shared_scale_covers_all_texts(run):
    scores = {0: np.array([0, 1, 1, 2, 2, 2, 2, 0]), 1: np.array([4.0, 0.0])}
    own, shared = (views.saliency(run, scores=scores, scale=scale).html for scale in ("text", "shared"))
    assert [share for *_, share, _ in told(own)[0]] == ["0"] * 5  # all words have 2
    assert [share for *_, share, _ in told(shared)[0]] == ["50"] * 5
    assert [share for *_, share, _ in told(shared)[1]] == ["100", "0"]


def test_scores_with_a_sign_have_two_colours_and_keep_their_zero(run):
    page = views.saliency(run, 0, scores=np.array([0, 0, 0, -2, 4, 1, 0, 0.0])).html
    shares = {(text, share): style for text, _, share, style in told(page)[0]}
    assert "var(--hurts)" in shares["dog", "50"]
    assert "var(--helps)" in shares["the", "100"]
    assert ("unhappy", "0") in shares


def test_an_attention_row_of_a_head_or_of_the_mean(run):
    found = token_colours.colour(run, 0, head="L1H2", query=3, special="keep")
    np.testing.assert_allclose(found.texts[0].by["token"].score, raw(run)[3])
    assert found.texts[0].source == "L1H2, from “dog” (token 3)"
    mean = run.data["pattern"].values[0].astype(float).mean((0, 1))
    np.testing.assert_allclose(token_colours.colour(run, 0, special="keep").texts[0].by["token"].score, mean[7])
    unscored = replace(run, data=run.data.assign(target=run.data["target"] & False))
    np.testing.assert_allclose(
        token_colours.colour(unscored, 0, special="keep").texts[0].by["token"].score, mean.mean(0)
    )


def attributed(run, values, methods=("raw", "gradient")):
    """The run with attributions [prompt, method, target_position, position]."""
    over = ("prompt", "attribution_method", "target_position", "position")
    data = run.data.assign(attribution=xr.DataArray(values, dims=over)).assign_coords(attribution_method=list(methods))
    return replace(run, data=data)


def test_the_runs_own_gradients_come_first_for_one_prediction_or_their_mean(run):
    values = np.full((2, 2, 8, 8), np.nan)
    values[0, 1, 3, :4], values[0, 1, 5, :6] = [0, 1, 2, 3], [5, 4, 3, 2, 1, 0]
    given = attributed(run, values)
    found = token_colours.colour(given, 0, special="keep")
    assert found.what == "gradient scores"
    np.testing.assert_allclose(found.texts[0].by["token"].score, [2.5, 2.5, 2.5, 2.5, 0.5, 0, 0, 0])
    assert found.texts[0].source == "mean of 2 predictions"
    one = token_colours.colour(given, 0, query=5, special="keep").texts[0]
    np.testing.assert_allclose(one.by["token"].score, [5, 4, 3, 2, 1, 0, 0, 0])
    assert one.source == "prediction at “cat” (token 5)"
    with pytest.raises(RequestError, match="query=4: gradient explains the predictions at positions 3, 5"):
        token_colours.colour(given, 0, query=4)


def test_targets_may_be_counted_on_their_own(run):
    values = np.full((2, 2, 2, 8), np.nan)
    values[0, 1] = [[0, 1, 2, 3, *[np.nan] * 4], [5, 4, 3, 2, 1, 0, np.nan, np.nan]]
    given = attributed(run, values)
    given = replace(given, data=given.data.assign(explained=(("prompt", "target_position"), [[3, 5], [-1, -1]])))
    found = token_colours.colour(given, 0, query=5, special="keep").texts[0]
    np.testing.assert_allclose(found.by["token"].score, [5, 4, 3, 2, 1, 0, 0, 0])
    assert found.source == "prediction at “cat” (token 5)"


def test_a_runs_own_gradients_equal_plain_hugging_face_word_by_word(command):
    """From the command to the page: norms averaged over the explained predictions, summed over each word."""
    pytest.importorskip("harness.attribution.evaluate")
    from harness.models import random as random_models

    text = "The unhappiest dog chased the 猫 drumstick"
    asked = ("model=random", "prompts=inline", f"prompts.text=['{text}']", "attribution.methods=[rollout,gradient]")
    code, out, err = command("compare_attributions", *asked)
    assert code == 0, err
    run = harness.open_run(out.strip())

    plain, tokenizer, _ = random_models.build("llama", 0)
    token_id = torch.tensor(
        [[run.data["token_id"].values[0, 0], *tokenizer(text, add_special_tokens=False)["input_ids"]]]
    )
    norms = []
    for position in run.data["explained"].values[0]:
        vectors = plain.get_input_embeddings()(token_id).detach().requires_grad_(True)
        scores = plain(inputs_embeds=vectors).logits[0, position].log_softmax(-1)
        (-scores[token_id[0, position + 1]]).backward()
        norms.append(vectors.grad[0].double().norm(dim=-1).numpy())
    spans = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
    piece = np.array([text[: start + 1].count(" ") for start, _ in spans])
    by_word = np.array([np.mean(norms, axis=0)[1:][piece == word].sum() for word in range(7)])
    share = (by_word - by_word.min()) / (by_word.max() - by_word.min())
    (words,) = told(views.saliency(run).html)
    assert [" ".join(word for word, *_ in words)] == [text]
    np.testing.assert_allclose([float(score) for _, score, *_ in words], by_word, rtol=1e-3)
    np.testing.assert_allclose([float(percent) for *_, percent, _ in words], 100 * share, atol=0.51)


def test_a_page_asks_for_nothing_and_runs_nothing(tmp_path):
    run = fake_run(tmp_path, tokens=[[token for token in HOSTILE if token != "\ud800"]])
    page = views.saliency(run).html
    assert page.count("<script") == 1  # the empty data
    assert "script-src 'none'" in html.unescape(page)
    assert "<img src=x" not in page


@pytest.mark.filterwarnings("ignore:Glyph", "ignore:no installed font draws")
def test_render_writes_the_page_and_its_figure_beside_the_run(command, tmp_path):
    asked = (
        "model=random",
        "model.shape=bert",
        "prompts=inline",
        "prompts.text=['The dog']",
        "prompts.pair=['a 猫 🧑🏽‍🚀']",
    )
    code, out, err = command("cache_attention", *asked)
    assert code == 0, err
    folder = out.strip()
    code, out, err = command("render", f"run={folder}", "views=saliency", "show.heads=[L1H2]", store=False)
    assert (code, out.strip()) == (0, folder), err
    run = harness.open_run(folder)
    page = (run.path / "saliency.html").read_text(encoding="utf-8")
    assert [text for text, *_ in told(page)[0]] == ["The", "dog", "a", "猫", "🧑🏽‍🚀"]
    assert (run.path / "figures" / "saliency.png").stat().st_size > 1000
    assert run.manifest["words"] == run.data["word"].attrs["method"]
    code, _, err = command("render", f"run={folder}", "views=[saliency,maps]", store=False)
    assert (code, err.strip()) == (2, "views.1=maps: known: report, saliency")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("🧑🏽\u200d🚀", "🧑🏽\u200d🚀"),
        ("क्\u200dष", "क्\u200dष"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("a\u200db", "a⟨U+200D⟩b"),
        ("क\u200d", "क⟨U+200D⟩"),
        ("\u200d🚀", "⟨U+200D⟩🚀"),
    ],
)
def test_joiners_that_join_stay_and_others_are_spelled_out(text, shown):
    assert visible(text) == shown


# --- pictures ---------------------------------------------------------------------------------------------------


def test_words_in_a_figure_stand_one_after_the_other(run):
    """Each begins where the last ended or after it, and a line that is full is followed by another."""
    figure = Figure()
    FigureCanvasAgg(figure)
    sheet = figure_words.Sheet(figure.add_subplot(), 1.2, 10.0)
    made = token_colours.colour(run, prompts=[0]).texts[0].by["word"]
    pieces = list(figure_words._laid(sheet, made, range(len(made.share)), 0.0, 1.2, 0.0))
    for before, after in pairwise(pieces):
        same_line = before.down == after.down
        assert (after.across > before.across + sheet.measured(before.text)) if same_line else after.across == 0
    assert len({piece.down for piece in pieces}) > 1


def test_how_says_what_the_colours_of_a_sign_mean():
    signed, unsigned = (token_colours._how("sum", "each", "keep", sign) for sign in (True, False))
    assert "blue above zero and orange below" in signed
    assert "(min–max)" in unsigned
    assert "orange" not in unsigned


def test_figures_are_svg_and_png_and_the_same_each_time(run, tmp_path):
    for make in (lambda: views.saliency_figure(run), lambda: views.follow_figure(run, 0, "dog", ["cat", 5])):
        first, again = make(), make()
        assert first.png[:4] == b"\x89PNG"
        assert (first.svg, first.png) == (again.svg, again.png)
    assert {path.suffix for path in views.saliency_figure(run).write(tmp_path / "figures")} == {".svg", ".png"}


@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_letter_that_no_font_has_is_named(run):
    text = run.data["word_text"]
    odd = replace(run, data=run.data.assign(word_text=text.where(text != " dog", " \U00012345")))
    with pytest.warns(MissingGlyphs, match="\U00012345"):
        views.saliency_figure(odd, prompts=0)


# --- in a browser -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_the_saliency_page_in_a_browser(browser, run, tmp_path, width, height):
    sentence = run.data["sentence"].copy(data=np.array([[0] * 4 + [1] * 4, [0] * 8]))
    both = replace(run, data=run.data.assign(sentence=sentence))
    page = views.saliency(both, scores={0: np.arange(8.0), 1: np.arange(2.0)}).save(tmp_path / "page.html")
    browser.open(page, width, height, scripts=False)
    marks = "[...document.querySelectorAll('.mark[data-tip]')]"
    shown = marks + ".filter((one) => one.offsetParent).map((one) => one.textContent)"
    assert browser.evaluate(shown) == ["unhappy", "dog", "the", "cat", "the", "a", "b"]
    colour = "getComputedStyle([...document.querySelectorAll('.by-word .mark[data-tip]')][{}]).backgroundColor"
    assert browser.evaluate(colour.format(4)) != browser.evaluate(colour.format(1))
    left = "[...document.querySelectorAll('.by-word .text')].slice(0, 2).map((one) => one.getBoundingClientRect().left)"
    first, second = browser.evaluate(left)
    assert (second > first) == (width > 820)  # sentence B beside sentence A, or below it
    browser.click("#by-token + span")
    assert browser.evaluate(shown) == ["un", "happy", "dog", "the", "cat", "the", "a", "b"]
    browser.hover(".by-token .mark[data-tip]")
    said = "getComputedStyle(document.querySelector('.by-token .mark[data-tip]'), '::after').content"
    assert browser.evaluate(said) == '"un: 1 (0% of the scale)"'
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []


def test_followed_words_in_a_browser(browser, run, tmp_path):
    page = views.follow(run, 0, "dog", ["cat", "unhappy"]).save(tmp_path / "page.html")
    browser.open(page, 390, 844, scripts=False)
    cells = browser.evaluate("[...document.querySelectorAll('.heat td')].map((one) => one.dataset.tip)")
    weights = run.data["pattern"].values[0, :, :, 3, 5].astype(float)
    weights = np.column_stack([weights, weights.mean(axis=1)])
    assert [float(cell.split(": ")[1]) for cell in cells[:15]] == pytest.approx(weights.ravel().tolist(), abs=5e-5)
    assert len(cells) == 30
    assert browser.evaluate("document.documentElement.scrollWidth") == 390
    assert browser.errors == []
