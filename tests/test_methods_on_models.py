"""Each attribution method on real SmolLM2 and MiniLM activations, against numpy on what plain Hugging Face gives."""

from dataclasses import dataclass, replace

import captum.attr
import networkx
import numpy as np
import pytest
import torch
from scipy.integrate import simpson
from thinned import most

import harness
from harness.attribution import gradients, integrated
from harness.attribution.example import clean_values, example_of, limit_targets
from harness.attribution.forward_cache import ForwardCache
from harness.attribution.methods import METHODS, choose_methods, score_methods
from harness.attribution.occlusion import mean_embedding
from harness.config import AttributionSpec, RequestError, RolloutSpec
from harness.models import sources

STEPS = 6
SPEC = AttributionSpec(ig_steps=STEPS, rollout=RolloutSpec(head_fusion="max"))


@dataclass
class Plain:
    """One text through a plain Hugging Face model: all in numpy, one row, [layer, head, query, key] and the like."""

    twin: torch.nn.Module
    ids: torch.Tensor
    pattern: np.ndarray
    hidden: np.ndarray
    right: int = -1

    def loss(self, vectors):
        """What is explained: the loss of the next token, or minus the vector's length along its clean direction."""
        if self.right >= 0:
            return -self.twin(inputs_embeds=vectors).logits[:, -1].log_softmax(-1)[:, self.right]
        clean = torch.as_tensor(self.hidden[-1]).float().mean(0)
        return -self.twin(inputs_embeds=vectors).last_hidden_state.mean(1) @ (clean / clean.norm())

    @property
    def embedded(self):
        return self.twin.get_input_embeddings()(self.ids).detach()

    def slope(self, vectors):
        leaf = vectors.clone().requires_grad_(True)
        return torch.autograd.grad(self.loss(leaf).sum(), leaf)[0].double().numpy()[0]

    def read(self, matrix):
        """The row of what is explained."""
        return matrix[-1] if self.right >= 0 else matrix.mean(0)


def plainly(twin, ids, right=-1):
    given = torch.as_tensor(ids)[None]
    with torch.no_grad():
        out = twin(given, output_attentions=True, output_hidden_states=True)
    pattern = np.stack([layer[0].double().numpy() for layer in out.attentions])
    return Plain(twin, given, pattern, np.stack([h[0].double().numpy() for h in out.hidden_states]), right)


@pytest.fixture(scope="module")
def smol(smollm2):
    from transformers import AutoModelForCausalLM

    twin = AutoModelForCausalLM.from_pretrained(sources.local_folder(smollm2.spec), attn_implementation="eager").eval()
    twin.requires_grad_(False)
    prompts = harness.load_prompts("ioi", smollm2, n=1)
    example = example_of(smollm2, prompts)
    right = int(prompts.correct[0, prompts.length[0] - 1])
    return ForwardCache(example, SPEC, mean_embedding(smollm2)), plainly(twin, prompts.token_id[0], right)


@pytest.fixture(scope="module")
def mini():
    from transformers import AutoModel

    model = harness.load_model("minilm")
    twin = AutoModel.from_pretrained(sources.local_folder(model.spec), attn_implementation="eager").eval()
    twin.requires_grad_(False)
    prompts = harness.load_prompts("inline", model, text=["The dog chased the cat across the garden."])
    return ForwardCache(example_of(model, prompts), SPEC, mean_embedding(model)), plainly(twin, prompts.token_id[0])


@pytest.fixture(params=most(["mini", "smol"], 1))
def both(request):
    return request.getfixturevalue(request.param)


def mixed(pattern, residual=0.5):
    return residual * np.eye(pattern.shape[-1]) + (1 - residual) * pattern


def product(steps):
    rolled = np.eye(steps.shape[-1])
    for step in steps:
        rolled = step @ rolled
    return rolled


def normalised(matrix):
    return matrix / matrix.sum(-1, keepdims=True)


def one(name, evidence):
    return METHODS[name](evidence)[0]


