"""Tokens to words: what stands in the text is shown whole, and patterns and scores are merged along it."""

import sys
import unicodedata
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness import words
from harness.config import RequestError
from harness.words import segment
from harness.words.align import _bare


def split(text, span, token=None, special=None, **kw):
    token = token or ["x"] * len(span)
    return words.split([text], token, special or [False] * len(span), span, [0] * len(span), **kw)


def characters(text):
    return [(at, at + 1) for at in range(len(text))]


def parts(text, segmenter=None):
    """The words of a text of which every character is a token."""
    return [part for part in split(text, characters(text), segmenter=segmenter).text if part]


# --- split ------------------------------------------------------------------------------------------------------


def test_pieces_of_a_word_belong_together():
    made = split("The unhappy dog", [(0, 3), (3, 6), (6, 11), (11, 15)])
    assert made.index == (0, 1, 1, 2)
    assert made.text == ("The", " unhappy", "", " dog")


def test_a_special_token_is_a_word_of_its_own():
    made = split("ab", [None, (0, 1), (1, 2), None], ["<s>", "a", "b", "</s>"], [True, False, False, True])
    assert made.index == (0, 1, 1, 2)
    assert made.text == ("", "ab", "", "")


def test_a_special_token_written_in_the_text_is_a_word_too():
    made = split("a[MASK]s b", [(0, 1), (1, 7), (7, 8), (9, 10)], special=[False, True, False, False])
    assert made.text == ("a", "[MASK]", "s", " b")


def test_the_bytes_of_one_character_stay_in_one_word():
    # " 日本" as byte-level BPE spells it: the space with the first byte of 日, its other two bytes, then 本 whole.
    span = [(0, 1), (1, 3), (2, 3), (2, 3), (3, 4), (4, 8)]
    made = split("I 日本語 and", [*span[:5], (4, 5), (5, 9)])
    assert made.index == (0, 1, 1, 1, 2, 3, 4)  # without kana there is no telling that this is Japanese: characters
    assert made.text == ("I", " 日", "", "", "本", "語", " and")


def test_no_token_is_split_however_it_lies():
    made = split("ab cd ef", [(0, 4), (4, 5), (5, 8)])
    assert made.text == ("ab cd", "", " ef")
    assert made.index == (0, 0, 1)


def test_the_second_text_of_a_pair_has_words_of_its_own():
    span = [None, (0, 1), (2, 3), None, (0, 1), (1, 3), None]
    token = ["[CLS]", "a", "b", "[SEP]", "c", "de", "[SEP]"]
    special = [at is None for at in span]
    made = words.split(["a b", "cde"], token, special, span, [0, 0, 0, 0, 1, 1, 1])
    assert made.index == (0, 1, 2, 3, 4, 4, 5)
    assert made.text == ("", "a", " b", "", "cde", "", "")


def test_without_places_the_leading_spaces_decide():
    made = words.split([], ["<s>", "un", "happy", " dog", "s"], [True, *[False] * 4], [None] * 5, [0] * 5)
    assert made.index == (0, 1, 1, 2, 2)
    assert made.text == ("", "unhappy", "", " dogs", "")
    assert made.ways == ("the tokens' own marks, a leading space or ##",)
    assert words.split([], ["un", "##happy", "dog"], [False] * 3, [None] * 3, [0] * 3).text == ("unhappy", "", "dog")


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("The dog, well-known, doesn't.", ["The", " dog", ",", " well-known", ",", " doesn't", "."]),
        ('"3.14"?! yes', ['"', "3.14", '"?!', " yes"]),
        ("a\n\n  b", ["a", "\n\n", "  b"]),
        ("मैं कुत्ता हूँ", ["मैं", " कुत्ता", " हूँ"]),
        ("a🧑🏽‍🚀 👍🏽", ["a🧑🏽‍🚀", " 👍🏽"]),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),
        ("中文。", ["中", "文", "。"]),
        ("  ", ["  "]),
    ],
)
def test_words_as_a_reader_sees_them(text, made):
    assert parts(text) == made


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("犬が猫を追う。", ["犬", "が", "猫", "を", "追う", "。"]),
        ("走る犬と歩く猫", ["走る", "犬", "と", "歩く", "猫"]),
        ("GPT-2は3匹の「犬」を追う", ["GPT-2", "は", "3", "匹", "の", "「", "犬", "」", "を", "追う"]),
        ("ｶﾞﾗｽと Mary", ["ｶﾞﾗｽ", "と", " Mary"]),
    ],
)
def test_japanese_is_cut_by_mecab_and_that_is_said(text, made):
    assert parts(text) == made
    assert split(text, characters(text)).ways == (
        segment.SPACES,
        f"MeCab (unidic-lite {segment.version('unidic-lite')})",
    )


