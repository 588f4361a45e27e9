"""BERT-style encoders: masked-LM and sentence encoders against plain Hugging Face forwards."""

import numpy as np
import plain
import pytest
import torch

import harness
from harness import ablation as ablations
from harness import hooks
from harness.config import RequestError
from harness.models import random as random_models
from harness.models import sources
from harness.prompts import masked
from harness.sweep import SweepStage, groups
from harness.sweep.screen import ScreenStage

pytestmark = pytest.mark.usefixtures("padded")

TEXTS = ("When Mary and John went to the store", "a drink to John", "Then the garden, and a flower")
PAIRS = ("John gave a drink", "the office", "Mary had a letter to the hotel")
NAMES = ("loss", "kl", "accuracy", "prob")


@pytest.fixture(scope="module")
def bert(tiny):
    return tiny("bert")


@pytest.fixture(scope="module")
def twin():
    made, *_ = random_models.build("bert", 0)
    return made.eval()


def by_masking(model, twin, prompts, row, heads):
    """Each metric of one prompt, by masking every scored position and the later pieces of its word, one at a time."""
    end = prompts.length[row]
    given = {"token_type_ids": torch.as_tensor(prompts.segment[row : row + 1, :end])}
    values = []
    for at in np.nonzero(prompts.target[row])[0]:
        token_id = prompts.token_id[row, :end].copy()
        token_id[[p for p in range(at, end) if prompts.word[row, p] == prompts.word[row, at]]] = model.tokens.mask_id
        clean = plain.logits(twin, token_id, **given)[at].double().log_softmax(-1)
        after = plain.logits(twin, token_id, heads, model.shape.d_head, **given)[at].double().log_softmax(-1)
        right = prompts.correct[row, at]
        kl = float((clean.exp() * (clean - after)).sum())
        values.append([-float(after[right]), kl, float(after.argmax() == right), float(after[right].exp())])
    return np.mean(values, axis=0)


@pytest.mark.parametrize("given", [{"text": TEXTS}, {"text": TEXTS, "pair": PAIRS}], ids=["single", "pair"])
def test_masked_lm_effects_equal_plain_hugging_face(bert, twin, given):
    prompts = harness.load_prompts("inline", bert, **given)
    heads = bert.heads()[::3]
    got = harness.ablate_heads(bert, prompts, metrics=NAMES, heads=heads)
    for row in range(3):
        clean = by_masking(bert, twin, prompts, row, ())
        np.testing.assert_allclose(got.clean[:, row], clean, atol=1e-4)
        for head in heads:
            want = by_masking(bert, twin, prompts, row, [head])
            np.testing.assert_allclose(got.ablated[:, row, head.layer, head.head], want, atol=1e-4)
    assert float(abs(got.effect.sel(metric="loss")).max()) > 0.01


def test_a_masked_row_hides_the_later_pieces_of_its_word_and_scores_one_token(bert):
    prompts = harness.load_prompts("inline", bert, text=["a drumstick to John"])
    rows, owner = masked(prompts, bert.tokens.mask_id)
    scored = np.nonzero(prompts.target[0])[0]
    assert len(rows) == len(scored) == prompts.target.sum()
    assert owner.tolist() == [0] * len(rows)
    for row, at in enumerate(scored):
        hidden = np.nonzero(rows.token_id[row] == bert.tokens.mask_id)[0]
        assert hidden.tolist() == [p for p in scored if p >= at and prompts.word[0, p] == prompts.word[0, at]]
        assert np.nonzero(rows.target[row])[0].tolist() == [at]
        assert rows.correct[row, at] == prompts.token_id[0, at]


def test_special_tokens_are_not_scored(bert):
    prompts = harness.load_prompts("inline", bert, text=TEXTS, pair=PAIRS)
    assert not (prompts.target & prompts.special).any()
    assert (prompts.target | prompts.special)[0, : prompts.length[0]].all()
    assert set(prompts.segment[0, : prompts.length[0]]) == {0, 1}


def test_an_answer_stands_at_the_mask(bert):
    prompts = harness.load_prompts("inline", bert, text=["John gave[MASK] to"], answer=[" Mary"], distractor=[" John"])
    at = int(np.nonzero(prompts.token_id[0] == bert.tokens.mask_id)[0][0])
    assert np.nonzero(prompts.target[0])[0].tolist() == [at]
    got = harness.ablate_heads(bert, prompts, heads=["L0H0"])
    assert got.metric.values.tolist() == ["loss", "logit_diff"]


def test_an_answer_without_a_mask_is_refused(bert):
    with pytest.raises(RequestError, match=r"write \[MASK\] once, where the answer should stand"):
        harness.load_prompts("inline", bert, text=["John gave"], answer=[" Mary"])


def test_without_an_ablation_the_numbers_are_the_clean_runs_bit_for_bit(bert):
    prompts = harness.load_prompts("inline", bert, text=TEXTS)
    got = harness.ablate_heads(bert, prompts, ablation=lambda z, head: z, metrics=NAMES)
    assert (got.effect.values == 0).all()


