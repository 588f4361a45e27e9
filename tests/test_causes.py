"""Measured causes against plain Hugging Face forwards: other tokens, other embeddings, shorter texts, other masks."""

from contextlib import nullcontext

import numpy as np
import plain
import pytest
import torch

import harness
from harness.ablation import InterventionFailed
from harness.attribution import causes, deletion, knockout, occlusion
from harness.attribution.example import clean_values, example_of, limit_targets
from harness.attribution.masking import each_token
from harness.config import RequestError
from harness.hooks import Head
from harness.models import random as random_models

TEXT = "When Mary and John went to the store"
DECODERS = ("gpt2", "neox", "llama", "mistral", "qwen3", "gemma3")
KINDS = (*DECODERS, "bert", "bert_classifier", "t5")
GIVEN = {"t5": {"target": ["a drink to John"]}, "bert_classifier": {"answer": ["neutral"]}}
LOWEST = torch.finfo(torch.float32).min


@pytest.fixture(params=KINDS)
def asked(request, tiny):
    """A question to a tiny model of each kind, and the plain model with the same weights."""
    return of_kind(tiny, request.param)


def of_kind(tiny, shape):
    model = tiny(shape)
    prompts = harness.load_prompts("inline", model, text=[TEXT], **GIVEN.get(shape, {}))
    twin, *_ = random_models.build(shape, 0)
    return example_of(model, limit_targets(prompts, 3)), twin.eval()


@torch.no_grad()
def losses(question, twin, token_id, target, source=None, read_at=None, **given):
    """The loss at one target of one row, by the plain model."""
    rows, at = question.rows, question.position[target] if read_at is None else read_at
    right = int(rows.correct[question.row[target], question.position[target]])
    ids = torch.as_tensor(token_id)[None]
    if question.model.kind == "encoder_decoder":
        logits = twin(torch.as_tensor(source)[None], decoder_input_ids=ids, **given).logits[0, at]
    elif question.model.kind == "classifier":
        logits = twin(ids, **given).logits[0]
    else:
        logits = twin(ids, **given).logits[0, at]
    return -float(logits.double().log_softmax(-1)[right])


def texts(question, target):
    """What is read and what is written in the row of a target."""
    row = question.row[target]
    source = None if question.rows.source is None else question.rows.source.token_id[0].copy()
    return source, question.rows.token_id[row].copy()


def split(question, node):
    """Which text a node is in, and where."""
    return ("source", node) if node < question.nodes.source else ("own", node - question.nodes.source)


def each(question, compute):
    """[target, node] of a function of both."""
    return np.array([[compute(t, n) for n in range(len(question.nodes))] for t in range(question.n_targets)])


def close(got, want, question):
    """The same wherever a target can see, NaN or not, and somewhere different from nothing."""
    seen = question.visible
    np.testing.assert_allclose(got.T[seen], want[seen], atol=2e-4)
    assert np.nanmax(np.abs(want[seen])) > 1e-3


def test_the_clean_loss(asked):
    question, twin = asked
    want = [losses(question, twin, texts(question, t)[1], t, texts(question, t)[0]) for t in range(question.n_targets)]
    np.testing.assert_allclose(clean_values(question), want, atol=1e-4)


def test_another_token_in_its_place(asked):
    question, twin = asked
    fill = occlusion.drawn_tokens(question, np.arange(60, 80), [0])

    def by_hand(target, node):
        source, own = texts(question, target)
        where, at = split(question, node)
        (source if where == "source" else own)[at] = fill[node]
        return losses(question, twin, own, target, source)

    clean = clean_values(question)
    got = occlusion.occlude(question, each_token(question), fill)
    close(got, each(question, by_hand) - clean[:, None], question)


def test_a_part_of_several_tokens(asked):
    question, twin = asked
    fill, part = occlusion.same_token(question, 65), [1, len(question.nodes) - 1]
    got = occlusion.occlude(question, [part], fill)
    for target in range(question.n_targets):
        source, own = texts(question, target)
        for where, at in (split(question, node) for node in part):
            (source if where == "source" else own)[at] = 65
        want = losses(question, twin, own, target, source) - clean_values(question)[target]
        assert got[0, target] == pytest.approx(want, abs=2e-4)


