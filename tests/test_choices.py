"""Items of a choice between completions, against plain Hugging Face forwards of each context with each completion."""

import json

import numpy as np
import plain
import pytest
import test_kinds
import torch
from scipy.stats import binomtest

import harness
from harness.config import RequestError
from harness.hooks import Head
from harness.metrics import METRICS
from harness.stats import summarize
from harness.sweep import stage as sweep_stage

ITEMS = [
    {"context": "When Mary and John went to the", "choices": ["store", "garden and a flower", "drink to"], "answer": 1},
    {"context": "Then Mary gave a drink to the", "choices": ["office", "the John"], "answer": "office"},
    {"context": "Mary went to", "choices": ["the store and", "John and", "a flower"], "answer": 2},
    {"context": "a flower", "choices": ["to Mary", "and"], "answer": 0},
]
NAMES = [name for name in METRICS if name.startswith("choice")]


def load(model, items=ITEMS, **keys):
    return harness.load_prompts("choices", model, items=items, **keys)


def rows(items, tokens):
    """Token ids of the context and of each completion of each item, for a tokenizer that never merges words."""
    for item in items:
        before = list(tokens(item["context"]))
        yield before, [list(tokens(f"{item['context']} {choice}"))[len(before) :] for choice in item["choices"]]


def number(item):
    return item["answer"] if isinstance(item["answer"], int) else item["choices"].index(item["answer"])


def scored(item, log_probs, n_tokens):
    """The choice metrics of an item from the log-probability of each completion, in the order of NAMES."""
    log_probs, right = np.asarray(log_probs, float), number(item)
    values = {}
    sizes = {"": 1, "_per_token": n_tokens, "_per_byte": [len(f" {choice}".encode()) for choice in item["choices"]]}
    for suffix, size in sizes.items():
        score = log_probs / np.asarray(size)
        values[f"choice_margin{suffix}"] = score[right] - np.delete(score, right).max()
        values[f"choice_accuracy{suffix}"] = float(score.argmax() == right)
    return [values[name] for name in NAMES]


def test_every_head_on_every_decoder_family_is_what_plain_forwards_give(family):
    """The completions share the run of their context; the plain forwards share nothing."""
    prompts, twin = load(family), plain.twin(family.spec.shape, family.spec.seed)
    got = harness.ablate_heads(family, prompts, metrics=[*NAMES, "loss"]).data
    edits = [((), None, None)] + [((head,), None, None) for head in family.heads()]
    for at, (item, (before, completions)) in enumerate(
        zip(ITEMS, rows(ITEMS, lambda text: family.tokens.encode(text).token_id), strict=True)
    ):
        each = []
        for added in completions:
            logits = plain.logits_each(twin, [*before, *added], edits, family.shape.d_head).double().log_softmax(-1)
            places = range(len(before) - 1, len(before) - 1 + len(added))
            each.append(sum(logits[:, place, token] for place, token in zip(places, added, strict=True)))
        log_probs = torch.stack(each, dim=1).numpy()
        sizes = [len(added) for added in completions]
        want = np.array([scored(item, row, sizes) for row in log_probs])
        np.testing.assert_allclose(got.clean[:-1, at], want[0], atol=1e-4)
        np.testing.assert_allclose(got.ablated[:-1, at].values.reshape(len(NAMES), -1).T, want[1:], atol=1e-4)
        loss = -log_probs[:, number(item)] / sizes[number(item)]
        np.testing.assert_allclose(got.ablated[-1, at].values.ravel(), loss[1:], atol=1e-4)
        np.testing.assert_allclose(got.choice_log_prob[at, : len(sizes)], log_probs[0], atol=1e-4)


@pytest.mark.parametrize("ablation", ["zero", "mean", {"name": "scale", "factor": 0.3}, "resample"])
def test_a_shared_context_changes_no_ablation(tiny, ablation, monkeypatch):
    model = tiny("gpt2")
    prompts, heads = load(model), ["L0H1", "L1", "L2H3"]
    got = harness.ablate_heads(model, prompts, ablation, metrics=[*NAMES, "kl"], heads=heads).data
    monkeypatch.setattr(sweep_stage, "shares_context", lambda *_: False)
    want = harness.ablate_heads(model, prompts, ablation, metrics=[*NAMES, "kl"], heads=heads).data
    for name in ("clean", "effect", "direct", "null_effect"):
        np.testing.assert_allclose(got[name], want[name], atol=2e-5)
    assert float(abs(got.effect).max()) > 1e-3


