"""The planted models are what they claim: plain Hugging Face forwards and hooks, none of the harness's own engine."""

import math
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import get_args

import numpy as np
import pytest
import torch
from thinned import seeds

from harness.config import RequestError
from harness.hooks import Head
from harness.models.planted import PlantedWeights, Variant, build

pytestmark = pytest.mark.filterwarnings("error")

SEEDS = range(20)
D_HEAD = 40
HEADS = [Head(layer, head) for layer in range(2) for head in range(6)]
Positions = slice | list[int]
EVERYWHERE = slice(None)
FLAT = math.log(40)  # the loss of a model that knows nothing


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Models this small only wait for each other's threads; what was measured is let go in the end."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    measure.cache_clear()


# --- measuring --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prompts:
    """[BOS] + r tokens + the same again, right-padded: ids, mask, target are [prompt, position], r is [prompt]."""

    ids: torch.Tensor
    mask: torch.Tensor
    target: torch.Tensor
    r: list[int]


def make_prompts(planted: PlantedWeights, seed: int, n: int = 5) -> Prompts:
    rng = np.random.default_rng(seed)
    low, high = planted.repeats
    r = rng.integers(low, high + 1, size=n).tolist()
    shape = (n, 1 + 2 * high)
    ids = np.full(shape, planted.bos)
    mask, target = np.zeros(shape, dtype=int), np.zeros(shape, dtype=bool)
    for row, length in enumerate(r):
        tokens = rng.permutation([token for token in range(planted.vocab_size) if token != planted.bos])[:length]
        ids[row, 1 : 1 + 2 * length] = np.tile(tokens, 2)
        mask[row, : 1 + 2 * length] = 1
        target[row, length + 2 : 2 * length + 1] = True
    return Prompts(torch.tensor(ids), torch.tensor(mask), torch.tensor(target), r)


def mean_loss(logits: torch.Tensor, prompts: Prompts) -> torch.Tensor:
    """Nats per target token of each prompt, [prompt]."""
    right = logits[:, :-1].log_softmax(-1).gather(-1, prompts.ids[:, 1:, None])[..., 0]
    scored = prompts.target[:, 1:]
    return -(right * scored).sum(1) / scored.sum(1)


@contextmanager
def zeroed(model, heads, positions: Positions = EVERYWHERE):
    """The heads' slices of what `c_proj` (W_O) reads are zero at these query positions."""

    def edit(head):
        def hook(module, args):
            z = args[0].clone()
            z[:, positions, head.head * D_HEAD : (head.head + 1) * D_HEAD] = 0
            return (z,)

        return hook

    handles = [model.transformer.h[h.layer].attn.c_proj.register_forward_pre_hook(edit(h)) for h in heads]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def loss(planted: PlantedWeights, prompts: Prompts, heads=(), positions: Positions = EVERYWHERE) -> torch.Tensor:
    with zeroed(planted.model, heads, positions):
        return mean_loss(planted.model(prompts.ids, attention_mask=prompts.mask).logits, prompts)


def role_scores(planted: PlantedWeights, prompts: Prompts) -> dict[str, dict[Head, float]]:
    """Mean weight at offset −1, at the token after the previous occurrence, at BOS, and at the query itself."""
    with torch.no_grad():
        layers = planted.model(prompts.ids, attention_mask=prompts.mask, output_attentions=True).attentions[:2]
    patterns = torch.stack([torch.cat([layer[row] for layer in layers]) for row in range(len(prompts.r))])
    sums: dict[str, torch.Tensor] = {role: torch.zeros(len(HEADS)) for role in ("previous", "induction", "bos", "self")}
    for pattern, r in zip(patterns, prompts.r, strict=True):
        every, second = torch.arange(1, 2 * r + 1), torch.arange(r + 1, 2 * r + 1)
        sums["previous"] += pattern[:, every, every - 1].mean(1)
        sums["induction"] += pattern[:, second, second - r + 1].mean(1)
        sums["bos"] += pattern[:, every, 0].mean(1)
        sums["self"] += pattern[:, every, every].mean(1)
    return {role: dict(zip(HEADS, (s / len(prompts.r)).tolist(), strict=True)) for role, s in sums.items()}