def test_a_token_drawn_for_another_is_another(asked):
    question, _ = asked
    source, own = texts(question, 0)
    there = own if source is None else np.append(source, own)
    fill = occlusion.drawn_tokens(question, np.array([*there, 70]), [0, 5])
    assert (fill != np.append([] if source is None else source, question.prompt.token_id[0])).all()


def test_the_mean_embedding_in_its_place(asked):
    question, twin = asked
    table = twin.get_input_embeddings()
    mean = table(torch.arange(table.num_embeddings)).mean(0)

    @torch.no_grad()
    def by_hand(target, node):
        source, own = texts(question, target)
        vectors = {"source": None if source is None else table(torch.as_tensor(source)[None]).clone()}
        vectors["own"] = table(torch.as_tensor(own)[None]).clone()
        where, at = split(question, node)
        vectors[where][0, at] = mean
        right = int(question.rows.correct[question.row[target], question.position[target]])
        written = {"inputs_embeds": vectors["own"]}
        if source is not None:
            written = {"inputs_embeds": vectors["source"], "decoder_inputs_embeds": vectors["own"]}
        logits = twin(**written).logits[0]
        logits = logits if logits.ndim == 1 else logits[question.position[target]]
        return -float(logits.double().log_softmax(-1)[right])

    got = occlusion.occlude(question, each_token(question), occlusion.mean_embedding(question.model))
    close(got, each(question, by_hand) - clean_values(question)[:, None], question)


def test_a_token_without_an_embedding_replaces_none():
    """The planted model's tokenizer ends in an unknown token that its 40 embeddings lack."""
    model = harness.load_model("planted")
    assert model.tokenizer.unk_token_id == model.shape.d_vocab == 40
    assert "occlude_unk" not in causes.choose_causes(("auto",), model)
    with pytest.raises(RequestError, match=r"occlude_unk: planted has no embedding of that token \(40 of 40\)"):
        causes.choose_causes(("occlude_unk",), model)


def test_a_shorter_text(asked):
    question, twin = asked
    causal = question.causal

    def by_hand(target, node):
        source, own = texts(question, target)
        where, at = split(question, node)
        position = int(question.position[target])
        if where == "source":
            return losses(question, twin, own, target, np.delete(source, at))
        if at == position and (not causal or position == 0):
            return np.nan
        moved = position - (at <= position)
        given = {}
        if question.prompt.segment.any():
            given["token_type_ids"] = torch.as_tensor(np.delete(question.prompt.segment, at, axis=1))
        return losses(question, twin, np.delete(own, at), target, source, read_at=moved, **given)

    got = deletion.delete(question, each_token(question))
    close(got, each(question, by_hand) - clean_values(question)[:, None], question)


def masks(question, part):
    """What a plain model is given so that nobody outside the part reads it: additive masks for each text."""
    inside = np.zeros(len(question.nodes), dtype=bool)
    inside[part] = True
    made = []
    for mine, causal in ((inside[: question.nodes.source], False), (inside[question.nodes.source :], question.causal)):
        blocked = torch.as_tensor(mine[None, :] & ~mine[:, None])
        blocked |= torch.full(blocked.shape, causal).triu(1)
        made.append(torch.zeros(blocked.shape).masked_fill(blocked, LOWEST)[None, None])
    return made


@pytest.mark.parametrize("shape", [shape for shape in KINDS if shape not in ("mistral", "gemma3")])
def test_nobody_else_may_read_it(tiny, shape):
    question, twin = of_kind(tiny, shape)

    def by_hand(target, node):
        source, own = texts(question, target)
        of_source, of_own = masks(question, [node])
        if question.model.kind != "encoder_decoder":
            return losses(question, twin, own, target, attention_mask=of_own)
        read = twin.encoder(torch.as_tensor(source)[None], attention_mask=of_source)
        across = torch.ones(1, len(source), dtype=torch.long)
        if node < len(source):
            across[0, node] = 0
        given = {"encoder_outputs": read, "attention_mask": across, "decoder_attention_mask": of_own}
        return losses(question, twin, own, target, source, **given)

    got = knockout.knock_out(question, each_token(question))
    close(got, each(question, by_hand) - clean_values(question)[:, None], question)


