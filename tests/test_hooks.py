"""Names of heads, and what is said of one that the model does not have."""

from types import SimpleNamespace

import pytest
import torch

from harness.config import RequestError
from harness.hooks import Head, Site, parse_heads
from harness.hooks.frozen_norm import FrozenNorm
from harness.hooks.softmax import at_softmax


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


def test_frozen_norm_without_weight_or_epsilon_is_read_from_its_answers():
    """OLMo's norm keeps neither: γ = 1, and ε = 1e-5 stands in its forward."""

    def norm(x):
        return torch.nn.functional.layer_norm(x, x.shape[-1:], eps=1e-5)

    torch.manual_seed(0)
    clean, x = 3e-3 * torch.randn(2, 5, 16), torch.randn(2, 5, 16)  # so small that ε is a tenth of what divides
    centred = clean - clean.mean(-1, keepdim=True)
    want = (x - x.mean(-1, keepdim=True)) / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(FrozenNorm(norm, clean)(x), want, rtol=1e-4, atol=1e-4)


class _Attention(torch.nn.Module):
    def forward(self, scores):
        return torch.nn.functional.softmax(scores, dim=-1)


class _Layer(torch.nn.Module):
    """An attention and, after it, a router whose softmax is not to be touched."""

    def __init__(self):
        super().__init__()
        self.attn = _Attention()

    def forward(self, scores):
        return self.attn(scores), torch.softmax(scores, -1)


class _Bridge(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList([_Layer(), _Layer()])
        self.cfg = SimpleNamespace(n_heads=2)


@pytest.mark.parametrize("shape", [(3, 2, 4, 4), (6, 4, 4)])
def test_at_softmax_edits_one_attention_and_no_router(shape):
    bridge, scores = _Bridge(), torch.randn(shape)
    seen = []

    def edit(given):
        seen.append(given.shape)
        return given.masked_fill(torch.arange(4) == 1, -torch.inf)

    with at_softmax(bridge, {Site(1): edit}) as fired:
        first, second = (layer(scores) for layer in bridge.blocks)
    assert seen == [(3, 2, 4, 4)]
    assert fired == {Site(1)}
    plain = scores.softmax(-1)
    torch.testing.assert_close(first[0], plain)
    torch.testing.assert_close(second[1], plain)
    assert (second[0][..., 1] == 0).all()
    torch.testing.assert_close(second[0].sum(-1), torch.ones(shape[:-1]))
    torch.testing.assert_close(bridge.blocks[1](scores)[0], plain)  # and is as it was afterwards
