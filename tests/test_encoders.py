"""BERT-style encoders: masked-LM and sentence encoders against plain Hugging Face forwards."""

import json

import numpy as np
import plain
import pytest
import torch

import harness
from harness import ablation as ablations
from harness import config, hooks
from harness.attribution.context.stage import TraceStage
from harness.config import RequestError
from harness.metrics import METRICS
from harness.models import random as random_models
from harness.models import sources
from harness.prompts import masked
from harness.sweep import SweepStage, groups
from harness.sweep.attribution_patching import ScreenStage

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
    got = harness.ablate_heads(bert, prompts, metrics=NAMES, heads=heads).data
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
    got = harness.ablate_heads(bert, prompts, heads=["L0H0"]).data
    assert got.metric.values.tolist() == ["loss", "logit_diff"]


def test_an_answer_without_a_mask_is_refused(bert):
    with pytest.raises(RequestError, match=r"write \[MASK\] once, where the answer should stand"):
        harness.load_prompts("inline", bert, text=["John gave"], answer=[" Mary"])


def test_without_an_ablation_the_numbers_are_the_clean_runs_bit_for_bit(bert):
    prompts = harness.load_prompts("inline", bert, text=TEXTS)
    got = harness.ablate_heads(bert, prompts, ablation=lambda z, head: z, metrics=NAMES).data
    assert (got.effect.values == 0).all()


def test_patterns_look_both_ways(bert, twin):
    prompts = harness.load_prompts("inline", bert, text=TEXTS, pair=PAIRS)
    pattern = harness.cache_attention(bert, prompts).data.pattern.values
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
    got = harness.ablate_heads(minilm, prompts, heads=heads).data
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


@pytest.mark.covering(1)
@pytest.mark.parametrize("ablation", ["zero", "mean", "resample"])
@pytest.mark.parametrize("positions", ["all", "target", "each", [1]])
def test_a_prompts_rows_run_in_groups_and_the_numbers_stay(bert, ablation, positions):
    prompts = harness.load_prompts("inline", bert, text=TEXTS[:2])
    made, _ = ablations.build(ablation, bert, prompts)
    where = positions if isinstance(positions, str) else tuple(positions)
    stage = SweepStage(bert, prompts, groups(bert, ["L0", "L2H1"]), (METRICS["loss"], METRICS["kl"]), made, where)
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
    plans = {gb: SweepStage(bert, prompts, groups(bert), (METRICS["loss"],), memory=gb).plan() for gb in (1.0, 0.001)}
    assert plans[1.0]["rows"] == [n]
    assert plans[0.001]["rows"][0] < n / 2

    def look(_, args, out):  # at texts; the model's head reads one token a row, with its blocks passed over
        seen.extend([len(args[0])] if args[0].shape[1] > 1 else [])

    handle = hooks.blocks(bert.bridge)[0].register_forward_hook(look)
    try:
        tight = harness.ablate_heads(bert, prompts, metrics=["loss"], heads=["L1H0"], memory=0.001).data
        assert max(seen) <= plans[0.001]["rows"][0]
    finally:
        handle.remove()
    ample = harness.ablate_heads(bert, prompts, metrics=["loss"], heads=["L1H0"]).data
    np.testing.assert_allclose(tight.effect, ample.effect, atol=1e-5)


def test_a_screen_of_many_rows_runs_in_groups(bert):
    prompts = harness.load_prompts("inline", bert, text=TEXTS[:2])
    stage = ScreenStage(SweepStage(bert, prompts, groups(bert), (METRICS["loss"], METRICS["kl"])), steps=2)
    plan = stage.plan()
    whole, cut = (stage.compute(plan | {"rows": [rows] * len(plan["rows"])}, 0) for rows in (1000, 4))
    assert np.abs(whole["estimate"][0]).max() > 1e-3
    for name in whole:
        np.testing.assert_allclose(cut[name], whole[name], atol=1e-5)


# --- pooling ----------------------------------------------------------------------------------------------------

LONG, SHORT = "John gave a drink to Mary", "the store"
#: What a pooling config turns on, and the vector of one text's last hidden states [position, d_model] by hand.
POOLED = {
    "cls_token": lambda h: h[0],
    "mean_tokens": lambda h: h.sum(0) / len(h),
    "max_tokens": lambda h: np.max(h, axis=0),
    "mean_sqrt_len_tokens": lambda h: h.sum(0) / len(h) ** 0.5,
    "weightedmean_tokens": lambda h: sum((at + 1) * row for at, row in enumerate(h)) / sum(range(len(h) + 1)),
    "lasttoken": lambda h: h[-1],
}


@pytest.fixture(scope="module")
def sentence_encoder(tmp_path_factory):
    """A tiny random sentence encoder: its folder as sentence-transformers saves it, and the plain model."""
    import transformers

    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = random_models.byte_tokenizer("local-encoder", "bert")
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    torch.manual_seed(0)
    settings = transformers.BertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=64, attn_implementation="eager", **sizes
    )
    twin = transformers.BertModel(settings, add_pooling_layer=False).eval()
    with torch.no_grad():
        for weight in twin.parameters():
            if weight.ndim >= 2:
                weight.mul_(6)
    twin.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    return folder, twin