def test_raw_attention(both):
    evidence, made = both
    np.testing.assert_allclose(one("attention_mean", evidence), made.read(made.pattern.mean((0, 1))), atol=1e-5)
    np.testing.assert_allclose(one("attention_last", evidence), made.read(made.pattern[-1].mean(0)), atol=1e-5)
    chosen = choose_methods(("attention_L3", "attention_L3H2"), evidence.example.model)
    got = [method(evidence)[0] for method in chosen.values()]
    want = [made.read(made.pattern[3].mean(0)), made.read(made.pattern[3, 2])]
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_rollout_with_the_options_asked_for(both):
    evidence, made = both
    want = made.read(product(mixed(normalised(made.pattern.max(1)))))
    np.testing.assert_allclose(one("rollout", evidence), want, rtol=1e-3, atol=1e-7)
    assert one("rollout", evidence).sum() == pytest.approx(1)


def test_rollout_without_a_residual_stream(both):
    evidence, made = both
    want = made.read(product(made.pattern.mean(1)))
    np.testing.assert_allclose(one("rollout_plain", evidence), want, rtol=2e-3, atol=1e-7)


def test_rollout_against_even_attention(both):
    evidence, made = both
    n, layers = made.pattern.shape[-1], len(made.pattern)
    allowed = np.tril(np.ones((n, n))) if made.right >= 0 else np.ones((n, n))
    even = product(np.stack([mixed(normalised(allowed))] * layers))
    want = product(mixed(made.pattern.mean(1))) / np.where(even > 0, even, 1)
    np.testing.assert_allclose(one("rollout_uniform", evidence), made.read(want), rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("both", [pytest.param("smol", marks=pytest.mark.soak), "mini"], indirect=True)
def test_rollout_by_effects(both):
    """The weights are those of the sweep's own zero-ablation."""
    evidence, made = both
    example = evidence.example
    swept = harness.ablate_heads(example.model, example.prompt, metrics=[example.metric.name]).data
    helps = swept.effect.values[0, 0]
    np.testing.assert_allclose(evidence.helps[0], helps, atol=1e-4)
    weight = np.clip(helps, 0, None)
    fused = np.einsum("lh,lhqk->lqk", weight, made.pattern) / weight.sum(1)[:, None, None]
    np.testing.assert_allclose(one("rollout_effect", evidence), made.read(product(mixed(fused))), rtol=0.02, atol=1e-4)


def test_flow(both):
    """networkx on the same graph, to the tokens with the most and the least."""
    evidence, made = both
    steps = mixed(normalised(made.pattern.max(1)))
    graph = networkx.DiGraph()
    for layer, query, key in np.argwhere(steps > 1e-6):
        graph.add_edge((layer + 1, query), (layer, key), capacity=float(steps[layer, query, key]))
    n, top = steps.shape[-1], (len(steps), steps.shape[-1] - 1)
    if made.right < 0:
        top = "pool"
        for query in range(n):
            graph.add_edge("pool", (len(steps), query), capacity=1 / n)
    got = one("flow", evidence)
    for key in {0, int(got.argmin()), int(got.argsort()[n // 2])}:
        want = networkx.maximum_flow_value(graph, top, (0, key))
        assert got[key] == pytest.approx(want, abs=2e-4)


def written(made):
    """From plain weights: x before each attention, what each key adds to each query, and x after it."""
    smol = made.right >= 0
    for layer, x in enumerate(made.hidden[:-1]):
        block = made.twin.model.layers[layer] if smol else made.twin.encoder.layer[layer]
        own = block.self_attn if smol else block.attention.self
        v, o = (own.v_proj, own.o_proj) if smol else (own.value, block.attention.output.dense)
        read = x
        if smol:
            gamma, eps = block.input_layernorm.weight.double().numpy(), block.input_layernorm.variance_epsilon
            read = gamma * x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)
        values = read @ v.weight.double().numpy().T + (0 if v.bias is None else v.bias.double().numpy())
        heads, d = made.pattern.shape[1], 64 if smol else 32
        out = o.weight.double().numpy()
        share = heads * d // values.shape[1]
        terms = sum(
            made.pattern[layer, head][:, :, None]
            * (values[:, (head // share) * d :][:, :d] @ out[:, head * d :][:, :d].T)[None]
            for head in range(heads)
        )
        bias = 0 if o.bias is None else o.bias.double().numpy()
        yield x, terms, bias, None if smol else block.attention.output.LayerNorm


def test_value_weighted_norms(both):
    evidence, made = both
    each = [normalised(np.linalg.norm(terms, axis=-1)) for _, terms, _, _ in written(made)]
    np.testing.assert_allclose(one("norms", evidence), made.read(np.mean(each, 0)), rtol=1e-3, atol=1e-5)


def test_alti(both):
    """T_ij = Σ_h A_ij W_O^h W_V^g(h) (γ ⊙ x_j / rms x_j) + [i = j] x_i; behind BERT's norm, linear at its own scale."""
    evidence, made = both
    steps = []
    for x, terms, bias, norm in written(made):
        items = terms + np.eye(len(x))[:, :, None] * x[:, None]
        whole = items.sum(1) + bias
        if norm is not None:
            gamma, beta = norm.weight.detach().double().numpy(), norm.bias.detach().double().numpy()
            scale = np.sqrt(whole.var(-1) + norm.eps)[:, None]
            items = gamma * (items - items.mean(-1, keepdims=True)) / scale[:, None]
            whole = gamma * (whole - whole.mean(-1, keepdims=True)) / scale + beta
        near = np.abs(whole).sum(-1)[:, None] - np.abs(whole[:, None] - items).sum(-1)
        steps.append(normalised(np.clip(near, 0, None)))
    np.testing.assert_allclose(one("alti", evidence), made.read(product(np.stack(steps))), rtol=5e-3, atol=1e-4)


def test_gradients(both):
    evidence, made = both
    slope, vectors = made.slope(made.embedded), made.embedded.double().numpy()[0]
    scale = np.linalg.norm(slope, axis=-1)
    np.testing.assert_allclose(one("gradient", evidence), scale, rtol=5e-3)
    np.testing.assert_allclose(one("gradient_input", evidence), -(slope * vectors).sum(-1), atol=5e-3 * scale.max())


def from_mean(made):
    """The mean embedding of the plain model, and the embeddings."""
    x, table = made.embedded, made.twin.get_input_embeddings()
    return table(torch.arange(table.num_embeddings)).mean(0).detach().expand_as(x), x


@pytest.mark.parametrize("both", [pytest.param("smol", marks=pytest.mark.soak), "mini"], indirect=True)
def test_integrated_gradients_point_by_point(both, monkeypatch):
    """The plain model's slopes at the same points of the way, under scipy's Simpson rule."""
    monkeypatch.setattr(integrated, "MAX_REFINEMENT", 3)
    evidence, made = both
    base, x = from_mean(made)
    at = integrated._refined_path(evidence.example, mean_embedding(evidence.example.model), STEPS).at
    assert len(at) > STEPS + 1
    assert len(set(np.diff(at).round(6))) > 1  # finer where it is rough
    slopes = np.stack([made.slope(base + point * (x - base)) for point in at])
    want = -(simpson(slopes, x=at, axis=0) * (x - base).double().numpy()[0]).sum(-1)
    got = evidence.integrated
    np.testing.assert_allclose(got.scores[0], want, rtol=0.02, atol=0.02 * np.abs(want).max())
    with torch.no_grad():
        lost = float(made.loss(base) - made.loss(x))
    assert got.error[0] == pytest.approx(abs(want.sum() - lost), rel=0.05, abs=0.05)


def test_gradients_as_captum_has_them(mini):
    """The same three methods by another library, on the plain model of a text whose way is smooth."""
    evidence, made = mini
    base, x = from_mean(made)
    x.requires_grad_(True)
    helped = {
        "gradient_input": captum.attr.InputXGradient(made.loss).attribute(x),
        "integrated_gradients": captum.attr.IntegratedGradients(made.loss).attribute(x, base, n_steps=96),
    }
    for name, found in helped.items():
        want = -found.detach().double().sum(-1).numpy()[0]
        np.testing.assert_allclose(one(name, fine(evidence)), want, atol=2e-3 * np.abs(want).max())
    slope = captum.attr.Saliency(made.loss).attribute(x, abs=False).double().norm(dim=-1).numpy()[0]
    np.testing.assert_allclose(one("gradient", evidence), slope, rtol=1e-3)


def fine(evidence):
    return ForwardCache(evidence.example, replace(SPEC, ig_steps=64), evidence.baseline)


def test_gradient_weighted_rollout(both):
    """The gradients of the plain model's own weights."""
    evidence, made = both
    leaf = made.embedded.requires_grad_(True)
    out = made.twin(inputs_embeds=leaf, output_attentions=True)
    if made.right >= 0:
        loss = -out.logits[0, -1].log_softmax(-1)[made.right]
    else:
        clean = torch.as_tensor(made.hidden[-1]).float().mean(0)
        loss = -out.last_hidden_state[0].mean(0) @ (clean / clean.norm())
    slopes = [-each[0].double().numpy() for each in torch.autograd.grad(loss, out.attentions)]
    relevance = np.eye(made.pattern.shape[-1])
    for weights, slope in zip(made.pattern, slopes, strict=True):
        relevance = relevance + np.clip(weights * slope, 0, None).mean(0) @ relevance
    np.testing.assert_allclose(one("rollout_gradient", evidence), made.read(relevance), rtol=5e-3, atol=1e-4)


# --- identities -------------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_integrated_gradients_are_complete_on_a_deep_model(smollm2):
    """SmolLM2 loses nats within a thousandth of the way from the mean embedding; even steps miss that by nats."""
    example = example_of(smollm2, harness.load_prompts("ioi", smollm2, n=1))
    base = mean_embedding(smollm2)
    way = integrated._refined_path(example, base, 16)
    whole = way.explained[0] - way.explained[-1]
    assert whole > 5
    assert abs(-integrated._by_panel(way).sum() - whole) < 0.05 * whole
    even = integrated._evaluate(example, base, np.linspace(0, 1, 33))
    assert abs(-integrated._by_panel(even).sum() - whole) > 0.2 * whole


def test_integrated_gradients_are_complete():
    model = harness.load_model("minilm")
    example = example_of(model, harness.load_prompts("inline", model, text=["The dog chased the cat."]))
    found = integrated.integrated_gradients(example, mean_embedding(model), 64)
    assert found.error.max() < 1e-3
    assert found.scores.sum() > 1


@pytest.mark.parametrize("shape", ["gpt2", "llama", "bert", "bert_classifier"])
def test_integrated_gradients_are_complete_on_every_kind(tiny, shape):
    model = tiny(shape)
    given = {"answer": ["neutral"]} if shape == "bert_classifier" else {}
    prompts = harness.load_prompts("inline", model, text=["When Mary and John went to the store"], **given)
    example = example_of(model, limit_targets(prompts, 3))
    found = integrated.integrated_gradients(example, mean_embedding(model), 128)
    assert found.error.max() < 1e-3
    assert np.abs(found.scores).max() > 1e-2


def linear_model(folder):
    """A bare BERT of one layer that is linear: LayerNorms so wide that they only centre, even attention, no MLP."""
    import transformers

    from harness.models.random import byte_tokenizer

    wide, tokenizer = 1e8, byte_tokenizer("linear", like="bert")
    settings = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=8,
        layer_norm_eps=wide**2, architectures=["BertModel"],
    )  # fmt: skip
    twin = transformers.BertModel(settings, add_pooling_layer=False).requires_grad_(False)
    draw = torch.Generator().manual_seed(0)
    for name, parameter in twin.named_parameters():
        if "LayerNorm.weight" in name:
            parameter.fill_(wide)
        elif any(part in name for part in ("query", "key", "0.output.dense", "LayerNorm.bias")):
            parameter.zero_()
        else:
            parameter.normal_(generator=draw)
    twin.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return harness.load_model("path", path=str(folder))


def test_on_a_linear_one_layer_model_the_gradient_is_the_cause(tmp_path):
    """Putting zero in a token's place costs exactly gradient × embedding, whichever token."""
    model = linear_model(tmp_path)
    example = example_of(model, harness.load_prompts("inline", model, text=["Mary went to the store"]))
    given = gradients.target_rows(example)
    start = gradients.embedded(model, given)
    found = gradients.slopes(example, given, start)
    helped = gradients.gradient_times_input(found, start, example)[0]
    for node in range(len(example.nodes)):
        without = start[""].clone()
        without[:, node] = 0
        lost = gradients.slopes(example, given, {"": without}).explained - found.explained
        assert helped[node] == pytest.approx(float(lost), rel=1e-3, abs=1e-3)
    assert np.abs(helped).max() > 0.1
    assert integrated.integrated_gradients(example, mean_embedding(model), 1).error[0] < 1e-3


# --- every kind of model ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["llama", "gemma3", "neox", "bert", "bert_classifier", "t5"])
def test_every_method_scores_what_a_target_can_see_and_nothing_else(tiny, shape):
    model = tiny(shape)
    given = {"t5": {"target": ["a drink to John"]}, "bert_classifier": {"answer": ["neutral"]}}.get(shape, {})
    prompts = harness.load_prompts("inline", model, text=["When Mary and John went to the store"], **given)
    evidence = ForwardCache(
        example_of(model, limit_targets(prompts, 2)), replace(SPEC, ig_steps=2), mean_embedding(model)
    )
    methods = dict(METHODS)
    if shape in ("gemma3", "neox"):
        with pytest.raises(RequestError, match="attribution.methods=alti: the terms of random's attention do not sum"):
            methods.pop("alti")(evidence)
    got = score_methods(evidence, methods)
    assert (np.isfinite(got) == evidence.example.visible).all()
    if shape == "t5":
        assert (np.abs(got[:, :, : evidence.nodes.source]).sum(-1) > 0).all()
    for name in ("attention_mean", "rollout", "rollout_plain", "rollout_effect", "norms"):
        np.testing.assert_allclose(np.nansum(got[list(methods).index(name)], -1), 1, atol=1e-6)


def test_the_terms_of_an_attention_sum_to_what_it_writes(tiny):
    """z through W_O plus its bias is the attention's output, for all heads together and key by key."""
    from harness.attribution.activations import by_attention
    from harness.attribution.norms import terms
    from harness.attribution.ov_contributions import streams, through_output

    model = tiny("gpt2")
    example = example_of(model, harness.load_prompts("inline", model, text=["Mary went to the store"]))
    pattern, value = by_attention(example, ("pattern", "v"))
    for site, stream in streams(example).items():
        added = terms(pattern[site][0], through_output(example, site, value[site])[0]).sum(1)
        want = (stream.after - stream.before)[0].double().numpy() - stream.bias.double().numpy()
        np.testing.assert_allclose(added, want, atol=1e-5)


def test_a_method_that_is_none_is_refused(tiny):
    with pytest.raises(RequestError, match="attribution.methods=roolout: did you mean 'rollout'"):
        choose_methods(("roolout",), tiny("llama"))
    with pytest.raises(RequestError, match="attribution.methods=attention_L7: L7 is outside random: it has layers 0-2"):
        choose_methods(("attention_L7",), tiny("llama"))
    with pytest.raises(RequestError, match="the decoder's tokens are not in the encoder's heads"):
        choose_methods(("attention_encoder.L0H1",), tiny("t5"))


def test_the_clean_loss_is_what_the_sweep_measures(tiny):
    model = tiny("llama")
    example = example_of(model, harness.load_prompts("ioi", model, n=1))
    swept = harness.ablate_heads(model, example.prompt, metrics=["loss"], heads=["L0H0"]).data
    assert clean_values(example)[0] == pytest.approx(float(swept.clean[0, 0]), abs=1e-5)