def test_patterns_look_both_ways(bert, twin):
    prompts = harness.load_prompts("inline", bert, text=TEXTS, pair=PAIRS)
    pattern = harness.cache_attention(bert, prompts).pattern.values
    end = prompts.length[1]
    with torch.no_grad():
        want = twin(
            torch.as_tensor(prompts.token_id[1:2, :end]),
            token_type_ids=torch.as_tensor(prompts.segment[1:2, :end]),
            output_attentions=True,
        ).attentions
    np.testing.assert_allclose(pattern[1, :, :, :end, :end], np.stack([w[0].numpy() for w in want]), atol=1e-5)
    assert np.triu(pattern[1, 0, 0, :end, :end], 1).sum() > 0.5


@pytest.mark.parametrize("prompts", ["ioi", "induction"])
def test_prompts_that_score_next_tokens_are_refused(bert, prompts):
    with pytest.raises(RequestError, match=f"prompts={prompts}: it scores next tokens, and random is an encoder"):
        harness.load_prompts(prompts, bert)


# --- a sentence encoder -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def minilm():
    return harness.load_model("minilm")


def test_minilm_effects_equal_plain_hugging_face(minilm):
    from transformers import AutoModel

    twin = AutoModel.from_pretrained(sources.local_folder(minilm.spec), attn_implementation="eager").eval()
    texts = ("The dog chased the cat across the garden.", "It rained.", "The experiment failed twice.")
    prompts = harness.load_prompts("inline", minilm, text=texts)
    heads = minilm.heads()[::17]
    got = harness.ablate_heads(minilm, prompts, heads=heads)
    assert got.metric.values.tolist() == ["embedding"]
    assert (got.clean.values == 0).all()
    for row in range(3):
        token_id = prompts.token_id[row, : prompts.length[row]]
        clean = plain.logits(twin, token_id).double().mean(0)
        for head in heads:
            after = plain.logits(twin, token_id, [head], 32).double().mean(0)
            want = 1 - float(clean @ after / clean.norm() / after.norm())
            assert float(got.effect[0, row, head.layer, head.head]) == pytest.approx(want, abs=1e-5)
    assert float(got.effect.max()) > 1e-3


@pytest.mark.parametrize("metric", ["loss", "kl", "accuracy"])
def test_a_metric_that_its_head_cannot_give_is_refused_with_what_it_can(minilm, metric):
    prompts = harness.load_prompts("inline", minilm, text=["It rained."])
    with pytest.raises(
        RequestError, match=f"metrics={metric}: it needs a model with a vocabulary; possible here: embedding"
    ):
        harness.ablate_heads(minilm, prompts, metrics=[metric])


def test_a_decoder_gives_no_embedding(tiny):
    with pytest.raises(RequestError, match="metrics=embedding: it needs a model that gives one vector per text"):
        harness.ablate_heads(tiny(), harness.load_prompts("ioi", tiny(), n=1), metrics=["embedding"])


# --- many rows for one prompt ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ablation", ["zero", "mean", "resample"])
@pytest.mark.parametrize("positions", ["all", "target", "each", [1]])
def test_a_prompts_rows_run_in_groups_and_the_numbers_stay(bert, ablation, positions):
    prompts = harness.load_prompts("inline", bert, text=TEXTS[:2])
    made, _ = ablations.build(ablation, bert, prompts)
    where = positions if isinstance(positions, str) else tuple(positions)
    stage = SweepStage(bert, prompts, groups(bert, ["L0", "L2H1"]), ("loss", "kl"), made, where)
    plan = stage.plan()
    for unit in range(len(plan["batches"])):
        whole = stage.compute(plan, unit)
        cut = stage.compute(plan | {"rows": [3] * len(plan["rows"])}, unit)
        assert cut.keys() == whole.keys()
        for name in whole.keys() - {"off", "fired"}:
            np.testing.assert_allclose(cut[name], whole[name], atol=1e-5)


def test_the_budget_decides_how_many_rows_run_together(bert):
    text = " ".join(TEXTS * 3)
    prompts = harness.load_prompts("inline", bert, text=[text])
    n, seen = int(prompts.target.sum()), []
    plans = {gb: SweepStage(bert, prompts, groups(bert), ("loss",), memory=gb).plan() for gb in (1.0, 0.001)}
    assert plans[1.0]["rows"] == [n]
    assert plans[0.001]["rows"][0] < n / 2
    handle = hooks.blocks(bert.bridge)[0].register_forward_hook(lambda _, args, out: seen.append(len(args[0])))
    try:
        tight = harness.ablate_heads(bert, prompts, metrics=["loss"], heads=["L1H0"], memory=0.001)
        assert max(seen) <= plans[0.001]["rows"][0]
    finally:
        handle.remove()
    ample = harness.ablate_heads(bert, prompts, metrics=["loss"], heads=["L1H0"])
    np.testing.assert_allclose(tight.effect, ample.effect, atol=1e-5)


def test_a_screen_of_many_rows_runs_in_groups(bert):
    prompts = harness.load_prompts("inline", bert, text=TEXTS[:2])
    stage = ScreenStage(SweepStage(bert, prompts, groups(bert), ("loss", "kl")), steps=2)
    plan = stage.plan()
    whole, cut = (stage.compute(plan | {"rows": [rows] * len(plan["rows"])}, 0) for rows in (1000, 4))
    assert np.abs(whole["estimate"][0]).max() > 1e-3
    for name in whole:
        np.testing.assert_allclose(cut[name], whole[name], atol=1e-5)
