"""Ablation as a context, and as values: everything inside against plain Hugging Face forwards with hooks on W_O.

The reference never caches keys and values, pads nothing, and knows nothing of TransformerLens.
"""

import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from itertools import islice

import numpy as np
import plain
import pytest
import torch
from thinned import most

import harness
from harness import hooks
from harness.ablation import InterventionFailed
from harness.config import RequestError
from harness.hooks import Head
from harness.hooks.forward import replaced
from harness.models.generation import next_logits
from harness.sweep import fast

pytestmark = pytest.mark.usefixtures("padded")

TEXT = "When Mary and John went to the store"
TEXTS = (TEXT, "a drink", "Then the garden, and a flower to the office")
TARGETS = (" a garden and a store", " a drink to", " Mary went to the office")
STEPS = 6
POOLED = {"name": "mean", "means": "pooled"}
OUTER, INNER = Head(1, 1), Head(2, 0)


# --- the reference ----------------------------------------------------------------------------------------------


def twin_of(model):
    return plain.twin(model.spec.shape, model.spec.seed)


def projection(twin, head):
    """W_O of a head's attention in a plain model."""
    if head.stack == "":
        return [*plain.projections(twin)][head.layer]
    block = (twin.encoder if head.stack == "encoder" else twin.decoder).block[head.layer]
    return block.layer[1].EncDecAttention.o if head.stack == "cross" else block.layer[0].SelfAttention.o


@contextmanager
def edited(twin, edits, d_head):
    """Each head's z [row, position, d_head] becomes a function of it, in whole forwards of a plain model."""

    def replacing(head, function):
        def hook(_, args):
            z = args[0].clone()
            mine = slice(head.head * d_head, (head.head + 1) * d_head)
            z[..., mine] = function(z[..., mine])
            return (z,)

        return hook

    with ExitStack() as stack:
        for head, function in edits.items():
            handle = projection(twin, head).register_forward_pre_hook(replacing(head, function))
            stack.callback(handle.remove)
        yield


def inputs_of(model, prompts, row):
    """One prompt as inputs of the plain model."""
    own = torch.as_tensor(prompts.token_id[row, : prompts.length[row]])[None]
    if prompts.source is None:
        return {"input_ids": own}
    source = torch.as_tensor(prompts.source.token_id[row, : prompts.source.length[row]])[None]
    return {"input_ids": source, "decoder_input_ids": own}


@torch.no_grad()
def z_of(model, prompts, head):
    """z of one head [position, d_head] for each prompt, by the plain model as it is hooked at the moment."""
    kept, d_head = [], model.shape.d_head
    mine = slice(head.head * d_head, (head.head + 1) * d_head)
    twin = twin_of(model)
    handle = projection(twin, head).register_forward_pre_hook(lambda _, args: kept.append(args[0][0, :, mine]))
    for row in range(len(prompts)):
        twin(**inputs_of(model, prompts, row))
    handle.remove()
    return kept


def replacement(model, prompts, head, ablation):
    """The function of z that an ablation is for texts of any length."""
    if ablation == "zero":
        return torch.zeros_like
    if ablation == "scale":
        return lambda z: 0.5 * z
    every = z_of(model, prompts, head)
    if ablation == POOLED:
        return lambda z: torch.cat(every).mean(0).expand_as(z)
    first, rest = torch.stack([z[0] for z in every]).mean(0), torch.cat([z[1:] for z in every]).mean(0)
    return lambda z: torch.stack([first, *[rest] * (z.shape[1] - 1)])[None].expand_as(z)


@torch.no_grad()
def naive_metrics(model, prompts, edits, clean):
    """`loss` and `kl` [metric, prompt] of the plain model under edits, held against the logits of `clean` edits."""
    twin, values = twin_of(model), []
    for row in range(len(prompts)):
        logits = []
        for each in (clean, edits):
            with edited(twin, each, model.shape.d_head):
                logits.append(twin(**inputs_of(model, prompts, row)).logits[0])
        values.append(plain.metrics(prompts, row, logits[1], logits[0]))
    return np.array([[each[name] for each in values] for name in ("loss", "kl")])


def prompts_of(model, texts=TEXTS):
    more = {"target": list(TARGETS[: len(texts)])} if model.kind == "encoder_decoder" else {}
    return harness.load_prompts("inline", model, text=texts, **more)


