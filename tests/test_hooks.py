"""Names of heads, and what is said of one that the model does not have."""

import pytest

from harness.config import RequestError
from harness.hooks import Head, parse_heads


def test_a_head_reads_back_as_it_is_written():
    assert Head.parse(str(Head(5, 11))) == Head(5, 11)


@pytest.mark.parametrize("text", ["", "5.1", "L5", "H1L5", "L-1H0", "L5H1x"])
def test_what_is_not_a_head_is_refused(text):
    with pytest.raises(RequestError, match="a head is written L5H1"):
        Head.parse(text)


def test_a_layer_names_all_its_heads_and_none_twice():
    assert parse_heads(["L1", "L1H0", "L0H2"], "m", 3, 3) == (Head(0, 2), Head(1, 0), Head(1, 1), Head(1, 2))


def test_all_is_every_head_in_order():
    assert (
        parse_heads(["all"], "m", 2, 2)
        == parse_heads("all", "m", 2, 2)
        == tuple(Head(i, j) for i in (0, 1) for j in (0, 1))
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("L12H0", "heads=L12H0: L12H0 is outside gpt2: it has layers 0-11"),
        ("L12", "heads=L12H0: L12H0 is outside gpt2: it has layers 0-11"),
        ("L0H12", "heads=L0H12: L0H12 is outside gpt2: it has heads 0-11 in each layer"),
    ],
)
def test_a_head_outside_the_model_is_refused_with_what_it_has(name, text):
    with pytest.raises(RequestError) as refused:
        parse_heads([name], "gpt2", 12, 12)
    assert str(refused.value) == text


def test_no_head_at_all_is_refused():
    with pytest.raises(RequestError, match="name at least one head"):
        parse_heads([], "m", 1, 1)