@dataclass(frozen=True)
class Measured:
    planted: PlantedWeights
    prompts: Prompts
    clean: torch.Tensor
    effect: dict[Head, torch.Tensor]

    @property
    def bystanders(self) -> list[Head]:
        important = {head for heads in self.planted.truth.values() for head in heads}
        return [head for head in HEADS if head not in important]

    def joint(self, heads, positions: Positions = EVERYWHERE) -> torch.Tensor:
        return loss(self.planted, self.prompts, heads, positions) - self.clean


@cache
def measure(seed: int, variant: Variant) -> Measured:
    planted = build(seed, variant)
    prompts = make_prompts(planted, seed)
    clean = loss(planted, prompts)
    return Measured(planted, prompts, clean, {h: loss(planted, prompts, [h]) - clean for h in HEADS})


def gradient_estimate(measured: Measured) -> dict[Head, float]:
    """First-order effect of zero-ablation, −z · ∂loss/∂z, mean over prompts."""
    kept = []

    def keep(module, args):
        z = args[0].detach().requires_grad_() if not kept else args[0]
        z.retain_grad()
        kept.append(z)
        return (z,)

    outputs = [measured.planted.model.get_submodule(f"transformer.h.{layer}.attn.c_proj") for layer in range(2)]
    handles = [output.register_forward_pre_hook(keep) for output in outputs]
    logits = measured.planted.model(measured.prompts.ids, attention_mask=measured.prompts.mask).logits
    for handle in handles:
        handle.remove()
    gradients = torch.autograd.grad(mean_loss(logits, measured.prompts).mean(), kept)
    per_layer = [(-z * g).unflatten(-1, (6, D_HEAD)).sum((0, 1, 3)) for z, g in zip(kept, gradients, strict=True)]
    return dict(zip(HEADS, torch.cat(per_layer).tolist(), strict=True))


# --- what every variant promises --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", seeds(20))
def test_sharp_two_heads_carry_everything_and_the_others_nothing(seed):
    m = measure(seed, "sharp")
    (previous,), (induction,) = m.planted.truth["previous_token"], m.planted.truth["induction"]
    assert m.clean.min() >= 0
    assert m.clean.max() < 1e-3
    # Nothing writes to the answer subspace: all logits are equal.
    torch.testing.assert_close(m.clean + m.effect[induction], torch.full_like(m.clean, FLAT), atol=2e-6, rtol=0)
    # The induction head looks everywhere alike, so what was seen is a little likelier.
    assert m.effect[previous].min() > 3
    assert all(torch.equal(m.effect[head], torch.zeros_like(m.clean)) for head in m.bystanders)


@pytest.mark.parametrize("seed", seeds(20))
def test_soft_has_small_effects_elsewhere_and_a_gradient(seed):
    m = measure(seed, "soft")
    planted = [*m.planted.truth["previous_token"], *m.planted.truth["induction"]]
    assert m.clean.min() > 0.2
    assert m.clean.max() < 0.5
    assert all(m.effect[head].min() > 3 for head in planted)
    # Well inside 5 % of the clean value, yet not zero.
    assert all(0 < m.effect[head].abs().max() < 0.01 for head in m.bystanders)
    assert all(m.effect[head].mean().abs() < 0.05 * m.clean.mean() / 5 for head in m.bystanders)
    estimate = gradient_estimate(m)
    assert sorted(HEADS, key=lambda head: -abs(estimate[head]))[:2] == sorted(planted, key=lambda head: -estimate[head])
    assert all(0.15 < estimate[head] / m.effect[head].mean() < 0.5 for head in planted)
    assert sum(estimate.values()) > 0.4 * m.joint(HEADS).mean()