def heads_of(model):
    """The head of the context, and heads before, beside, after it and itself."""
    if model.kind == "encoder_decoder":
        names = ("decoder.L1H1", "encoder.L0H1", "decoder.L0H2", "cross.L1H0", "decoder.L1H1")
    else:
        names = ("L1H1", "L0H2", "L1H3", "L2H0", "L1H1")
    outer, *others = map(Head.parse, names)
    return outer, others


# --- generation -------------------------------------------------------------------------------------------------


@torch.no_grad()
def naive_generation(model, text, edits):
    """The logits [step, vocab] of greedy decoding that runs the whole text again at each step."""
    ids = torch.tensor([model.tokens.encode(text).token_id])
    own, every = ids if model.kind == "decoder" else torch.tensor([[model.start_id]]), []
    for _ in range(STEPS):
        inputs = {"input_ids": own} if model.kind == "decoder" else {"input_ids": ids, "decoder_input_ids": own}
        with edited(twin_of(model), edits, model.shape.d_head):
            every.append(twin_of(model)(**inputs).logits[0, -1])
        own = torch.cat([own, every[-1].argmax().reshape(1, 1)], dim=1)
    return torch.stack(every)


@pytest.mark.parametrize("shape", ["gpt2", "llama", "t5"])
@pytest.mark.parametrize("ablation", ["zero", "mean", POOLED, "scale"], ids=str)
def test_ablated_generation_from_a_cache_equals_whole_forwards(tiny, shape, ablation):
    model = tiny(shape)
    prompts, (head, _) = prompts_of(model), heads_of(model)
    want = naive_generation(model, TEXT, {head: replacement(model, prompts, head, ablation)})
    ids = model.tokens.encode(TEXT).token_id
    with harness.ablated(model, [head], ablation, prompts=prompts) as check:
        cached, whole = (torch.stack([*islice(next_logits(model, ids, how), STEPS)]) for how in (True, False))
    assert check.fired == 2 * STEPS
    torch.testing.assert_close(cached, whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(cached, want, atol=1e-4, rtol=0)
    assert cached.argmax(-1).tolist() == want.argmax(-1).tolist()
    assert (want - naive_generation(model, TEXT, {})).abs().max() > 0.1


@pytest.mark.parametrize("shape", ["gpt2", "llama"])
def test_ablated_positions_count_from_the_beginning_of_the_text(tiny, shape):
    """Position 9 comes one at a time from the cache, after the prompt."""
    model = tiny(shape)
    ids, zeroed = model.tokens.encode(TEXT).token_id, [0, len(model.tokens.encode(TEXT).token_id) + 1]

    def some(z):
        new = z.clone()
        new[:, [at for at in zeroed if at < z.shape[1]]] = 0
        return new

    with harness.ablated(model, harness.zero([OUTER], positions=zeroed)):
        cached = torch.stack([*islice(next_logits(model, ids), STEPS)])
    torch.testing.assert_close(cached, naive_generation(model, TEXT, {OUTER: some}), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("shape", "name"),
    [("gpt2", "L1H1"), ("llama", "L1H1"), ("t5", "encoder.L0H1"), ("t5", "decoder.L1H1"), ("t5", "cross.L0H1")],
)
def test_ablated_holds_for_the_bridges_own_generation(tiny, shape, name):
    model, head = tiny(shape), Head.parse(name)
    prompts = prompts_of(model)
    want = naive_generation(model, TEXT, {head: replacement(model, prompts, head, "mean")}).argmax(-1).tolist()
    more = {"max_new_tokens": STEPS, "do_sample": False, "return_type": "tokens"}
    with harness.ablated(model, head, "mean", prompts=prompts):
        by_lens = model.bridge.generate(TEXT, **more, stop_at_eos=False, verbose=False)
        by_hf = model.bridge.hf_generate(TEXT, **more, eos_token_id=None)
        own = model.generate(TEXT, max_new_tokens=STEPS)
    assert by_lens[0, -STEPS:].tolist() == by_hf[0, -STEPS:].tolist() == want
    eos = model.tokenizer.eos_token_id
    written = want[: want.index(eos)] if eos in want else want
    assert own.endswith(model.tokenizer.decode(written)[-3:])


def test_ablated_first_tokens_are_those_of_texts_padded_on_the_left(tiny):
    model = tiny("llama")
    prompts = prompts_of(model)
    more = {"max_new_tokens": STEPS, "do_sample": False, "return_type": "tokens", "eos_token_id": None}
    with harness.ablated(model, ["L0", OUTER], "mean", prompts=prompts):
        alone = [model.bridge.hf_generate(text, **more)[0, -STEPS:].tolist() for text in TEXTS]
        together = model.bridge.hf_generate(list(TEXTS), **more)[:, -STEPS:].tolist()
    assert together == alone
    # the means differ by position, or padding would not show
    first, rest = replacement(model, prompts, Head(0, 1), "mean")(torch.zeros(1, 2, model.shape.d_head))[0]
    assert (first - rest).abs().max() > 1e-3


# --- the functions of the harness inside ------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["gpt2", "llama", "gemma3", "t5"])
@pytest.mark.parametrize(("ablation", "inner"), most([("zero", "zero"), ("mean", "mean"), ("scale", "zero")], 3))
def test_ablated_is_the_clean_model_of_a_sweep_inside(tiny, shape, ablation, inner):
    """The effect of a head inside is metric(both ablated) − metric(the context's alone)."""
    model = tiny(shape)
    prompts, (head, others) = prompts_of(model), heads_of(model)
    with harness.ablated(model, head, ablation, prompts=prompts):
        got = harness.ablate_heads(model, prompts, inner, ["loss", "kl"], others).data
    outer = {head: replacement(model, prompts, head, ablation)}
    clean = naive_metrics(model, prompts, outer, outer)
    np.testing.assert_allclose(got.clean.values, clean, atol=1e-4)
    for other in others:
        with edited(twin_of(model), outer, model.shape.d_head):
            new = replacement(model, prompts, other, inner)  # a mean inside is of the ablated model
        both = {**outer, other: new if other != head else chain(outer[head], new)}
        want = naive_metrics(model, prompts, both, outer)
        np.testing.assert_allclose(got.ablated.sel(other.place).values, want, atol=1e-4, err_msg=str(other))
        np.testing.assert_allclose(got.effect.sel(other.place).values, want - clean, atol=1e-4, err_msg=str(other))
    assert float(abs(got.effect.sel(others[2].place)).max()) > 1e-3
    if inner == "zero" == ablation:
        assert float(abs(got.effect.sel(head.place)).max()) == 0


def chain(first, second):
    return lambda z: second(first(z))


@pytest.mark.parametrize("where", ["last", "target", [1, -1]])
def test_ablated_holds_where_a_sweep_starts_from_cached_keys_and_values(tiny, where):
    model = tiny("llama")
    prompts = harness.load_prompts("ioi", model, n=3)
    outer = {OUTER: replacement(model, prompts, OUTER, "mean")}
    with harness.ablated(model, OUTER, "mean", prompts=prompts):
        got = harness.ablate_heads(model, prompts, "zero", ["loss", "kl"], [INNER, Head(0, 2)], positions=where).data
    for other in (INNER, Head(0, 2)):
        for row in range(len(prompts)):
            n = int(prompts.length[row])
            places = {"last": [n - 1], "target": np.flatnonzero(prompts.target[row]).tolist()}
            at = places[where] if isinstance(where, str) else [each % n for each in where]

            def some(z, at=at):
                new = z.clone()
                new[:, at] = 0
                return new

            want = naive_metrics(model, prompts.take([row]), {**outer, other: some}, outer)[:, 0]
            np.testing.assert_allclose(got.ablated.isel(prompt=row).sel(other.place).values, want, atol=1e-4)


@pytest.mark.parametrize("kind", [{"kind": "mlp"}, {"kind": "layer"}, {"kind": "set", "sets": {"a": ["L0H1", "L1"]}}])
def test_ablated_holds_in_other_kinds_of_sweep(tiny, kind):
    """The same as a set with the context's head, where that can be put so."""
    model = tiny("gpt2")
    prompts = prompts_of(model)
    with harness.ablated(model, OUTER):
        got = harness.ablate_heads(model, prompts, "zero", ["loss"], **kind).data
    if kind["kind"] == "mlp":
        twin = twin_of(model)
        handle = twin.transformer.h[2].mlp.register_forward_hook(lambda _, args, out: torch.zeros_like(out))
        want = naive_metrics(model, prompts, {OUTER: torch.zeros_like}, {OUTER: torch.zeros_like})[0]
        handle.remove()
        np.testing.assert_allclose(got.clean[0] + got.mlp_effect.sel(layer=2)[0], want, atol=1e-4)
        return
    name, together = ("layer_effect", ["L2"]) if kind["kind"] == "layer" else ("set_effect", ["L0H1", "L1"])
    outside = harness.ablate_heads(
        model, prompts, "zero", ["loss"], kind="set", sets={"both": [*together, OUTER], "outer": [OUTER]}
    ).data
    mine = got[name].sel(layer=2) if name == "layer_effect" else got[name].isel(set=0)
    both, alone = (outside.set_effect.sel(set=each) for each in ("both", "outer"))
    np.testing.assert_allclose(mine.values, (both - alone).values, atol=1e-5)
    np.testing.assert_allclose(got.clean.values, (outside.clean + alone).values, atol=1e-5)


def test_ablated_holds_by_the_fast_method(tiny, monkeypatch):
    monkeypatch.setattr(fast, "speedup", lambda model: 9.0)
    model = tiny("llama")
    prompts = prompts_of(model)
    with harness.ablated(model, OUTER):
        got = harness.ablate_heads(model, prompts, "zero", ["loss"], method="fast", verify_fraction=1.0).data
        exact = harness.ablate_heads(model, prompts, "zero", ["loss"]).data
    assert bool(got.exact.all())
    np.testing.assert_allclose(got.effect.values, exact.effect.values, atol=1e-6)
    np.testing.assert_allclose(got.fast_effect.values, exact.effect.values, atol=0.05)
    assert float(abs(got.fast_effect.sel(OUTER.place)).max()) == 0


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_ablated_holds_by_the_screen(tiny, shape):
    """An estimate is the slope of the exact effect, which the tests above hold against plain forwards."""
    model = tiny(shape)
    prompts, (head, _) = prompts_of(model), heads_of(model)
    with harness.ablated(model, head):
        got = harness.ablate_heads(model, prompts, "zero", ["loss"], method="screen", verify_top_k=1).data
        scaled = [{"name": "scale", "factor": factor} for factor in (0.999, 1.001)]
        less, more = (harness.ablate_heads(model, prompts, each, ["loss"]).data.effect for each in scaled)
    np.testing.assert_allclose(got.estimate.values, (less - more).values / 0.002, atol=4e-3, rtol=1e-2)
    assert float(abs(got.estimate.sel(head.place)).max()) == 0 < float(abs(got.estimate).max())
    whole = {each: torch.zeros_like for each in model.heads()}
    np.testing.assert_allclose(got.all_ablated.values[0], naive_metrics(model, prompts, whole, {})[0], atol=1e-4)


@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_ablated_direct_effects_are_from_the_ablated_stream(tiny, ablation):
    """Of a head of the last layer without an MLP after it, all of the effect on the stream is direct."""
    model = tiny("gpt2")
    prompts = harness.load_prompts("ioi", model, n=3)
    with harness.ablated(model, [INNER, OUTER], ablation, prompts=prompts):
        got = harness.ablate_heads(model, prompts, "zero", ["logit_diff"]).data
        same = harness.ablate_heads(model, prompts, lambda z, head: z, ["logit_diff"]).data
    if ablation == "zero":
        assert all(float(abs(got.direct.sel(head.place)).max()) == 0 for head in (INNER, OUTER))
    assert float(abs(same.direct).max()) == 0 < float(abs(got.direct).max())


def test_ablated_patterns_are_those_of_the_ablated_model(tiny):
    model = tiny("llama")
    prompts = prompts_of(model)
    with harness.ablated(model, Head(0, 1), "mean", prompts=prompts):
        got = harness.cache_attention(model, prompts, also=["z"]).data
        seen = harness.look(model, TEXT)
    twin = twin_of(model)
    with edited(twin, {Head(0, 1): replacement(model, prompts, Head(0, 1), "mean")}, model.shape.d_head):
        for row, n in enumerate(prompts.length):
            with torch.no_grad():
                want = torch.stack(twin(**inputs_of(model, prompts, row), output_attentions=True).attentions)[:, 0]
            np.testing.assert_allclose(got.pattern[row, :, :, :n, :n], want, atol=1e-5)
            z = z_of(model, prompts.take([row]), Head(0, 1))[0]
            np.testing.assert_allclose(got.z[row, 0, 1, :n], z, atol=1e-5)
    n = int(prompts.length[0])
    assert got.pattern.attrs["inside"] == got.z.attrs["inside"] == "mean('L0H1')"
    assert "inside" not in harness.cache_attention(model, prompts).data.pattern.attrs
    np.testing.assert_array_equal(seen.run.data.pattern[0], got.pattern[0, :, :, :n, :n])


def test_ablated_gradients_are_those_of_the_ablated_model(tiny):
    model = tiny("llama")
    prompts = prompts_of(model)
    with harness.ablated(model, harness.scale(OUTER, 0.5), harness.zero("L0H1")):
        got = harness.compare_attributions(
            model, prompts, methods=["gradient", "gradient_input"], causes=["delete"]
        ).data
    twin, edits = twin_of(model), {OUTER: lambda z: 0.5 * z, Head(0, 1): torch.zeros_like}
    for row, n in enumerate(prompts.length):
        ids = torch.as_tensor(prompts.token_id[row, :n])[None]
        vectors = twin.get_input_embeddings()(ids).detach().requires_grad_()
        with edited(twin, edits, model.shape.d_head):
            logits = twin(inputs_embeds=vectors).logits[0]
        mine = got.attribution.isel(prompt=row).sel(attribution_method="gradient")
        for target, at in enumerate(got.explained.values[row].tolist()):
            if at < 0:
                continue
            loss = -logits[at].log_softmax(-1)[prompts.correct[row, at]]
            (slope,) = torch.autograd.grad(loss, vectors, retain_graph=True)
            want = slope[0, : at + 1].norm(dim=-1)
            np.testing.assert_allclose(mine.values[target, : at + 1], want, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    "asked",
    [{"methods": ["norms"]}, {"methods": ["alti"]}, {"methods": ["rollout_gradient"]}, {"causes": ["knockout_L0H1"]}],
)
def test_ablated_refuses_what_needs_z_as_weights_times_values(tiny, asked):
    model = tiny("llama")
    with (
        harness.ablated(model, OUTER),
        pytest.raises(RequestError, match="heads of random are ablated here, so that their output is not pattern tim"),
    ):
        harness.compare_attributions(model, prompts_of(model), **asked)
    assert not model.no_mixing


def test_ablated_saliency_is_of_the_model_that_was_looked_at(tiny):
    model = tiny("llama")
    with harness.ablated(model, OUTER):
        seen = harness.look(model, TEXT)
        inside = seen.gradient()
    with pytest.raises(RequestError, match=r"^saliency=random: the model's ablations are others than when the look"):
        seen.gradient()
    assert np.abs(inside - harness.look(model, TEXT).gradient()).max() > 1e-4


def test_ablated_encoders_are_measured_too(tiny):
    model = tiny("bert")
    prompts = harness.load_prompts("inline", model, text=["Mary gave a drink", "the store"])
    with harness.ablated(model, OUTER, "mean", prompts=prompts):
        got = harness.ablate_heads(model, prompts, "zero", ["loss"], [INNER]).data
    sweep = {"kind": "set", "sets": {"outer": [OUTER]}}
    outside = harness.ablate_heads(model, prompts, "mean", ["loss"], **sweep).data
    np.testing.assert_allclose(got.clean.values, (outside.clean + outside.set_effect[..., 0]).values, atol=1e-5)
    assert float(abs(got.effect.sel(INNER.place)).max()) > 1e-4


@pytest.mark.parametrize("name", ["encoder.L0H1", "decoder.L1H0", "cross.L0H2", "cross"])
def test_ablated_stacks_of_an_encoder_decoder(tiny, name):
    model = tiny("t5")
    prompts = prompts_of(model)
    edits = {head: torch.zeros_like for head in model.heads([name])}
    with harness.ablated(model, name), torch.no_grad():
        for row in range(len(prompts)):
            ids = inputs_of(model, prompts, row)
            mine = model.bridge(ids["input_ids"], decoder_input=ids["decoder_input_ids"])
            with edited(twin_of(model), edits, model.shape.d_head):
                torch.testing.assert_close(mine, twin_of(model)(**ids).logits, atol=1e-4, rtol=0)


# --- the context itself -----------------------------------------------------------------------------------------


def logits_of(model):
    ids = torch.tensor([model.tokens.encode(TEXT).token_id])
    with torch.no_grad():
        return model.bridge(ids)


def n_hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.bridge.modules())


