"""What the weights of heads say alone, against dense matrices made with numpy from plain Hugging Face models."""

import families
import numpy as np
import pytest

import harness
from harness.head_card.circuits import why_no_circuits
from harness.head_card.composition import compositions
from harness.head_card.ov_circuit import ov_circuits
from harness.hooks import Head

FOLDED = ("llama", "gpt2", "gemma3", "olmo2", "granite")
DRAWS = 40


class Dense:
    """The matrices of a plain model's heads: rows are read, columns are written, and norms' scales are in them."""

    def __init__(self, family):
        self.family, self.model = family, families.build(family)[0]
        self.gpt2, config = family == "gpt2", self.model.config
        self.n_heads, self.d = config.num_attention_heads, config.hidden_size
        blocks = self.model.transformer.h if self.gpt2 else self.model.model.layers
        self.layers = [self.of(block) for block in blocks]
        self.final = self.gain(self.model.transformer.ln_f if self.gpt2 else self.model.model.norm)
        self.embed = array(self.model.get_input_embeddings().weight)
        self.unembed = array(self.model.get_output_embeddings().weight)

    def gain(self, norm):
        """The norm but for its division, as a matrix: γ, after centring for LayerNorm. Gemma stores γ − 1."""
        scale = np.diag(array(norm.weight) + self.family.startswith("gemma"))
        return (np.eye(len(scale)) - 1 / len(scale)) @ scale if self.gpt2 else scale

    def of(self, block):
        if self.gpt2:
            q, k, v = np.split(array(block.attn.c_attn.weight), 3, axis=1)
            o, read, written = array(block.attn.c_proj.weight), self.gain(block.ln_1), np.eye(self.d)
        else:
            attention = block.self_attn
            q, k, v, o = (array(getattr(attention, f"{name}_proj").weight).T for name in "qkvo")
            after = self.family in ("gemma3", "olmo2")
            read = np.eye(self.d) if self.family == "olmo2" else self.gain(block.input_layernorm)
            written = self.gain(block.post_attention_layernorm) if after else np.eye(self.d)
            written = written * (self.model.config.residual_multiplier if self.family == "granite" else 1)
        heads = lambda w: w.reshape(self.d, -1, o.shape[0] // self.n_heads).transpose(1, 0, 2)  # noqa: E731
        q, k, v = (read @ w for w in (q, k, v))
        if self.family == "olmo2":
            q, k = q @ self.gain(attention.q_norm), k @ self.gain(attention.k_norm)
        q, k, v = heads(q), heads(k), heads(v)
        if self.family == "gemma3":
            q, k = q @ self.gain(attention.q_norm), k @ self.gain(attention.k_norm)
        k, v = (np.repeat(w, self.n_heads // len(w), axis=0) for w in (k, v))
        ov = v @ (o.reshape(self.n_heads, -1, self.d) @ written)
        return {"q": q @ k.transpose(0, 2, 1), "k": k @ q.transpose(0, 2, 1), "v": ov}


def array(weight):
    return weight.detach().double().numpy()


def size(matrix):
    return np.linalg.norm(matrix, axis=(-2, -1))


@pytest.mark.parametrize("family", FOLDED)
def test_composition_scores_are_those_of_dense_matrices(family):
    """Of every pair, by query, key and value, as the later head and as the earlier one."""
    dense, model = Dense(family), harness.load_model(*families.build(family))
    heads = [Head(1, 3), Head(0, 1)]
    score = compositions(model, heads, 1, 0).score.numpy()
    first, second = dense.layers
    for at, circuit in enumerate("qkv"):
        for other in range(4):
            reads = size(first["v"][other] @ second[circuit][3]) / size(first["v"][other]) / size(second[circuit][3])
            sends = size(first["v"][1] @ second[circuit][other]) / size(first["v"][1]) / size(second[circuit][other])
            np.testing.assert_allclose(score[0, 0, at, 0, other], reads, rtol=1e-4)
            np.testing.assert_allclose(score[1, 1, at, 1, other], sends, rtol=1e-4)
    assert np.isfinite(score).sum() == 2 * 3 * 4


def test_chance_is_the_largest_score_with_the_stream_turned_at_random():
    """By a rotation drawn here. A Gaussian matrix spreads more, so what is said to be beyond chance is."""
    dense, model = Dense("llama"), harness.load_model(*families.build("llama"))
    chance = compositions(model, [Head(1, 3), Head(0, 1)], DRAWS, 0).chance.numpy()
    first, second = dense.layers
    rng, found = np.random.default_rng(0), np.zeros((2, 3, DRAWS))
    for draw in range(DRAWS):
        turns = np.linalg.qr(rng.standard_normal((4, dense.d, dense.d)))[0]
        for at, circuit in enumerate("qkv"):
            reads, sends = first["v"], second[circuit]
            read = size(reads @ turns @ sends[3]) / size(reads) / size(sends[3])
            sent = size(reads[1] @ turns @ sends) / size(reads[1]) / size(sends)
            found[:, at, draw] = read.max(), sent.max()
    mine, rotated = (np.array([each[0, 0], each[1, 1]]) for each in (chance, np.stack([found] * 2)))
    np.testing.assert_allclose(mine.mean(axis=-1), rotated.mean(axis=-1), rtol=0.06)
    assert (chance[0, 1] == 0).all()  # nothing comes after the last layer


def test_the_planted_induction_head_reads_the_previous_token_head_by_its_key():
    """And nothing else: the circuit, read off the weights."""
    model = harness.load_model("planted")
    (before,), (induction,) = model.truth["previous_token"], model.truth["induction"]
    score, chance = compositions(model, [before, induction], DRAWS, 0)
    beyond = (score > chance.amax(dim=-1)[..., None, None]).numpy()
    assert {tuple(map(int, at)) for at in np.argwhere(beyond)} == {(0, 1, 1, *induction[:2]), (1, 0, 1, *before[:2])}


@pytest.mark.smollm2
def test_an_induction_head_of_smollm2_reads_a_previous_token_head_by_its_key(smollm2):
    score, chance = compositions(smollm2, [Head(18, 6)], 19, 0)
    by_key = score[0, 0, 1]
    assert by_key[16, 0] > 2.5 * chance[0, 0, 1].max()
    assert int((by_key.nan_to_num() >= by_key[16, 0]).sum()) <= 3


@pytest.mark.parametrize("family", FOLDED)
def test_ov_circuits_are_those_of_dense_matrices(family):
    dense, model = Dense(family), harness.load_model(*families.build(family))
    heads = [Head(0, 2), Head(1, 1)]
    got = ov_circuits(model, heads)
    centred = dense.unembed - dense.unembed.mean(axis=0)
    embed = dense.embed - dense.embed.mean(axis=1, keepdims=True) if family == "gpt2" else dense.embed
    embed = embed / np.linalg.norm(embed, axis=1, keepdims=True).clip(1e-20)
    for at, head in enumerate(heads):
        circuit = dense.layers[head.layer]["v"][head.head]
        u, values, w = np.linalg.svd(circuit)
        np.testing.assert_allclose(got.singular[at], values[: len(got.singular[at])], rtol=1e-4)
        whole = np.linalg.eigvals(circuit @ dense.final @ centred.T @ dense.embed)
        whole = whole[np.argsort(-abs(whole))][: len(got.singular[at])]  # the others are 0 but for rounding
        assert float(got.copying[at]) == pytest.approx(whole.sum().real / abs(whole).sum(), abs=1e-4)
        for number in range(4):
            read, written = embed @ u[:, number], dense.unembed @ dense.final.T @ w[number]
            sign = np.sign(read[abs(read).argmax()])
            for side, way in enumerate((sign, -sign)):
                tokens = got.token[at, number, side].numpy()
                for mine, along in zip(tokens, (way * read, way * written), strict=True):
                    np.testing.assert_allclose(along[mine], np.sort(along)[::-1][:5], rtol=1e-4, atol=1e-6)


def test_a_head_that_adds_what_it_reads_copies():
    """The score is 1 where W_V W_O gives back what W_E and W_U share, and −1 with the other sign."""
    plain, tokenizer = families.build("gpt2")
    attention, n = plain.transformer.h[0].attn, plain.config.hidden_size // plain.config.num_attention_heads
    width = plain.config.hidden_size
    value = attention.c_attn.weight.data[:, 2 * width :]
    for head, sign in enumerate((1.0, -1.0)):
        attention.c_proj.weight.data[head * n : (head + 1) * n] = sign * value[:, head * n : (head + 1) * n].T
    plain.transformer.ln_f.weight.data[:] = plain.transformer.h[0].ln_1.weight.data[:] = 1.0
    score = ov_circuits(harness.load_model(plain, tokenizer), [Head(0, 0), Head(0, 1)]).copying
    np.testing.assert_allclose(score, [1, -1], atol=0.02)


@pytest.mark.parametrize("family", ["bitnet", "falcon_h1", "qwen3", "gpt_bigcode", "opt"])
def test_families_whose_heads_are_no_such_matrices_are_left_out(family):
    model = harness.load_model(*families.build(family))
    prompts = harness.load_prompts(["a drink to"], model, answer=" Mary", distractor=" John")
    assert why_no_circuits(model, prompts) == ("" if family != "bitnet" else model.no_mixing)


def test_projections_that_are_not_the_models_are_left_out(monkeypatch):
    model = harness.load_model(*families.build("llama"))
    prompts = harness.load_prompts(["a drink to"], model, answer=" Mary", distractor=" John")
    monkeypatch.setattr("harness.hooks.weights.norm_of_read", lambda *_: None)
    assert why_no_circuits(model, prompts) == "the q of L0 of in memory is not a projection of its stream"