@pytest.mark.parametrize("seed", seeds(20))
def test_redundant_shows_nothing_singly_and_all_jointly(seed):
    m = measure(seed, "redundant")
    truth = m.planted.truth
    assert set(truth["redundant"]) == set(truth["induction"])
    assert (len(truth["previous_token"]), len(truth["redundant"])) == (3, 2)
    assert m.clean.abs().max() < 1e-6
    assert all(effect.abs().max() < 1e-6 for effect in m.effect.values())
    torch.testing.assert_close(m.joint(truth["redundant"]), torch.full_like(m.clean, FLAT), atol=2e-6, rtol=0)
    assert m.joint(truth["previous_token"]).min() > 3
    others = [pair for pair in combinations(sorted({*truth["previous_token"], *truth["redundant"]}), 2)]
    assert all(m.joint(pair).abs().max() < 1e-6 for pair in others if set(pair) != set(truth["redundant"]))


def test_redundant_has_one_pair_of_all_66():
    m = measure(0, "redundant")
    effective = [list(pair) for pair in combinations(HEADS, 2) if m.joint(pair).abs().max() > 1e-6]
    assert effective == [m.planted.truth["redundant"]]


@pytest.mark.parametrize("seed", seeds(20))
def test_harmful_head_costs_loss(seed):
    m = measure(seed, "harmful")
    (harmful,) = m.planted.truth["harmful"]
    assert m.clean.min() > 0.8
    assert m.clean.max() < 1.3
    assert m.effect[harmful].max() < -0.5
    assert (m.clean + m.effect[harmful]).max() < 0.5
    assert all(m.effect[head].min() > 3 for role in ("previous_token", "induction") for head in m.planted.truth[role])
    assert all(m.effect[head].mean().abs() < 0.05 * m.clean.mean() / 2 for head in m.bystanders)


@pytest.mark.parametrize("seed", seeds(20))
def test_positional_head_matters_at_one_position(seed):
    m = measure(seed, "positional")
    (head,) = m.planted.truth["positional"]
    position = m.planted.position
    assert position is not None
    assert all(r + 1 <= position <= 2 * r - 1 for r in range(m.planted.repeats[0], m.planted.repeats[1] + 1))
    assert m.clean.min() >= 0
    assert m.clean.max() < 1e-3
    elsewhere = [p for p in range(m.prompts.ids.shape[1]) if p != position]
    assert m.joint([head], elsewhere).abs().max() < 1e-6
    torch.testing.assert_close(m.joint([head], [position]), m.effect[head], atol=1e-6, rtol=0)
    # All of it at one target token of r − 1.
    assert (m.effect[head] * (torch.tensor(m.prompts.r) - 1)).min() > 4
    assert all(torch.equal(m.effect[other], torch.zeros_like(m.clean)) for other in m.bystanders)


@pytest.mark.parametrize("seed", seeds(20))
@pytest.mark.parametrize("variant", get_args(Variant))
def test_patterns_tell_exactly_the_planted_heads(seed, variant):
    m = measure(seed, variant)
    scores = role_scores(m.planted, m.prompts)
    saturated = variant not in ("soft", "harmful")
    for role, name in (("previous", "previous_token"), ("induction", "induction")):
        for head in HEADS:
            score = scores[role][head]
            assert score > (0.999 if saturated else 0.8) if head in m.planted.truth[name] else score < 0.15
    # Uniform attention has 0.1 on both.
    assert max(scores["bos"].values()) < 0.25
    assert max(scores["self"].values()) < 0.25


# --- beyond the variants ----------------------------------------------------------------------------------------


def test_positional_effect_position_by_position():
    m = measure(5, "positional")
    (head,) = m.planted.truth["positional"]
    effects = [m.joint([head], [p]).mean().item() for p in range(m.prompts.ids.shape[1])]
    assert [p for p, effect in enumerate(effects) if abs(effect) > 1e-6] == [m.planted.position]


def test_sharp_has_no_gradient_to_speak_of():
    m = measure(5, "sharp")
    assert sum(map(abs, gradient_estimate(m).values())) < 0.01 * m.joint(HEADS).mean()