@pytest.mark.parametrize("shape", ["mistral", "gemma3"])
def test_nobody_else_may_read_it_through_its_window(tiny, shape):
    """The plain model with the token blocked on top of the mask that each of its layers is given."""
    question, twin = of_kind(tiny, shape)
    attentions = [module for name, module in twin.named_modules() if name.endswith("self_attn")]
    seen = []

    def by_hand(target, node):
        def put(_, args, given):
            seen.append(given["attention_mask"])
            blocked = masks(question, [node])[1] + given["attention_mask"]
            return args, {**given, "attention_mask": blocked.clamp(min=LOWEST)}

        handles = [each.register_forward_pre_hook(put, with_kwargs=True) for each in attentions]
        try:
            return losses(question, twin, texts(question, target)[1], target)
        finally:
            for handle in handles:
                handle.remove()

    got = knockout.knock_out(question, each_token(question))
    close(got, each(question, by_hand) - clean_values(question)[:, None], question)
    windows = {int((mask[0, 0, -1] == 0).sum()) for mask in seen}
    assert 5 in windows  # the window was there, in all layers of Mistral and in two of Gemma's
    assert len(windows) == (2 if shape == "gemma3" else 1)


def test_sliding_windows_stay_when_a_token_is_knocked_out(tiny):
    """Mistral's window is 5: a token that no later token may read for its distance changes nothing but itself."""
    question, _ = of_kind(tiny, "mistral")
    model = question.model
    layers = model.shape.n_layers
    reach = layers * 4
    got = knockout.knock_out(question, each_token(question))
    far = question.position[None, :] - np.arange(len(question.nodes))[:, None] > reach
    assert (got[far] == 0).all()
    alone = knockout.knock_out_in(question, [([node], [Head(0, 0)]) for node in range(len(question.nodes))])
    assert (alone[question.position[None, :] - np.arange(len(question.nodes))[:, None] > reach] == 0).all()


@pytest.mark.parametrize("shape", ["llama", "gpt2", "bert"])
@pytest.mark.parametrize("where", ["L0H1", "L2H3", "L1"])
def test_nobody_else_may_read_it_in_one_head(tiny, shape, where):
    """The plain model with a mask for this head alone, in this layer alone."""
    question, twin = of_kind(tiny, shape)
    heads = question.model.heads([where])
    n_heads, layer = question.model.shape.n_heads, heads[0].layer
    attention = [m for n, m in twin.named_modules() if n.endswith(("self_attn", ".attn", "attention.self"))][layer]
    which = [head.head for head in heads]

    def by_hand(target, node):
        added = masks(question, [node])[1].expand(1, n_heads, -1, -1).clone()
        plain_mask = masks(question, [])[1][:, 0]
        others = [head for head in range(n_heads) if head not in which]
        added[:, others] = plain_mask[:, None]

        def put(_, args, given):
            if "attention_mask" in given or question.model.kind == "decoder":
                return args, {**given, "attention_mask": added}
            return (args[0], added, *args[2:]), given

        handle = attention.register_forward_pre_hook(put, with_kwargs=True)
        try:
            return losses(question, twin, texts(question, target)[1], target)
        finally:
            handle.remove()

    got = knockout.knock_out_in(question, [([node], heads) for node in range(len(question.nodes))])
    close(got, each(question, by_hand) - clean_values(question)[:, None], question)