class Stop(Exception):
    """An error of the caller's own."""


@pytest.mark.parametrize("error", [None, Stop, KeyboardInterrupt, SystemExit])
def test_ablated_leaves_the_model_as_it_was(tiny, error):
    model = tiny("llama")
    before, hooked = logits_of(model), n_hooks(model)
    try:
        with harness.ablated(model, ["L0", OUTER]):
            assert not torch.equal(logits_of(model), before)
            if error is not None:
                raise error
    except (Stop, KeyboardInterrupt, SystemExit):
        pass
    assert torch.equal(logits_of(model), before)
    assert (n_hooks(model), model.bridge.in_force, model.bridge.lock.held) == (hooked, [], False)


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
def test_ablated_goes_on_after_a_forward_that_was_interrupted(tiny, error):
    """Between hook_z and W_O, where the edit waits to be verified."""
    model = tiny("llama")
    point = model.bridge.get_submodule("blocks.1.attn").o.hook_in

    def interrupt(*_):
        raise error

    with harness.ablated(model, OUTER) as check:
        want = logits_of(model)
        handle = point.register_forward_hook(interrupt)
        with pytest.raises(error):
            logits_of(model)
        handle.remove()
        assert torch.equal(logits_of(model), want)
        handle = point.register_forward_hook(interrupt)
        with pytest.raises(error):
            logits_of(model)
        handle.remove()
    assert check.fired == 2


