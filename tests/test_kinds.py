"""Encoder-decoders, classifiers and sentence encoders: every ablation and metric against plain Hugging Face forwards.

Each prompt runs alone, without padding; nothing of TransformerLens and nothing of the engine is used for what is
expected. Decoders are in test_sweep and test_ablation, masked-LMs in test_ablation and test_encoders.
"""

import dataclasses

import numpy as np
import pytest
import torch

import harness
from harness import ablation
from harness.config import RequestError
from harness.hooks import Head
from harness.metrics import choose
from harness.models import random as random_models
from harness.models import sources
from harness.sweep import SweepStage, groups

pytestmark = pytest.mark.usefixtures("padded")

READ = {
    "padded": ("When Mary and John went to the store", "a drink", "Then the garden, and a flower to the office"),
    "aligned": (" Mary gave a drink to John", " John gave a letter to Mary", " Mary went to the store to"),
}
WRITTEN = {
    "padded": ("the office to John", "a store to Mary", "John"),
    "aligned": ("the office to", "a store and", "John went to"),
}
BASELINES = ("zero", "mean", "resample", "patch")
LABELS = ("negative", "positive", "neutral")


def projections(model):
    """W_O by stack and layer."""
    if hasattr(model, "decoder"):
        own = {("encoder", at): block.layer[0].SelfAttention.o for at, block in enumerate(model.encoder.block)}
        for at, block in enumerate(model.decoder.block):
            own["decoder", at], own["cross", at] = block.layer[0].SelfAttention.o, block.layer[1].EncDecAttention.o
        return own
    return {("", at): layer.attention.output.dense for at, layer in enumerate(model.base_model.encoder.layer)}


@torch.no_grad()
def run(twin, given, edit=None):
    """What the model gives for one prompt, and each z [position, head × d_head]; `edit` replaces z by its place."""
    seen = {}

    def hook(place):
        def look(_, args):
            seen[place] = args[0][0].clone()
            return None if edit is None else (edit(place, args[0].clone()),)

        return look

    handles = [each.register_forward_pre_hook(hook(place)) for place, each in projections(twin).items()]
    try:
        return twin(**given), seen
    finally:
        for handle in handles:
            handle.remove()


def given_of(model, prompts, row, token_id=None):
    """One prompt as a plain model takes it; `token_id` stands in for what is read."""
    own, source = torch.as_tensor(prompts.token_id[row, : prompts.length[row]])[None], prompts.source
    if source is None:
        ids = own if token_id is None else torch.as_tensor(token_id)[None]
        return {"input_ids": ids, "token_type_ids": torch.as_tensor(prompts.segment[row : row + 1, : ids.shape[1]])}
    ids = source.token_id[row, : source.length[row]] if token_id is None else token_id
    return {"input_ids": torch.as_tensor(ids)[None], "decoder_input_ids": own}


def measured(model, prompts, row, out, clean):
    """Each metric of one prompt, in double precision."""
    if model.kind == "embedding":
        u, v = (one.last_hidden_state[0].double().mean(0) for one in (out, clean))
        return {"embedding": float(1 - u @ v / u.norm() / v.norm())}
    at = np.nonzero(prompts.target[row])[0]
    right = torch.as_tensor(prompts.correct[row, at])[:, None]
    logits, before = (one.logits[0].double().reshape(-1, one.logits.shape[-1]) for one in (out, clean))
    if model.kind == "encoder_decoder":
        logits, before = logits[at], before[at]
    log_prob, before = logits.log_softmax(-1), before.log_softmax(-1)
    of_right = log_prob.gather(1, right)[:, 0]
    values = {
        "loss": -of_right.mean(),
        "kl": (before.exp() * (before - log_prob)).sum(-1).mean(),
        "accuracy": (logits.argmax(-1) == right[:, 0]).double().mean(),
        "prob": of_right.exp().mean(),
        "label": logits.gather(1, right).mean(),
    }
    if prompts.has_distractor:
        values["logit_diff"] = (logits[:, prompts.answer[row]] - logits[:, prompts.distractor[row]]).mean()
    return {name: float(value) for name, value in values.items()}