def test_a_masked_lm_scores_each_token_of_a_completion_in_turn():
    model = harness.load_model("random", shape="bert")
    prompts, twin = load(model, ITEMS[:2]), plain.twin("bert")
    head = Head(1, 2)
    got = harness.ablate_heads(model, prompts, metrics=NAMES, heads=[head]).data
    for at, item in enumerate(ITEMS[:2]):
        sums, sizes = [], []
        for choice in item["choices"]:
            whole = list(model.tokens.encode(f"{item['context']} {choice}").token_id)
            first = len(model.tokens.encode(item["context"]).token_id) - 1  # its [SEP]
            total = np.zeros(2)
            for place in range(first, len(whole) - 1):
                ids = [model.tokens.mask_id if other == place else token for other, token in enumerate(whole)]
                edits = [((), None, None), ((head,), None, None)]
                logits = plain.logits_each(twin, ids, edits, model.shape.d_head)
                total += logits.double().log_softmax(-1)[:, place, whole[place]].numpy()
            sums.append(total)
            sizes.append(len(whole) - 1 - first)
        clean, ablated = np.array(sums).T
        np.testing.assert_allclose(got.clean[:, at], scored(item, clean, sizes), atol=1e-4)
        np.testing.assert_allclose(got.ablated[:, at, 1, 2], scored(item, ablated, sizes), atol=1e-4)


def test_an_encoder_decoder_reads_the_context_and_writes_the_completion():
    model = harness.load_model("random", shape="t5")
    prompts, twin = load(model, ITEMS[:2]), plain.twin("t5")
    got = harness.ablate_heads(model, prompts, metrics=NAMES, heads=["cross.L1H2"]).data

    def without(place, z):
        if place == ("cross", 1):
            z[..., 2 * model.shape.d_head : 3 * model.shape.d_head] = 0
        return z

    for at, item in enumerate(ITEMS[:2]):
        read, sums, sizes = list(model.tokens.encode(item["context"]).token_id), [], []
        for choice in item["choices"]:
            added = list(model.tokens.encode(choice).token_id)[:-1]  # without its </s>
            given = {"input_ids": torch.tensor([read]), "decoder_input_ids": torch.tensor([[model.start_id, *added]])}
            both = [test_kinds.run(twin, given, edit)[0].logits[0] for edit in (None, without)]
            sums.append([sum(out.double().log_softmax(-1)[i, token] for i, token in enumerate(added)) for out in both])
            sizes.append(len(added))
        clean, ablated = np.array(sums, float).T
        np.testing.assert_allclose(got.clean[:, at], scored(item, clean, sizes), atol=1e-4)
        effect = got.effect.sel(stack="cross", layer=1, head=2)
        np.testing.assert_allclose(effect[:, at] + got.clean[:, at], scored(item, ablated, sizes), atol=1e-4)


def test_the_screen_differentiates_the_margin(tiny):
    """The estimate is the derivative along the way to ablation: a small step of scaling measures the same."""
    model, step = tiny("llama"), 1e-2
    prompts = load(model)
    names = ["choice_margin", "choice_margin_per_token"]
    estimate = harness.ablate_heads(model, prompts, metrics=names, method="screen").data.estimate
    scale = {"name": "scale", "factor": 1 - step}
    small = harness.ablate_heads(model, prompts, scale, metrics=names).data.effect / step
    np.testing.assert_allclose(estimate, small, atol=0.02 * float(abs(small).max()))


def test_the_sign_flip_of_paired_accuracy_is_mcnemars_exact_test():
    rng = np.random.default_rng(0)
    effect = rng.choice([-1.0, 0.0, 1.0], size=(11, 1, 3), p=[0.5, 0.35, 0.15])
    got = summarize(effect, [f"item {number}" for number in range(11)], higher_is_better=True, seed=0)
    for at in range(3):
        lost, won = (int((effect[:, 0, at] == sign).sum()) for sign in (-1, 1))
        assert got.loc[got["head"] == at, "p_value"].item() == pytest.approx(
            binomtest(lost, lost + won).pvalue, rel=1e-6
        )