@pytest.mark.parametrize("variant", get_args(Variant))
def test_weights_are_finite_fp32_and_the_seeds_own(variant):
    before = torch.get_rng_state(), np.random.get_state(legacy=False)
    one, again, other = build(7, variant), build(7, variant), build(8, variant)
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_equal(np.random.get_state(legacy=False), before[1])
    assert one.truth == again.truth
    for name, parameter in one.model.named_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.isfinite().all()
        assert torch.equal(parameter, again.model.get_parameter(name))
    assert not torch.equal(one.model.lm_head.weight, other.model.lm_head.weight)
    assert not one.model.training
    assert one.model.config._attn_implementation == "eager"


def test_seeds_choose_different_heads():
    assert len({str(build(seed, "sharp").truth) for seed in SEEDS}) > 10


def test_contract_example():
    assert build(3, "sharp").truth == {"previous_token": [Head(0, 2)], "induction": [Head(1, 5)]}


@pytest.mark.parametrize("variant", get_args(Variant))
def test_embedded_tokens_have_one_norm_and_mean_zero(variant):
    model = build(4, variant).model
    embedded = model.transformer.wte.weight[:, None] + model.transformer.wpe.weight
    torch.testing.assert_close(embedded.norm(dim=-1), torch.full((40, 80), math.sqrt(240)), atol=1e-4, rtol=0)
    torch.testing.assert_close(embedded.mean(-1), torch.zeros(40, 80), atol=1e-6, rtol=0)


@pytest.mark.parametrize("variant", get_args(Variant))
def test_padding_and_company_change_nothing(variant):
    planted = build(2, variant)
    prompts = make_prompts(planted, 2)
    with torch.no_grad():
        batched = planted.model(prompts.ids, attention_mask=prompts.mask).logits
        for row, r in enumerate(prompts.r):
            alone = planted.model(prompts.ids[row : row + 1, : 1 + 2 * r]).logits[0]
            torch.testing.assert_close(batched[row, : 1 + 2 * r], alone, atol=1e-4, rtol=0)


def test_the_longest_text_works():
    planted = build(1, "sharp")
    tokens = np.random.default_rng(1).permutation(np.arange(1, 40))
    ids = torch.tensor([[planted.bos, *tokens, *tokens]])
    with torch.no_grad():
        logits = planted.model(ids).logits
    assert ids.shape[1] == planted.model.config.n_positions - 1
    assert torch.equal(logits[0, 40:78].argmax(-1), ids[0, 41:79])


def test_unknown_variant_says_what_there_is():
    with pytest.raises(RequestError) as error:
        build(0, "blunt")  # pyright: ignore[reportArgumentType]
    assert str(error.value) == "model.variant=blunt: use one of sharp, soft, redundant, harmful, positional, backup"


def test_import_costs_no_torch():
    code = "import sys, harness.models.planted; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- TransformerLens --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<bos>": 0, **{f"t{i}": i for i in range(1, 40)}}, unk_token="<bos>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<bos>",
        eos_token="<bos>",
        pad_token="<bos>",
        name_or_path="planted",
        add_bos_token=True,
    )


@pytest.mark.parametrize("variant", get_args(Variant))
def test_transformer_lens_sees_the_same_model(variant, tokenizer):
    from transformer_lens.model_bridge import TransformerBridge

    m = measure(6, variant)
    with torch.no_grad():
        plain = m.planted.model(m.prompts.ids, attention_mask=m.prompts.mask).logits
    bridge = TransformerBridge.boot_transformers("planted", hf_model=build(6, variant).model, tokenizer=tokenizer)

    @torch.no_grad()
    def run(hooks):
        return bridge.run_with_hooks(m.prompts.ids, attention_mask=m.prompts.mask, fwd_hooks=hooks)

    def edit(head):
        def zero(z, hook):
            z = z.clone()
            z[:, :, head.head] = 0
            return z

        return [(f"blocks.{head.layer}.attn.hook_z", zero)]

    real = m.prompts.mask.bool()
    torch.testing.assert_close(run([])[real], plain[real], atol=1e-5 * plain.abs().max().item(), rtol=0)
    for head in HEADS:
        effect = mean_loss(run(edit(head)), m.prompts) - m.clean
        torch.testing.assert_close(effect, m.effect[head], atol=1e-5, rtol=0)