@pytest.mark.parametrize("where", ["encoder.L1H2", "decoder.L0H1", "cross.L1H3"])
def test_nobody_else_may_read_it_in_one_head_of_t5(tiny, where):
    """The plain model with the head's slice of W_O's input recomputed, row by row, from its own weights and values."""
    question, twin = of_kind(tiny, "t5")
    (head,) = question.model.heads([where])
    stack = twin.encoder if head.stack == "encoder" else twin.decoder
    sub = stack.block[head.layer].layer[1 if head.stack == "cross" else 0]
    attention = sub.EncDecAttention if head.stack == "cross" else sub.SelfAttention
    source, own = texts(question, 0)
    kept = []
    handle = attention.v.register_forward_hook(lambda _, args, out: kept.append(out[0]))
    given = {"input_ids": torch.as_tensor(source)[None], "decoder_input_ids": torch.as_tensor(own)[None]}
    with torch.no_grad():
        out = twin(**given, output_attentions=True)
    handle.remove()
    name = {"encoder": "encoder_attentions", "decoder": "decoder_attentions", "cross": "cross_attentions"}[head.stack]
    weights, d = out[name][head.layer][0, head.head], question.model.shape.d_head
    mine = slice(head.head * d, (head.head + 1) * d)

    def by_hand(target, node):
        where, at = split(question, node)
        if (where == "source") == (head.stack == "decoder"):
            return clean_values(question)[target]
        rows = []
        for query in range(len(weights)):
            share = weights[query].clone()
            if head.stack == "cross" or query != at:
                share[at] = 0
            rows.append(share @ kept[0][:, mine] / share.sum())

        def put(_, args):
            z = args[0].clone()
            z[0, :, mine] = torch.stack(rows)
            return (z,)

        handle = attention.o.register_forward_pre_hook(put)
        try:
            return losses(question, twin, own, target, source)
        finally:
            handle.remove()

    got = knockout.knock_out_in(question, [([node], [head]) for node in range(len(question.nodes))])
    close(got, each(question, by_hand) - clean_values(question)[:, None], question)


def test_a_decoders_own_position_hears_nothing_of_its_own_knockout(tiny):
    question, _ = of_kind(tiny, "llama")
    got = knockout.knock_out(question, each_token(question))
    assert (got[question.own, np.arange(question.n_targets)] == 0).all()


# --- a model that gives a vector ----------------------------------------------------------------------------------


def test_causes_of_a_sentences_vector_are_cosine_distances():
    from transformers import AutoModel

    from harness.models import sources

    minilm = harness.load_model("minilm")
    twin = AutoModel.from_pretrained(sources.local_folder(minilm.spec), attn_implementation="eager").eval()
    question = example_of(minilm, harness.load_prompts("inline", minilm, text=["The dog chased the cat."]))
    own = question.rows.token_id[0]
    clean = plain.logits(twin, own).double().mean(0)

    def distance(vectors):
        mean = vectors.double().mean(0)
        return 1 - float(clean @ mean / clean.norm() / mean.norm())

    parts = each_token(question)
    deleted = deletion.delete(question, parts)[:, 0]
    hidden = knockout.knock_out(question, parts)[:, 0]
    masked = occlusion.occlude(question, parts, occlusion.same_token(question, minilm.tokens.mask_id))[:, 0]
    meant = occlusion.occlude(question, parts, occlusion.mean_embedding(minilm))[:, 0]
    table = twin.get_input_embeddings()
    for node in range(len(own)):
        assert deleted[node] == pytest.approx(distance(plain.logits(twin, np.delete(own, node))), abs=1e-5)
        changed = own.copy()
        changed[node] = minilm.tokens.mask_id
        assert masked[node] == pytest.approx(distance(plain.logits(twin, changed)), abs=1e-5)
        unread = plain.logits(twin, own, attention_mask=masks(question, [node])[1])
        assert hidden[node] == pytest.approx(distance(unread), abs=1e-5)
        vectors = table(torch.as_tensor(own)[None]).clone()
        vectors[0, node] = table.weight.mean(0)
        with torch.no_grad():
            said_nothing = twin(inputs_embeds=vectors).last_hidden_state[0]
        assert meant[node] == pytest.approx(distance(said_nothing), abs=1e-5)
    assert hidden.max() > 0.01


# --- what is asked --------------------------------------------------------------------------------------------------


def test_traits_of_grouped_heads_say_that_z_mixes_values(tiny):
    """Each head with the value of its own group; with another's it would not, and no knockout in one head were had."""
    assert tiny("llama").shape.n_kv_heads == 2
    assert tiny("llama").traits.mixes_values