def test_ablated_contexts_nest(tiny):
    model = tiny("llama")
    prompts = prompts_of(model)
    with harness.ablated(model, "L1H1", "mean", prompts=prompts):
        with harness.ablated(model, harness.scale(["L1H1", "L2H0"], 0.5)) as inner:
            got = harness.ablate_heads(model, prompts, "zero", ["loss"], "L0H0").data
        assert inner.fired > 0
        assert got.effect.attrs["inside"] == "mean('L1H1'); scale(['L1H1', 'L2H0'], factor=0.5)"
        alone = harness.ablate_heads(model, prompts, "zero", ["loss"], "L0H0").data.clean.values[0]
    mean = replacement(model, prompts, OUTER, "mean")
    halved = {OUTER: lambda z: 0.5 * mean(z), INNER: lambda z: 0.5 * z}
    np.testing.assert_allclose(got.clean.values[0], naive_metrics(model, prompts, halved, {})[0], atol=1e-4)
    np.testing.assert_allclose(alone, naive_metrics(model, prompts, {OUTER: mean}, {})[0], atol=1e-4)


def test_ablated_means_are_of_the_model_outside(tiny):
    """Two heads of one context: the mean of the later one is that of the unablated model."""
    model = tiny("llama")
    prompts = prompts_of(model)
    mean = replacement(model, prompts, INNER, "mean")
    with harness.ablated(model, harness.zero("L0"), harness.mean(INNER), prompts=prompts):
        got = harness.ablate_heads(model, prompts, "zero", ["loss"], "L1H0").data.clean.values[0]
    edits = {head: torch.zeros_like for head in model.heads("L0")} | {INNER: mean}
    np.testing.assert_allclose(got, naive_metrics(model, prompts, edits, {})[0], atol=1e-4)