def pooling_by(folder, said, modules=("Transformer", "Pooling", "Normalize")):
    """Let the folder's files say how it pools."""
    listed = [
        {"type": f"sentence_transformers.models.{kind}", "path": f"{at}_{kind}"} for at, kind in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(said))
    return folder


def only(mode):
    return {f"pooling_mode_{each}": each == mode for each in POOLED}


def cosine_distance(first, second):
    return 1 - float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


@pytest.mark.parametrize("mode", POOLED)
def test_an_encoder_pools_as_its_own_files_say(sentence_encoder, mode):
    folder, twin = sentence_encoder
    model = harness.load_model("path", path=str(pooling_by(folder, only(mode))))
    assert model.identity["pooling"] == mode.removesuffix("_tokens").removesuffix("_token")
    assert "1_Pooling/config.json" in model.identity["weights"]
    prompts = harness.load_prompts("inline", model, text=[LONG, SHORT])
    got = harness.ablate_heads(model, prompts, heads=["L0H1", "L1H2"]).data.effect.values[0]
    causes = harness.compare_attributions(
        model, prompts.take([0]), methods=["attention_L1", "gradient"], causes=["delete", "occlude_mean", "knockout"]
    ).data
    delete = causes.cause.sel(cause_kind="delete").values[0, 0]

    def vector(token_id, heads=()):
        return POOLED[mode](plain.logits(twin, token_id, heads, 12).double().numpy())

    for row in range(2):
        token_id = prompts.token_id[row, : prompts.length[row]]
        for head in model.heads(["L0H1", "L1H2"]):
            want = cosine_distance(vector(token_id), vector(token_id, [head]))
            assert got[row, head.layer, head.head] == pytest.approx(want, abs=1e-5)
    token_id = prompts.token_id[0, : prompts.length[0]]
    for at in (0, 2, len(token_id) - 1):
        want = cosine_distance(vector(token_id), vector(np.delete(token_id, at)))
        assert delete[at] == pytest.approx(want, abs=1e-5)
    _check_shares(causes, twin, token_id, mode)


def _check_shares(data, twin, token_id, mode):
    """What is read of attention is what the tokens look at that the vector is pooled from."""
    with torch.no_grad():
        out = twin(torch.as_tensor(token_id)[None], output_attentions=True)
    hidden, n = out.last_hidden_state[0].numpy(), len(token_id)
    share = {"cls_token": np.eye(n)[0], "lasttoken": np.eye(n)[-1]}.get(mode, np.full(n, 1 / n))
    if mode == "max_tokens":
        share = np.bincount(hidden.argmax(0), minlength=n) / hidden.shape[1]
    if mode == "weightedmean_tokens":
        share = np.arange(1, n + 1) / np.arange(1, n + 1).sum()
    want = share @ out.attentions[1][0].mean(0).numpy()
    np.testing.assert_allclose(data.attribution.sel(attribution_method="attention_L1").values[0, 0], want, atol=1e-5)
    np.testing.assert_allclose(data.vector_share.values[0], share, atol=1e-6)


@pytest.mark.parametrize(
    ("said", "modules", "says"),
    [
        ({"pooling_mode_cls_token": True}, ("Transformer", "Pooling"), "it pools by mean and cls; known is one of cls"),
        ({"pooling_mode": "attention"}, ("Transformer", "Pooling"), "it pools by attention; known is one of cls, mean"),
        (only("cls_token"), ("Transformer", "Pooling", "Dense"), "its modules.json has a Dense, which is not applied"),
        (only("cls_token"), ("Transformer", "Normalize", "Pooling"), "names 2_Pooling/config.json, which is not there"),
    ],
)
def test_pooling_that_cannot_be_measured_is_refused_by_name(sentence_encoder, said, modules, says):
    folder = pooling_by(sentence_encoder[0], said, modules)
    with pytest.raises(RequestError, match=f"model=path: .*{says}"):
        harness.load_model("path", path=str(folder))


def test_without_a_pooling_config_the_mean_is_taken_and_the_manifest_says_so(sentence_encoder):
    folder = pooling_by(sentence_encoder[0], {"pooling_mode": "cls"})
    assert harness.load_model("path", path=str(folder)).pooling == "cls"
    for name in ("modules.json", "1_Pooling/config.json"):
        (folder / name).unlink()
    model = harness.load_model("path", path=str(folder))
    assert (model.pooling, model.identity["pooling"]) == ("mean", "mean (it has no 1_Pooling/config.json)")


def test_the_trace_of_a_vector_reads_the_tokens_that_it_is_pooled_from(sentence_encoder):
    folder, twin = sentence_encoder
    model = harness.load_model("path", path=str(pooling_by(folder, only("cls_token"))))
    prompts = harness.load_prompts("inline", model, text=[LONG], words={"name": ["John", "Mary"]})
    stage = TraceStage(model, prompts, config.TraceSpec(causes=("delete",)), model.heads())
    found = stage.compute(stage.plan(), 0)
    with torch.no_grad():
        attentions = twin(torch.as_tensor(prompts.token_id), output_attentions=True).attentions
    named = np.array([name == "name" for name in prompts.part[0]])
    want = np.stack([layer[0, :, 0].numpy()[:, named].sum(-1) for layer in attentions])
    np.testing.assert_allclose(found["attention"][0, 0, :, :, stage.parts.index("name")], want, atol=1e-5)
