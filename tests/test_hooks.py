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
        ("L12", "heads=L12: L12 is outside gpt2: it has layers 0-11"),
        ("L0H12", "heads=L0H12: L0H12 is outside gpt2: it has heads 0-11 in each layer"),
    ],
)
def test_a_head_outside_the_model_is_refused_with_what_it_has(name, text):
    with pytest.raises(RequestError) as refused:
        parse_heads([name], "gpt2", 12, 12)
    assert str(refused.value) == text


T5 = {"encoder": 3, "decoder": 2, "cross": 2}


def test_heads_of_an_encoder_decoder_name_their_stack():
    assert Head.parse("cross.L1H3") == Head(1, 3, "cross")
    assert str(Head(1, 3, "cross")) == "cross.L1H3"
    assert parse_heads(["cross.L1H0", "encoder.L2", Head(0, 1, "decoder")], "t5", T5, 2) == (
        Head(2, 0, "encoder"),
        Head(2, 1, "encoder"),
        Head(0, 1, "decoder"),
        Head(1, 0, "cross"),
    )
    assert len(parse_heads("all", "t5", T5, 2)) == 14
    assert parse_heads("decoder", "t5", T5, 1) == (Head(0, 0, "decoder"), Head(1, 0, "decoder"))


@pytest.mark.parametrize(
    ("name", "layers", "text"),
    [
        ("L1H0", T5, "of which stack? Write encoder.L1H0 or decoder.L1H0 or cross.L1H0"),
        ("cross.L2", T5, "cross.L2 is outside the cross stack of m: it has layers 0-1"),
        ("encoder.L0H9", T5, "encoder.L0H9 is outside the encoder stack of m: it has heads 0-1 in each layer"),
        ("cross.L1H0", 4, "m has only one stack: leave out cross"),
        ("crossL1", T5, "a head is written encoder.L5H1"),
        ("cross.", T5, "a head is written encoder.L5H1"),
    ],
)
def test_a_head_of_the_wrong_stack_is_refused(name, layers, text):
    with pytest.raises(RequestError) as refused:
        parse_heads([name], "m", layers, 2)
    assert text in str(refused.value)


def test_no_head_at_all_is_refused():
    with pytest.raises(RequestError, match="name at least one head"):
        parse_heads([], "m", 1, 1)