def test_ablated_mean_over_a_named_reference_needs_no_prompts(tiny):
    model = tiny("llama")
    ioi = harness.load_prompts("ioi", model)
    with harness.ablated(model, harness.mean(OUTER, reference="ioi")):
        got = logits_of(model)
    with harness.ablated(model, OUTER, "mean", prompts=ioi):
        assert torch.equal(got, logits_of(model))


def test_ablated_notices_that_its_hooks_were_removed(tiny):
    model = tiny("llama")
    with harness.ablated(model, OUTER):
        model.bridge.reset_hooks()
        with pytest.raises(InterventionFailed, match="L1: W_O ran but hook_z did not fire"):
            logits_of(model)


def test_ablated_notices_an_edit_after_its_own(tiny):
    model = tiny("llama")
    undo = [(hooks.hook_name("z", OUTER.site), lambda z, hook: z + 1)]
    with (
        harness.ablated(model, OUTER),
        pytest.raises(InterventionFailed, match="L1: W_O received a z that is off the intended one by up to 1"),
    ):
        model.bridge.run_with_hooks(torch.tensor([[5, 6, 7]]), fwd_hooks=undo)


def test_ablated_notices_an_edit_between_two_contexts(tiny):
    model = tiny("llama")
    undo = [(hooks.hook_name("z", OUTER.site), lambda z, hook: z + 1)]
    with (
        harness.ablated(model, OUTER),
        model.bridge.hooks(fwd_hooks=undo),
        harness.ablated(model, INNER._replace(layer=1)),
        pytest.raises(InterventionFailed, match="L1: an inner ablation received a z that is off the intended one"),
    ):
        logits_of(model)