@pytest.mark.smollm2
def test_the_completion_takes_the_contexts_last_space_and_its_merged_tokens(smollm2):
    items = [
        {"context": "The capital of France is ", "choices": ["Paris", "London"], "answer": 0},
        {"context": "The cap", "choices": ["ital of France", "on"], "answer": 0},
    ]
    prompts = load(smollm2, items, delimiter="")
    assert prompts.choices.text == (" Paris", " London", "ital of France", "on")
    assert prompts.choices.merges.tolist() == [False, False, True, False]
    for row, item in enumerate(np.repeat([0, 1], 2)):
        context = items[item]["context"].rstrip()
        before = smollm2.tokenizer(context)["input_ids"]
        added = smollm2.tokenizer(context + prompts.choices.text[row])["input_ids"][len(before) :]
        ids = prompts.choices.rows.token_id[row]
        assert ids[ids >= 0].tolist() == [*before, *added]
        target = prompts.choices.rows.target[row].nonzero()[0]
        assert prompts.choices.rows.correct[row, target].tolist() == added


def test_an_empty_context_begins_with_the_token_that_begins_a_text(tiny):
    model = tiny("llama")
    prompts = load(model, [{"context": "", "choices": ["Mary went", "to Mary"], "answer": 0}], delimiter="")
    assert (prompts.choices.rows.token_id[:, 0] == model.tokens.bos_id).all()
    n_tokens = [len(model.tokens.encode(text).token_id) - 1 for text in ("Mary went", "to Mary")]
    assert prompts.choices.rows.target.sum(axis=1).tolist() == n_tokens


def test_two_single_tokens_are_an_answer_and_a_distractor(tiny):
    model = tiny("llama")
    prompts = load(model, [{"context": "Mary went to the", "choices": ["store", "office"], "answer": 1}])
    assert prompts.answer_text == (" office",)
    assert prompts.distractor_text == (" store",)
    got = harness.ablate_heads(model, prompts, metrics=["logit_diff", "choice_margin"]).data
    np.testing.assert_allclose(got.effect[0], got.effect[1], atol=1e-5)  # log-probabilities differ as logits do


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_items_of_a_file(tiny, tmp_path, suffix):
    model, path = tiny("llama"), tmp_path / f"items.{suffix}"
    if suffix == "jsonl":
        path.write_text("\n".join(json.dumps(item) for item in ITEMS))
    else:
        quoted = [json.dumps(item["choices"]).replace('"', '""') for item in ITEMS]
        lines = [f'{item["context"]},"{listed}",{item["answer"]}' for item, listed in zip(ITEMS, quoted, strict=True)]
        path.write_text("context,choices,answer\n" + "\n".join(lines))
    prompts = harness.load_prompts("choices", model, path=str(path))
    want = load(model)
    np.testing.assert_array_equal(prompts.choices.rows.token_id, want.choices.rows.token_id)
    assert prompts.choices.right.tolist() == want.choices.right.tolist()
    some = harness.load_prompts("choices", model, path=str(path), n=2, seed=1)
    assert set(some.text) < set(prompts.text)


BAD = {
    "no right answer": ({"answer": 3}, r"prompts=choices: item 0: its answer '3' is neither one of its choices nor a"),
    "unknown answer": ({"answer": "bar"}, r"item 0: its answer 'bar' is neither"),
    "equal": ({"choices": ["store", "store"]}, r"item 0: two of its choices are equal: 'store'"),
    "no tokens": ({"choices": ["store", ""]}, r"item 0: its choice '' has no tokens under random"),
    "one": ({"choices": ["store"]}, r"prompts\.items\.0\.choices"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_item_is_named(tiny, case):
    changed, message = BAD[case]
    with pytest.raises(RequestError, match=message):
        load(tiny("llama"), [{**ITEMS[0], "choices": ["store", "office"], "answer": 0, **changed}], delimiter="")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "prompts=choices: set one of prompts.task=NAME"),
        ({"items": ITEMS, "path": "x.jsonl"}, "prompts=path and items: set one of"),
        ({"items": ITEMS, "length": 5}, "prompts.length=5: it is for prompts.task=needle"),
        ({"items": ITEMS, "n": 9}, "prompts.n=9: there are 4 items"),
    ],
)
def test_a_bad_request_is_named(tiny, keys, message):
    with pytest.raises(RequestError, match=message):
        harness.load_prompts("choices", tiny("llama"), **keys)


def test_a_classifier_has_no_completions():
    with pytest.raises(RequestError, match="completions are compared by the probability of their tokens"):
        load(harness.load_model("random", shape="bert_classifier"))


def test_choice_metrics_need_choices(tiny):
    model = tiny("llama")
    with pytest.raises(RequestError, match="it needs prompts with choices, and ioi has none"):
        harness.ablate_heads(model, harness.load_prompts("ioi", model, n=2), metrics=["choice_margin"])