def test_auto_is_what_the_model_allows(tiny):
    decoder = ["occlude_mean", "occlude_token", "delete", "knockout"]
    assert list(causes.choose_causes(("auto",), tiny("llama"))) == decoder
    assert list(causes.choose_causes(("auto",), tiny("bert"))) == ["occlude_mask", *decoder]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("occlude_mask", "random's tokenizer has no such token"),
        ("knockuot", "did you mean 'knockout'\\?"),
        ("knockout_L9H0", "L9H0 is outside random: it has layers 0-2"),
    ],
)
def test_a_cause_that_cannot_be_is_refused(tiny, name, message):
    with pytest.raises(RequestError, match=f"attribution.causes={name}: .*{message}"):
        causes.choose_causes((name,), tiny("llama"))


def test_at_most_so_many_targets_evenly_spread_the_last_among_them(tiny):
    prompts = harness.load_prompts("inline", tiny("llama"), text=[TEXT])
    assert np.flatnonzero(limit_targets(prompts, 3).target[0]).tolist() == [3, 6, 10]
    assert np.flatnonzero(limit_targets(prompts, 1).target[0]).tolist() == [10]
    assert (limit_targets(prompts, 50).target == prompts.target).all()


# --- known answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_on_the_planted_model_the_cause_names_the_tokens_of_the_circuit(seed):
    """Standing on the second t_j, the induction head copies the first t_{j+1}, which the previous-token head has told
    what stands before it: the first t_j."""
    model = harness.load_model("planted", seed=seed, variant="sharp")
    prompts = harness.load_prompts("induction", model, n=1, length=18)
    question = example_of(model, limit_targets(prompts, 5))
    got = knockout.knock_out(question, each_token(question))
    for target, position in enumerate(question.position.tolist()):
        first = position - 18
        assert set(np.argsort(-got[:, target])[:2]) == {first, first + 1}
        others = np.delete(got[:, target], [first, first + 1])
        assert got[[first, first + 1], target].min() > 2
        assert np.abs(others).max() < 0.05


def test_without_a_key_a_learnt_sink_keeps_its_place_in_the_softmax():
    """exp(scores) 1, 1 and 2 for the sink: without the first key the second has 1/3 and the sink 2/3."""
    pattern, value = np.array([[[[0.25, 0.25], [0.25, 0.25]]]]), np.array([[[[3.0], [6.0]]]])
    only_first, none = np.array([True, False]), np.zeros(2, dtype=bool)
    np.testing.assert_allclose(knockout.without(pattern, value, none, only_first, learnt_sink=True)[0, :, 0, 0], 2)
    np.testing.assert_allclose(knockout.without(pattern, value, none, only_first)[0, :, 0, 0], 6)


def test_knock_out_that_does_not_reach_the_pattern_is_an_error(tiny, monkeypatch):
    question, _ = of_kind(tiny, "llama")
    monkeypatch.setattr(knockout, "at_softmax", lambda bridge, edits: nullcontext())
    with pytest.raises(InterventionFailed, match="a token that was knocked out still gets attention"):
        knockout.knock_out(question, [[0]])


def test_knockout_without_gives_each_head_the_values_of_its_group():
    """Four heads, two values, nothing taken away: z of heads 0 and 1 is the first value, of 2 and 3 the second."""
    pattern, none = np.ones((1, 4, 1, 1)), np.zeros(1, dtype=bool)
    z = knockout.without(pattern, np.array([3.0, 6.0]).reshape(1, 2, 1, 1), none, none)
    assert z[0, 0, :, 0].tolist() == [3, 3, 6, 6]


def test_knock_out_lets_the_tokens_of_a_part_read_each_other_and_themselves():
    """The first two of three tokens are the part: only the third may not read them."""
    blocked = knockout._blocked(torch.tensor([[True, True, False]]))
    assert blocked.int().tolist() == [[[0, 0, 0], [0, 0, 0], [1, 1, 0]]]


@pytest.mark.parametrize("shape", ["llama", "bert"])
def test_knock_out_of_a_part_of_two_tokens_equals_plain_hugging_face(tiny, shape):
    question, twin = of_kind(tiny, shape)
    part = [1, 2]

    def by_hand(target, _):
        return losses(question, twin, texts(question, target)[1], target, attention_mask=masks(question, part)[1])

    want = np.array([by_hand(target, 0) for target in range(question.n_targets)]) - clean_values(question)
    np.testing.assert_allclose(knockout.knock_out(question, [part])[0], want, atol=2e-4)
    assert np.abs(want).max() > 1e-3
