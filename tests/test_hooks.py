"""Names of heads, and what is said of one that the model does not have."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

import harness
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


@pytest.mark.parametrize(
    ("names", "heads"),
    [
        ("L1H2", ["L1H2"]),
        ((1, 2), ["L1H2"]),
        (Head(1, 2), ["L1H2"]),
        ((np.int64(1), np.int32(2)), ["L1H2"]),
        ("L2-L3", ["L2H0", "L2H1", "L2H2", "L3H0", "L3H1", "L3H2"]),
        ("L2-L2", ["L2H0", "L2H1", "L2H2"]),
        ("L2H1-L2H2", ["L2H1", "L2H2"]),
        (["L2H1 - L2H2", (0, 0), Head(3, 1), "L2H1"], ["L0H0", "L2H1", "L2H2", "L3H1"]),
        (("L1H0", "L0H0"), ["L0H0", "L1H0"]),
        (["L0H0", np.arange(12).reshape(4, 3) == 4], ["L0H0", "L1H1"]),
    ],
)
def test_parse_heads_takes_names_pairs_ranges_and_lists(names, heads):
    assert list(map(str, parse_heads(names, "m", 4, 3))) == heads


MASK = np.random.default_rng(0).random((4, 3)) < 0.4
LABELLED = xr.DataArray(MASK, {"layer": range(4), "head": range(3)}, ("layer", "head"))


@pytest.mark.parametrize(
    "mask",
    [
        MASK,
        torch.tensor(MASK),
        LABELLED,
        LABELLED.T,
        LABELLED[::-1, [2, 0, 1]],
        xr.DataArray(MASK.T, dims=("head", "layer")),
        [MASK, "L0H0"] if MASK[0, 0] else [MASK],
    ],
)
def test_parse_heads_reads_a_mask_by_its_places(mask):
    expected = tuple(Head(layer, head) for layer in range(4) for head in range(3) if MASK[layer, head])
    assert 0 < len(expected) < 12
    assert parse_heads(mask, "m", 4, 3) == expected


def test_parse_heads_reads_ranges_and_masks_of_stacks():
    encoder = tuple(Head(layer, head, "encoder") for layer in (1, 2) for head in range(2))
    assert parse_heads("encoder.L1-L2", "t5", T5, 2) == parse_heads("encoder.L1-encoder.L2", "t5", T5, 2) == encoder
    assert parse_heads("cross.L1H0-L1H1", "t5", T5, 2) == (Head(1, 0, "cross"), Head(1, 1, "cross"))
    mask = np.zeros((3, 3, 2), dtype=bool)
    mask[0, 2, 1] = mask[2, 1, 0] = True
    labelled = xr.DataArray(mask, {"stack": list(T5)}, ("stack", "layer", "head"))
    expected = (Head(2, 1, "encoder"), Head(1, 0, "cross"))
    assert parse_heads(mask, "t5", T5, 2) == parse_heads(labelled[::-1], "t5", T5, 2) == expected


EITHER = "numbers are no mask: pass a boolean one (effect < 0), or names such as L5H1 or (5, 1)"
WRITTEN = "a head is written L5H1 (layer 5, head 1), its whole layer L5, all heads are all, by itself; "
WRITTEN += "layers 5 to 9 are L5-L9"


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("L3-L1", "L3-L1: this range is reversed: write its lower end first"),
        ("L1H2-L1H0", "L1H2-L1H0: this range is reversed: write its lower end first"),
        ("L2-L4", "L4: L4 is outside m: it has layers 0-3"),
        ("L2H1-L2H3", "L2H3: L2H3 is outside m: it has heads 0-2 in each layer"),
        ("L1-L2H1", "L1-L2H1: a range is from layer to layer, L15-L29, or from head to head, L5H0-L5H3"),
        ("L1H0-L2H1", "L1H0-L2H1: a range of heads is of one layer, L5H0-L5H3; of layers it is L15-L29"),
        ("L1-", f"L1-: {WRITTEN}"),
        ("1-2", f"1-2: {WRITTEN}"),
        ("cross.L0-L1", "cross.L0: m has only one stack: leave out cross"),
        ((-1, 0), f"L-1H0: {WRITTEN}"),
        ((4, 0), "L4H0: L4H0 is outside m: it has layers 0-3"),
        ([5, 1], f"5: {WRITTEN}"),
        (5, f"5: {WRITTEN}"),
        ([True], f"True: {WRITTEN}"),
        ([None], f"None: {WRITTEN}"),
        (MASK.astype(int), f"int64 [4, 3]: {EITHER}"),
        (torch.zeros(4, 3), f"float32 [4, 3]: {EITHER}"),
        (MASK.T, "bool [3, 4]: a mask for m is [layer, head] = [4, 3]"),
        (MASK[0], "bool [3]: a mask for m is [layer, head] = [4, 3]"),
        (np.zeros((4, 3), bool), "bool [4, 3]: this mask names no head; set heads=all for every head"),
        (
            LABELLED.rename(layer="prompt"),
            "dimensions prompt, head: a mask is [layer, head]: select or average over the others",
        ),
        (LABELLED.isel(layer=[0, 1]), "a mask: its coordinates are not all of this model's layers and heads"),
    ],
)  # fmt: skip
def test_parse_heads_refuses_in_one_line(names, says):
    with pytest.raises(RequestError) as refused:
        parse_heads(names, "m", 4, 3)
    assert str(refused.value) == f"heads={says}"


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("L0-L1", "heads=L0: of which stack? Write encoder.L0 or decoder.L0 or cross.L0"),
        ("encoder.L0-cross.L1", "heads=encoder.L0-cross.L1: a range is from layer to layer, L15-L29, or from head to"),
        ("cross.L0-L2", "heads=cross.L2: cross.L2 is outside the cross stack of t5: it has layers 0-1"),
        (np.ones((3, 2), bool), "heads=bool [3, 2]: a mask for t5 is [stack, layer, head] = [3, 3, 2]"),
        (
            np.ones((3, 3, 2), bool),
            "heads=decoder.L2H0: decoder.L2H0 is outside the decoder stack of t5: it has layers",
        ),
    ],
)
def test_parse_heads_of_stacks_refuses_in_one_line(names, says):
    with pytest.raises(RequestError) as refused:
        parse_heads(names, "t5", T5, 2)
    assert str(refused.value).startswith(says)


def test_heads_of_every_form_are_the_same_request(tiny):
    model = tiny()
    prompts = harness.load_prompts(["John gave a drink to"], model)
    mask = np.zeros((model.shape.n_layers, model.shape.n_heads), dtype=bool)
    mask[1, :] = True
    by_name = harness.ablate_heads(model, prompts, metrics=["loss"], heads=["L1"]).data
    for heads in ("L1-L1", mask, torch.tensor(mask), [(1, head) for head in range(model.shape.n_heads)]):
        effects = harness.ablate_heads(model, prompts, metrics=["loss"], heads=heads).data
        np.testing.assert_array_equal(effects["effect"].values, by_name["effect"].values)
        together = harness.ablate_heads(model, prompts, metrics=["loss"], kind="set", sets={"some": heads}).data
        layer = harness.ablate_heads(model, prompts, metrics=["loss"], kind="layer").data["layer_effect"]
        np.testing.assert_allclose(together["set_effect"].values[..., 0], layer.values[..., 1], atol=1e-6)
        kept = harness.cache_attention(model, prompts, also=["z"], heads=heads).data["z"]
        assert set(map(str, kept.dims)) >= {"prompt"}
    chosen = harness.ablate_heads(model, prompts, metrics=["loss"], heads=by_name["effect"][0, 0].notnull()).data
    np.testing.assert_array_equal(chosen["effect"].values, by_name["effect"].values)


@pytest.mark.parametrize("setting", ["heads=L0-L1", "heads=[L0-L1]", "heads=[[0,1],L1H0-L1H1]"])
def test_heads_on_the_command_line_may_be_ranges(command, setting):
    code, out, err = command(
        "ablate_heads", "model=random", "prompts.n=2", setting, "show.heads=L1-L2", "metrics=[loss]"
    )
    assert code == 0, err
    run = harness.open_run(out.strip().splitlines()[-1])
    expected = run.spec["heads"]
    assert expected == (["L0H1", "L1H0-L1H1"] if "[[" in setting else ["L0-L1"])
    ablated = {str(head) for head in run.ablated_heads}
    n = run.data.sizes["head"]
    everything = {f"L{layer}H{head}" for layer in (0, 1) for head in range(n)}
    assert ablated == ({"L0H1", "L1H0", "L1H1"} if "[[" in setting else everything)


def test_look_takes_the_heads_that_a_sweep_takes(tiny):
    seen = harness.look(tiny(), "John gave a drink to")
    for head in ((0, 1), Head(0, 1)):
        np.testing.assert_array_equal(seen.table(head), seen.table("L0H1"))
    n = len([head for head in seen.run.all_heads if head.layer == 0])
    parts = [seen.table((layer, head)).values for layer in (0, 1) for head in range(n)]
    np.testing.assert_allclose(seen.table("L0-L1").values, np.mean(parts, axis=0), atol=1e-6)


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