def test_without_mecab_japanese_is_cut_at_characters_and_that_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "fugashi", None)
    segment.mecab.cache_clear()
    try:
        made = split("犬が歩く", characters("犬が歩く"))
    finally:
        segment.mecab.cache_clear()
    assert made.text == ("犬", "が", "歩", "く")
    assert made.ways[1] == "characters (MeCab is not installed: pip install fugashi unidic-lite)"


def test_a_segmenter_that_makes_no_sense_is_not_believed():
    assert parts("犬が歩く", words.Segmenter("mad", lambda text: ["猫"])) == ["犬", "が", "歩", "く"]


def test_a_segmenter_may_normalise():
    cut = words.Segmenter("wide", lambda text: ["abcと", "ガ", "です"])
    assert parts("ＡＢＣとｶﾞです", cut) == ["ＡＢＣと", "ｶﾞ", "です"]


HARD = st.text(
    st.one_of(
        st.sampled_from(
            "a b\n \t。、犬猫がをー追うｶﾞ กำสี คน é e\u0301 \u200d\u200c\u200b🧑🏽🚀🇯🇵 مرحبا क्षि [] 3.,'\u3000\x00"
        ),
        st.characters(exclude_categories=("Cs",)),
    ),
    max_size=30,
)


@st.composite
def tokenized(draw):
    """A text and the spans of some tokens, in order; they may leave characters out and share them."""
    text, span, at = draw(HARD), [], 0
    while at < len(text):
        start = min(at + draw(st.sampled_from([0, 0, 0, 1])), len(text))
        end = min(start + draw(st.sampled_from([0, 1, 1, 2, 5])), len(text))
        span.append((start, end))
        at = max(end - draw(st.sampled_from([0, 0, 0, 1])), at + 1)
    return text, span


@settings(max_examples=400, deadline=None)
@given(tokenized())
@example(("犬が猫を追う。", [(0, 7)]))
def test_joined_words_are_the_text_and_no_token_and_no_character_is_split(given):
    text, span = given
    if not span:
        return
    made = split(text, span)
    assert "".join(made.text) == text
    assert list(made.index) == list(np.cumsum([1, *np.diff(made.index)]) - 1)  # from 0, no word left out
    assert set(np.diff(made.index)) <= {0, 1}
    ends = np.cumsum([len(part) for part in made.text if part])
    starts = ends - [len(part) for part in made.text if part]
    shown = {at: part for at, part in enumerate(part for part in made.text if part)}
    for (start, end), word in zip(span, made.index, strict=True):
        if end > start and len(shown) == made.index[-1] + 1:
            assert starts[word] <= start
            assert end <= ends[word]
    inside = {at for match in segment.CLUSTER.finditer(text) for at in range(match.start() + 1, match.end())}
    assert not inside & set(starts.tolist())


# --- align ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pieces", "spans"),
    [
        ("Ｔｅａ time", ["tea", "time"], [(0, 3), (4, 8)]),
        ("㌔も", ["キロ", "も"], [(0, 1), (1, 2)]),
        ("㌔も", ["キ", "ロ", "も"], [(0, 1), (0, 1), (1, 2)]),
        ("ｶﾞﾗｽ", ["ガ", "ラ", "ス"], [(0, 2), (2, 3), (3, 4)]),
        ("a魑魅b", ["a", None, "b"], [(0, 1), (1, 3), (3, 4)]),
        ("魑魅b魍b", [None, None, "b", None, "b"], [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]),
        ("abcab", [None, "ab"], [(0, 3), (3, 5)]),
        ("Crème", ["creme"], [(0, 5)]),
        ("a\u200db", ["ab"], [(0, 3)]),
        ("ab", ["a", "", "b"], [(0, 1), (1, 1), (1, 2)]),
    ],
)
def test_pieces_are_laid_along_the_text(text, pieces, spans):
    assert words.align(text, pieces) == spans


@pytest.mark.parametrize(("text", "pieces"), [("abc", ["ab"]), ("abc", ["b"]), ("ab", ["a", None, "b"]), ("", ["a"])])
def test_pieces_that_do_not_spell_the_text_are_not_laid(text, pieces):
    assert words.align(text, pieces) is None


def plain(text):
    """The text as align's strictest form has it."""
    return "".join(unicodedata.normalize("NFKC", text).split())


@settings(max_examples=300, deadline=None)
@given(HARD, st.lists(st.integers(0, 30)), st.sampled_from([str, plain, str.casefold]))
def test_a_cut_text_is_found_again_though_it_was_normalised(text, cuts, change):
    characters = segment.CLUSTER.findall(text)
    border = sorted({0, len(characters), *(cut for cut in cuts if cut < len(characters))})
    pieces = [change("".join(characters[a:b])) for a, b in pairwise(border)]
    spans = words.align(text, pieces)
    assert spans is not None
    assert spans == sorted(spans)
    for piece, (start, end) in zip(pieces, spans, strict=True):
        assert _bare(text[start:end]) == _bare(piece)


# --- merge ------------------------------------------------------------------------------------------------------