@pytest.fixture(scope="module", params=["t5", "bert_classifier", "minilm"])
def pair(request, tiny):
    """A hooked model and the same weights in a plain one."""
    if request.param == "minilm":
        from transformers import AutoModel

        model = harness.load_model("minilm")
        folder = sources.local_folder(model.spec)
        return model, AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    return tiny(request.param), random_models.build(request.param, 0)[0].eval()


@pytest.fixture(params=READ)
def prompts(request, pair):
    """Three prompts; the counterfactual of each has its ordinary tokens in reverse order."""
    model, how = pair[0], request.param
    asked = {"text": READ[how]}
    if model.kind == "encoder_decoder":
        asked["target"] = WRITTEN[how]
    if model.kind == "classifier":
        asked |= {"answer": LABELS, "distractor": LABELS[1:] + LABELS[:1]}
    made = harness.load_prompts("inline", model, **asked)
    read = made.read.copy()
    special = made.special if made.source is None else made.source.special
    for row, ids in enumerate(read):
        plain = (ids >= 0) & ~special[row]
        read[row, plain] = ids[plain][::-1]
    return dataclasses.replace(made, counterfactual=read)


def heads_of(model):
    """A few in each stack."""
    last = {stack: n - 1 for stack, n in model.shape.stacks.items()}
    return [head for stack, n in last.items() for head in (Head(0, 1, stack), Head(n, 3, stack))]


def names_of(model):
    every = ("loss", "kl", "accuracy", "prob")
    return {
        "embedding": ("embedding",),
        "classifier": (*every, "label", "logit_diff"),
        "encoder_decoder": every,
    }[model.kind]


def spread(n, m, end):
    """Where the positions of a text of n tokens fall in one of m."""
    return [int(at * (m - 1) / (n - 1) + 0.5) if n > 1 else 0 for at in range(end)]


def baseline(model, twin, prompts, asked, row, plan):
    """What z of one prompt becomes, by place: [position, head × d_head], or None for zero."""
    every = [run(twin, given_of(model, prompts, number))[1] for number in range(len(prompts))]
    match asked:
        case "zero":
            return None
        case "patch":
            read = prompts.counterfactual[row]
            return run(twin, given_of(model, prompts, row, read[read >= 0]))[1]
        case "resample":
            donor = every[plan["donors"][0][row]]
            return {
                place: z[spread(len(every[row][place]), len(z), len(every[row][place]))] for place, z in donor.items()
            }
    found = {}
    aligned = all(len({len(seen[place]) for seen in every}) == 1 for place in every[0])
    for place in every[0]:
        zs = [seen[place] for seen in every]
        if aligned:
            found[place] = torch.stack(zs).mean(0)
            continue
        first = torch.stack([z[0] for z in zs]).mean(0)
        rest = torch.cat([z[1:] for z in zs])
        others = rest.mean(0) if len(rest) else first
        found[place] = torch.stack([first, *[others] * (len(zs[row]) - 1)])
    return found


def ablated(model, twin, prompts, row, heads, new, places=slice(None)):
    """The metrics of one prompt with these heads' z replaced at these positions."""
    d_head = model.shape.d_head

    def edit(place, z):
        for head in heads:
            if (head.stack, head.layer) == place:
                mine = slice(head.head * d_head, (head.head + 1) * d_head)
                z[0, places, mine] = 0 if new is None else new[place][places, mine]
        return z

    given = given_of(model, prompts, row)
    values = measured(model, prompts, row, run(twin, given, edit)[0], run(twin, given)[0])
    return [values[name] for name in names_of(model)]


def got_at(array, row, head):
    return array.isel(prompt=row).sel(head.place).values