def test_ablated_notices_that_w_o_never_ran(tiny):
    model = tiny("llama")
    written = model.bridge.get_submodule("blocks.1.attn").o
    around = {written: lambda z: written.hook_in(z) @ written.original_component.weight.T}
    with (
        harness.ablated(model, OUTER),
        replaced(around),
        pytest.raises(InterventionFailed, match="L1: hook_z fired but W_O never ran"),
    ):
        logits_of(model)


def test_ablated_is_of_the_thread_that_entered_it(tiny):
    model, seen = tiny("llama"), []
    with harness.ablated(model, OUTER):
        thread = threading.Thread(target=lambda: seen.append((model.no_mixing, model.inside)))
        thread.start()
        thread.join()
        assert model.no_mixing
        assert model.inside == {"inside": "zero('L1H1')"}
    assert seen == [("", {})]


def test_ablated_makes_other_threads_wait(tiny):
    model = tiny("llama")
    clean, got = logits_of(model), []
    thread = threading.Thread(target=lambda: got.append(logits_of(model)))
    with harness.ablated(model, OUTER):
        thread.start()
        time.sleep(0.1)
        assert not got
        assert not torch.equal(logits_of(model), clean)
    thread.join()
    assert torch.equal(got[0], clean)


def test_ablated_works_where_a_notebook_switched_gradients_off(tiny):
    model = tiny("llama")
    prompts = prompts_of(model)
    with torch.inference_mode(), harness.ablated(model, OUTER, "mean", prompts=prompts):
        got = harness.compare_attributions(model, prompts, methods=["gradient"], causes=["delete"]).data
    with harness.ablated(model, OUTER, "mean", prompts=prompts):
        want = harness.compare_attributions(model, prompts, methods=["gradient"], causes=["delete"]).data
    np.testing.assert_allclose(got.attribution, want.attribution, atol=1e-6)


