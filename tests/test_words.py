"""Tokens to words, and patterns merged along them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import words
from harness.config import RequestError


def test_pieces_of_a_word_belong_together():
    text = "The unhappy dog"
    span = [(0, 3), (3, 6), (6, 11), (11, 15)]
    assert words.split([text], span, ["The", " un", "happy", " dog"], [0] * 4) == (0, 1, 1, 2)


def test_a_special_token_is_a_word_of_its_own():
    assert words.split(["ab"], [None, (0, 1), (1, 2), None], ["<s>", "a", "b", "</s>"], [0] * 4) == (0, 1, 1, 2)


def test_the_bytes_of_one_character_stay_in_one_word():
    # " 日本" as byte-level BPE spells it: the space with the first byte of 日, its other two bytes, then 本 whole.
    span = [(0, 1), (1, 3), (2, 3), (2, 3), (3, 4), (4, 8)]
    assert words.split(["I 日本 and"], span, ["I", " \ufffd", "\ufffd", "\ufffd", "本", " and"], [0] * 6) == (
        0,
        1,
        1,
        1,
        1,
        2,
    )


def test_the_second_text_of_a_pair_has_words_of_its_own():
    span = [None, (0, 1), (2, 3), None, (0, 1), (1, 3), None]
    token = ["[CLS]", "a", "b", "[SEP]", "c", "de", "[SEP]"]
    assert words.split(["a b", "cde"], span, token, [0, 0, 0, 0, 1, 1, 1]) == (0, 1, 2, 3, 4, 4, 5)


def test_words_are_merged_by_sum_over_keys_and_mean_over_queries():
    # Words 0 = {token 0}, 1 = {tokens 1, 2}. Row 1 is the mean of (.5, .5, 0) and (.2, .3, .5), keys 1 and 2 added:
    # ((.5 + .2) / 2, (.5 + 0 + .3 + .5) / 2) = (.35, .65).
    pattern = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
    np.testing.assert_allclose(words.merge_pattern(pattern, np.array([0, 1, 1])), [[1, 0], [0.35, 0.65]])


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