@pytest.mark.covering(1)
@pytest.mark.parametrize("asked", BASELINES)
def test_every_ablation_and_metric_equals_plain_hugging_face(pair, prompts, asked):
    model, twin = pair
    heads, names = heads_of(model), names_of(model)
    made, _ = ablation.build(asked, model, prompts)
    plan = SweepStage(model, prompts, groups(model, heads), choose(names, prompts), made).plan()
    got = harness.ablate_heads(model, prompts, asked, names, heads).data
    for row in range(len(prompts)):
        new = baseline(model, twin, prompts, asked, row, plan)
        for head in heads:
            want = ablated(model, twin, prompts, row, [head], new)
            np.testing.assert_allclose(got_at(got.ablated, row, head), want, atol=1e-4, err_msg=f"{row} {head}")
    assert float(np.abs(got.effect).max()) > 1e-4


@pytest.mark.covering(1)
@pytest.mark.parametrize("asked", ["zero", "resample"])
@pytest.mark.parametrize("where", ["last", [0, -2]])
def test_ablation_at_some_positions_equals_plain_hugging_face(pair, prompts, asked, where):
    model, twin = pair
    prompts = prompts.take(np.flatnonzero(prompts.length > 1))
    if len(prompts) < 2:
        pytest.skip("no two prompts of two tokens")
    heads = [head for head in heads_of(model) if head.stack != "encoder"]
    made, _ = ablation.build(asked, model, prompts)
    plan = SweepStage(model, prompts, groups(model, heads), choose(names_of(model), prompts), made).plan()
    got = harness.ablate_heads(model, prompts, asked, names_of(model), heads, positions=where).data
    for row in range(len(prompts)):
        new = baseline(model, twin, prompts, asked, row, plan)
        n = prompts.length[row]
        places = [n - 1] if where == "last" else [at % n for at in where]
        for head in heads:
            want = ablated(model, twin, prompts, row, [head], new, places)
            np.testing.assert_allclose(got_at(got.ablated, row, head), want, atol=1e-4)


def test_sets_across_stacks_are_ablated_together(pair, prompts):
    model, twin = pair
    heads = heads_of(model)
    got = harness.ablate_heads(model, prompts, metrics=names_of(model), kind="set", sets={"both": heads}).data
    for row in range(len(prompts)):
        want = ablated(model, twin, prompts, row, heads, None)
        np.testing.assert_allclose(got.set_effect[:, row, 0] + got.clean[:, row], want, atol=1e-4)


@pytest.mark.covering(1)
def test_a_whole_layer_zeroed_is_its_attention_removed(pair, prompts):
    """By a forward in which W_O's module gives its bias alone, whatever it reads."""
    model, twin = pair
    got = harness.ablate_heads(model, prompts, metrics=names_of(model), kind="layer").data
    for (stack, layer), projection in projections(twin).items():
        bias = getattr(projection, "bias", None)
        handle = projection.register_forward_hook(
            lambda _, args, out, bias=bias: torch.zeros_like(out) + (0 if bias is None else bias)
        )
        removed = [run(twin, given_of(model, prompts, row))[0] for row in range(len(prompts))]
        handle.remove()
        at = {"stack": stack, "layer": layer} if stack else {"layer": layer}
        for row, out in enumerate(removed):
            values = measured(model, prompts, row, out, run(twin, given_of(model, prompts, row))[0])
            layer_effect = got.layer_effect.isel(prompt=row).sel(at) + got.clean[:, row]
            np.testing.assert_allclose(layer_effect, [values[name] for name in names_of(model)], atol=1e-4)