def halved(z, head):
    return z / 2


REFUSED = [
    (["L9H0"], {}, r"heads=L9H0: L9H0 is outside random: it has layers 0-2"),
    (["cross.L0H1"], {}, r"heads=cross.L0H1: random has only one stack: leave out cross"),
    (["L0H1", "resample"], {}, r"ablation=resample: it puts another prompt's z at each position, which other texts"),
    (["L0H1", "patch"], {}, r"ablation=patch: it puts a counterfactual's z at each position, .*; use mean or zero, or"),
    (["L0H1", halved], {}, r"ablation=halved: a function may read all positions of z at once, and a text that is bein"),
    (["L0H1", "zreo"], {}, r"ablation=zreo: did you mean 'zero'\?"),
    (["L0H1", {"name": "scale", "faktor": 2}], {}, r"ablation.faktor=2: there is no such key; did you mean 'factor'"),
    (["L0H1", "mean"], {}, r"prompts=none: a mean is over prompts: pass prompts=…, or mean\(heads, reference='ioi'\)"),
    (["L0H1", {"name": "zero", "positions": "last"}], {}, r"ablation.positions=last: a text of any length has no such"),
    ([harness.zero("L0H1", positions="target")], {}, r"ablation.positions=target: a text of any length has no such po"),
    ([harness.zero("L0H1", positions=[0, -1])], {}, r"ablation.positions=\[0, -1\]: a text that grows has no end"),
    ([harness.zero("L0"), harness.scale("L0H1")], {}, r"heads=L0H1: two of these ablations name it: name it once, or"),
    ([harness.zero("L0"), "mean"], {}, r"ablation=mean: beside a value others are values too, such as harness.zero"),
]


@pytest.mark.parametrize(("asked", "more", "says"), REFUSED)
def test_ablated_refuses_in_one_line(tiny, asked, more, says):
    model = tiny("llama")
    with pytest.raises(RequestError, match=f"^{says}") as error, harness.ablated(model, *asked, **more):
        pass
    assert "\n" not in str(error.value)
    assert model.bridge.in_force == []


def test_ablated_refuses_a_mean_over_texts_of_one_token(tiny):
    model = tiny("gpt2")
    prompts = harness.load_prompts("inline", model, text=[TEXT])
    one = prompts.take([0])
    short = type(one)(**{**vars(one), "token_id": one.token_id[:, :1]})
    with (
        pytest.raises(RequestError, match="^prompts=inline: at L1 each has one position, and later ones of a text"),
        harness.ablated(model, OUTER, "mean", prompts=short),
    ):
        pass