def test_words_are_merged_by_sum_over_keys_and_mean_over_queries():
    # Words 0 = {token 0}, 1 = {tokens 1, 2}. Row 1 is the mean of (.5, .5, 0) and (.2, .3, .5), keys 1 and 2 added:
    # ((.5 + .2) / 2, (.5 + 0 + .3 + .5) / 2) = (.35, .65).
    pattern = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
    np.testing.assert_allclose(words.merge_pattern(pattern, np.array([0, 1, 1])), [[1, 0], [0.35, 0.65]])


def test_cross_attention_has_words_of_two_texts():
    pattern = np.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]])
    merged = words.merge_pattern(pattern, np.array([0, 0]), np.array([0, 1, 1]))
    np.testing.assert_allclose(merged, [[0.3, 0.7]])


@given(st.data())
def test_merged_rows_still_sum_to_one(data):
    n = data.draw(st.integers(1, 9))
    word = np.cumsum([0, *data.draw(st.lists(st.integers(0, 1), min_size=n - 1, max_size=n - 1))])
    raw = np.array(data.draw(st.lists(st.floats(0.01, 1), min_size=2 * n * n, max_size=2 * n * n))).reshape(2, n, n)
    merged = words.merge_pattern(raw / raw.sum(-1, keepdims=True), word)
    assert merged.shape == (2, word[-1] + 1, word[-1] + 1)
    np.testing.assert_allclose(merged.sum(-1), 1)


def test_padding_is_left_out():
    pattern = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(words.merge_pattern(pattern, np.array([0, 1, -1])), pattern[:2, :2])


def test_words_for_another_length_are_refused():
    with pytest.raises(RequestError, match="one word for each position"):
        words.merge_pattern(np.eye(3), np.array([0, 1]))
    with pytest.raises(RequestError, match="one word for each position"):
        words.merge_scores(np.ones(3), np.array([0, 1]))


@pytest.mark.parametrize(("how", "merged"), [("sum", [5, -2]), ("mean", [2.5, -2]), ("max", [4, -2])])
def test_scores_are_merged_as_asked(how, merged):
    word = np.array([0, 0, 1, -1])
    np.testing.assert_allclose(words.merge_scores(np.array([1.0, 4.0, -2.0, 9.0]), word, how), merged)


def test_another_way_to_merge_is_refused():
    with pytest.raises(RequestError, match="how=median: choose sum, mean or max"):
        words.merge_scores(np.ones(2), np.array([0, 1]), "median")


def test_special_tokens_are_left_out_and_rows_renormalised():
    # Row 1 looks with 0.8 at the special token and splits the rest 1 : 3; row 2 looks at nothing else.
    pattern = np.array([[1.0, 0, 0], [0.8, 0.05, 0.15], [1.0, 0, 0]])
    special = np.array([True, False, False])
    np.testing.assert_allclose(words.without(pattern, special), [[0.25, 0.75], [0, 0]])
    assert words.share_on(pattern, special) == pytest.approx(0.9)
    np.testing.assert_allclose(
        words.without(pattern, special, np.array([False, False, True])), [[16 / 17, 1 / 17], [1, 0]]
    )


# --- show -------------------------------------------------------------------------------------------------------


def test_tokens_that_spell_one_character_together_show_it_whole():
    bad = "\ufffd"
    assert words.labels(["I", f" {bad}", bad, bad, "本"], [0, 1, 1, 1, 1], ["I", " 日本", "", "", ""]) == [
        "I",
        "日 1/3",
        "日 2/3",
        "日 3/3",
        "本",
    ]
    # 👍🏽 is two code points of four bytes, here in six tokens: they cannot be told apart, and show it whole.
    assert words.labels([bad] * 6, [0] * 6, ["👍🏽", *[""] * 5])[::5] == ["👍🏽 1/6", "👍🏽 6/6"]
    assert words.labels([bad] * 4, [0] * 4, ["éü", *[""] * 3]) == ["é 1/2", "é 2/2", "ü 1/2", "ü 2/2"]


def test_an_unknown_token_says_which_characters_it_stands_for():
    assert words.labels(["[CLS]", "犬", "[UNK]", "を"], [0, 1, 2, 3], ["", "犬", "鵺", "を"]) == [
        "[CLS]",
        "犬",
        "鵺 [UNK]",
        "を",
    ]
    assert words.labels(["<unk>", "s"], [0, 0], ["鵺s", ""]) == ["鵺 <unk>", "s"]
    assert words.labels(["[UNK]"], [0], ["[UNK]"]) == ["[UNK]"], "written in the text itself"
    assert words.labels(["[UNK]"], [0], [""]) == ["[UNK]"], "of a text that was not kept"


def test_a_replacement_character_in_the_text_is_itself():
    assert words.labels(["a\ufffdb"], [0], ["a\ufffdb"]) == ["a\ufffdb"]


def test_joined_is_the_text():
    assert words.joined(np.array(["", "a", " b", "", ""])) == "a b"