@pytest.mark.covering(1)
def test_an_mlp_zeroed_is_its_output_removed(pair, prompts):
    model, twin = pair
    got = harness.ablate_heads(model, prompts, metrics=names_of(model), kind="mlp").data
    if hasattr(twin, "decoder"):
        outputs = {("encoder", at): block.layer[1].DenseReluDense.wo for at, block in enumerate(twin.encoder.block)}
        outputs |= {("decoder", at): block.layer[2].DenseReluDense.wo for at, block in enumerate(twin.decoder.block)}
    else:
        outputs = {("", at): layer.output.dense for at, layer in enumerate(twin.base_model.encoder.layer)}
    for (stack, layer), last in outputs.items():
        handle = last.register_forward_hook(lambda _, args, out: torch.zeros_like(out))
        removed = [run(twin, given_of(model, prompts, row))[0] for row in range(len(prompts))]
        handle.remove()
        at = {"stack": stack, "layer": layer} if stack else {"layer": layer}
        for row, out in enumerate(removed):
            values = measured(model, prompts, row, out, run(twin, given_of(model, prompts, row))[0])
            effect = got.mlp_effect.isel(prompt=row).sel(at) + got.clean[:, row]
            np.testing.assert_allclose(effect, [values[name] for name in names_of(model)], atol=1e-4)


def blocks_of(twin):
    """The blocks of a plain model by stack."""
    if hasattr(twin, "decoder"):
        return {"encoder": twin.encoder.block, "decoder": twin.decoder.block}
    return {"": twin.base_model.encoder.layer}


def streamed(twin, given, stack, depth, new=None):
    """What the model gives for one prompt, and the stream before a block, or after the last; `new` [position, d_model]
    takes its place."""
    blocks, kept = blocks_of(twin)[stack], []

    def replaced(hidden):
        kept.append(hidden[0].clone())
        return hidden if new is None else new[None].to(hidden)

    def enter(_, args, named):
        return (
            ((replaced(args[0]), *args[1:]), named)
            if args
            else (args, {**named, "hidden_states": replaced(named["hidden_states"])})
        )

    def leave(_, args, out):
        return (replaced(out[0]), *out[1:]) if isinstance(out, tuple) else replaced(out)

    last = depth == len(blocks)
    handle = (
        blocks[-1].register_forward_hook(leave)
        if last
        else blocks[depth].register_forward_pre_hook(enter, with_kwargs=True)
    )
    try:
        return twin(**given), kept[0]
    finally:
        handle.remove()


@torch.no_grad()
@pytest.mark.covering(1)
def test_a_patched_stream_is_that_of_the_corrupted_prompt(pair, prompts):
    """Each depth of each stack, overwritten in the plain model; before the first block of what is read it makes the
    corrupted run, and so does the end of an encoder and of a model with one stack."""
    model, twin = pair
    got = harness.ablate_heads(model, prompts, "patch", names_of(model), kind="resid").data
    for row in range(len(prompts)):
        read = prompts.counterfactual[row]
        own, other = given_of(model, prompts, row), given_of(model, prompts, row, read[read >= 0])
        clean = twin(**own)
        values = measured(model, prompts, row, twin(**other), clean)
        np.testing.assert_allclose(got.corrupted[:, row], [values[name] for name in names_of(model)], atol=1e-4)
        for stack, blocks in blocks_of(twin).items():
            for depth in range(len(blocks) + 1):
                _, stream = streamed(twin, other, stack, depth)
                values = measured(model, prompts, row, streamed(twin, own, stack, depth, stream)[0], clean)
                at = {"depth": depth, "stack": stack} if stack else {"depth": depth}
                patched = got.clean[:, row] + got.resid_effect.isel(prompt=row).sel(at)
                np.testing.assert_allclose(patched, [values[name] for name in names_of(model)], atol=1e-4)
                if depth in (0, len(blocks)) and stack != "decoder":
                    np.testing.assert_allclose(patched, got.corrupted[:, row], atol=1e-4)
    assert float(abs(got.resid_effect).max()) > 1e-3


@pytest.mark.covering(1)
@pytest.mark.parametrize("asked", ["identity", "mean", "patch"])
def test_what_must_change_nothing_changes_nothing(pair, prompts, asked):
    model = pair[0]
    itself = dataclasses.replace(prompts, counterfactual=prompts.read)
    if asked == "mean":
        itself = itself.take([0])
    got = harness.ablate_heads(
        model, itself, (lambda z, head: z) if asked == "identity" else asked, names_of(model)
    ).data
    assert_nothing(got.effect.values)