def test_a_mean_over_two_tokens_counts_the_one_with_id_0(tiny):
    """Padding has the id −1; 0 is a token like any other, so a text of it and one more has a mean for both places."""
    model = tiny("gpt2")
    prompts = harness.load_prompts("token_ids", model, token_id=[[0, 5]])
    with harness.ablated(model, OUTER, "mean", prompts=prompts) as check:
        logits = model.bridge(torch.tensor([[0, 5]]))[0]
    mean = replacement(model, prompts, OUTER, "mean")
    with torch.no_grad(), edited(twin_of(model), {OUTER: mean}, model.shape.d_head):
        want = twin_of(model)(torch.tensor([[0, 5]])).logits[0]
    torch.testing.assert_close(logits, want, atol=1e-4, rtol=0)
    assert check.fired == 1


def test_ablated_refuses_positions_of_an_encoder_decoders_source(tiny):
    with (
        pytest.raises(RequestError, match=r"^ablation.positions=\[0\]: positions are those of what is written; leave"),
        harness.ablated(tiny("t5"), harness.zero("encoder", positions=0)),
    ):
        pass


# --- values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (harness.zero("L5H1"), "zero('L5H1')"),
        (harness.zero(("L5H1", Head(7, 0)), positions=3), "zero(['L5H1', 'L7H0'], positions=(3,))"),
        (harness.mean(Head(5, 1, "cross"), "ioi"), "mean('cross.L5H1', reference='ioi')"),
        (harness.resample("L5", draws=4, seed=2), "resample('L5', draws=4, seed=2)"),
        (harness.patch("all", positions="last"), "patch('all', positions='last')"),
        (harness.scale("L5H1"), "scale('L5H1', factor=0.5)"),
        (harness.scale("L5H1", 2), "scale('L5H1', factor=2.0)"),
    ],
)
def test_values_show_what_they_do(value, shown):
    assert repr(value) == shown
    assert eval(shown, {name: getattr(harness, name) for name in ("zero", "mean", "resample", "patch", "scale")})


def test_values_are_equal_where_they_do_the_same():
    assert harness.zero("L5H1") == harness.zero(["L5H1"]) != harness.zero("L5H2")
    assert len({harness.scale("L7"), harness.scale("L7", 0.5), harness.scale("L7", 0.25)}) == 2
    with pytest.raises(AttributeError):
        harness.zero("L5H1").heads = ()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: harness.scale("L0", float("inf")), "ablation.factor=inf: "),
        (lambda: harness.resample("L0", draws=0), "ablation.draws=0: input should be greater than"),
        (lambda: harness.zero("L0", positions="lats"), "ablation.positions=lats: did you mean 'last'?"),
    ],
)
def test_values_refuse_wrong_keys_at_once(make, says):
    with pytest.raises(RequestError) as error:
        make()
    assert str(error.value).startswith(says)


def test_values_name_the_heads_of_a_sweep(tiny):
    model = tiny("llama")
    prompts = harness.load_prompts("ioi", model, n=4)
    got = harness.ablate_heads(model, prompts, harness.resample(["L0H1", "L2"], draws=2), ["loss"]).data
    want = harness.ablate_heads(model, prompts, {"name": "resample", "draws": 2}, ["loss"], ["L0H1", "L2"]).data
    np.testing.assert_array_equal(got.effect.values, want.effect.values)
    with pytest.raises(RequestError, match=r"^heads=L0: zero\('L0H1'\) names its heads itself: leave heads out"):
        harness.ablate_heads(model, prompts, harness.zero("L0H1"), ["loss"], heads="L0")


def test_values_need_no_torch():
    code = "import sys, harness; assert 'harness.ablation' not in sys.modules and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_ablated_pooled_mean_needs_no_second_token(tiny):
    """Each text has one position: there is a mean for all positions, and none for later ones alone."""
    model = tiny("gpt2")
    one = prompts_of(model).take([0])
    short = type(one)(**{**vars(one), "token_id": one.token_id[:, :1]})
    want = {OUTER: replacement(model, short, OUTER, POOLED)}
    with harness.ablated(model, harness.mean(OUTER, means="pooled"), prompts=short):
        got = torch.stack([*islice(next_logits(model, model.tokens.encode(TEXT).token_id), STEPS)])
    torch.testing.assert_close(got, naive_generation(model, TEXT, want), atol=1e-4, rtol=0)