def assert_nothing(effect):
    """Nothing but the rounding of matrix products of few rows, which depends on how many there are."""
    known = effect[np.isfinite(effect)]
    assert known.size
    np.testing.assert_allclose(known, 0, atol=1e-5)


@pytest.mark.covering(1)
def test_resampling_from_itself_changes_nothing(pair, prompts):
    model = pair[0]
    made, _ = ablation.build("resample", model, prompts)
    stage = SweepStage(model, prompts, groups(model), choose(names_of(model), prompts), made)
    plan = stage.plan() | {"donors": [list(range(len(prompts)))]}
    got = stage.assemble(plan, [stage.compute(plan, unit) for unit in range(len(plan["batches"]))])
    assert_nothing(got.effect.values)


# --- what the models are asked ----------------------------------------------------------------------------------


def test_an_encoder_decoder_scores_what_it_writes(tiny):
    model = tiny("t5")
    prompts = harness.load_prompts("inline", model, text=["When Mary went"], target=["to the store"])
    ids = model.tokens.encode("to the store").token_id
    assert prompts.token_id[0].tolist() == [model.start_id, *ids[:-1]]
    assert prompts.correct[0].tolist() == list(ids)  # with the token that ends it
    assert prompts.source.token_id[0].tolist() == list(model.tokens.encode("When Mary went").token_id)


def test_an_encoder_decoder_without_a_target_is_refused(tiny):
    with pytest.raises(RequestError, match=r"set what it should write: prompts.target=…"):
        harness.load_prompts("inline", tiny("t5"), text=["When Mary went"])


def test_a_classifier_without_a_label_scores_the_one_it_gives(tiny):
    model, twin = tiny("bert_classifier"), random_models.build("bert_classifier", 0)[0].eval()
    prompts = harness.load_prompts("inline", model, text=READ["padded"])
    for row in range(3):
        given = torch.as_tensor(prompts.token_id[row, : prompts.length[row]])[None]
        with torch.no_grad():
            assert prompts.correct[row, 0] == int(twin(given).logits.argmax())
    assert prompts.answer_text == tuple(model.labels[label] for label in prompts.answer)
    got = harness.ablate_heads(model, prompts, heads=["L0H0"]).data
    assert got.metric.values.tolist() == ["loss", "label"]


def test_a_label_that_is_none_is_refused_with_what_there_is(tiny):
    with pytest.raises(RequestError, match="has no such label; did you mean 'negative'"):
        harness.load_prompts("inline", tiny("bert_classifier"), text=["a drink"], answer=["negativ"])


# --- generated text ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["llama", "gpt2", "t5"])
def test_generated_tokens_are_those_of_plain_greedy_decoding(tiny, shape):
    model, twin = tiny(shape), random_models.build(shape, 0)[0].eval()
    prompts = harness.load_prompts("inline", model, text=READ["padded"], generate=5)
    for row, text in enumerate(READ["padded"]):
        ids = torch.tensor(model.tokens.encode(text).token_id)[None]
        own = torch.tensor([[model.start_id]]) if shape == "t5" else ids
        begun = own.shape[1]
        for _ in range(5):
            given = {"input_ids": ids, "decoder_input_ids": own} if shape == "t5" else {"input_ids": own}
            with torch.no_grad():
                own = torch.cat([own, twin(**given).logits[:, -1:].argmax(-1)], dim=1)
            if int(own[0, -1]) == model.tokenizer.eos_token_id:
                break
        assert prompts.token_id[row, : prompts.length[row]].tolist() == own[0].tolist()
        scored = np.nonzero(prompts.target[row])[0]
        assert scored.tolist() == list(range(begun - 1, own.shape[1] - 1))  # where each new token was predicted
        assert prompts.correct[row, scored].tolist() == own[0, begun:].tolist()


def test_a_masked_lm_does_not_continue_a_text(tiny):
    with pytest.raises(RequestError, match="random is an encoder: it does not continue a text"):
        harness.load_prompts("inline", tiny("bert"), text=["a drink"], generate=3)
