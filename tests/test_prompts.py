"""Prompt sets: what they promise about tokens, targets, answers and clusters."""

import json

import numpy as np
import pytest

import harness
from harness.config import RequestError
from harness.models import random as random_models
from harness.prompts import batches


def test_ioi_draws_from_many_templates_and_names_the_answer_once(tiny):
    model = tiny()
    prompts = harness.load_prompts("ioi", model)
    assert len(prompts) == 32
    assert len(set(prompts.cluster)) >= 16
    for text, answer, distractor in zip(prompts.text, prompts.answer_text, prompts.distractor_text, strict=True):
        assert (text.count(answer), text.count(distractor)) == (1, 2)


def test_ioi_balances_which_name_comes_first(tiny):
    prompts = harness.load_prompts("ioi", tiny(), n=32)
    first = [
        text.index(a) < text.index(d)
        for text, a, d in zip(prompts.text, prompts.answer_text, prompts.distractor_text, strict=True)
    ]
    assert sum(first) == 16


def test_ioi_scores_the_answer_after_the_last_token(tiny):
    prompts = harness.load_prompts("ioi", tiny(), n=5)
    last = prompts.length - 1
    assert (prompts.target.sum(axis=1) == 1).all()
    assert (prompts.correct[np.arange(5), last] == prompts.answer).all()


def test_the_ioi_counterfactual_changes_one_token_to_a_third_name(tiny):
    prompts = harness.load_prompts("ioi", tiny(), n=8)
    changed = (prompts.counterfactual != prompts.token_id).sum(axis=1)
    assert (changed == 1).all()
    for row in range(8):
        new = set(prompts.counterfactual[row]) - set(prompts.token_id[row])
        assert len(new) == 1
        assert not new & {prompts.answer[row], prompts.distractor[row]}


def test_the_same_seed_gives_the_same_prompts_and_another_seed_others(tiny):
    def loaded(seed):
        return harness.load_prompts("ioi", tiny(), n=6, seed=seed)

    assert loaded(1).sha256 == loaded(1).sha256 != loaded(2).sha256


def test_a_name_that_is_not_one_token_is_refused(tiny):
    with pytest.raises(RequestError, match=r"prompts.names=' Bartholomew': this must be one token, but .* makes ' B'"):
        harness.load_prompts("ioi", tiny(), names=["Mary", "John", "Bartholomew"])


def test_induction_repeats_and_scores_what_can_be_known(tiny):
    model = tiny()
    prompts = harness.load_prompts("induction", model, n=3, length=6)
    assert (prompts.token_id[:, 0] == model.tokens.bos_id).all()
    assert (prompts.token_id[:, 1:7] == prompts.token_id[:, 7:]).all()
    assert prompts.target.sum(axis=1).tolist() == [5, 5, 5]
    at = np.argwhere(prompts.target)
    assert (prompts.correct[at[:, 0], at[:, 1]] == prompts.token_id[at[:, 0], at[:, 1] + 1]).all()


def test_inline_scores_every_token_that_is_predicted(tiny):
    prompts = harness.load_prompts("inline", tiny(), text=["When Mary went", "to the store, John"])
    for row in range(2):
        end = prompts.length[row]
        assert prompts.target[row, : end - 1].all()
        assert not prompts.target[row, end - 1 :].any()


def test_inline_with_an_answer_scores_only_it(tiny):
    prompts = harness.load_prompts("inline", tiny(), text=["When"], answer=[" Mary"], distractor=[" John"])
    assert prompts.target.sum() == 1
    assert prompts.has_answer
    assert prompts.has_distractor


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"text": [""]}, "at least one token of text"),
        ({"text": ["  \n"]}, "at least one token of text"),
        ({"text": []}, "give at least one text"),
        ({"text": ["a store " * 300]}, r"this prompt has \d+ tokens, random takes 256"),
        ({"text": ["a", "b"], "answer": [" Mary"]}, "one for each of the 2 texts"),
        ({"text": ["a"], "distractor": [" Mary"]}, "a distractor needs an answer"),
        ({"text": ["a"], "answer": [" xyz qq"]}, "this must be one token"),
    ],
)
def test_bad_inline_prompts_are_refused(tiny, given, says):
    with pytest.raises(RequestError, match=says):
        harness.load_prompts("inline", tiny(), **given)


def test_bos_is_a_policy_of_the_model(tiny):
    ids = {bos: tiny(bos=bos).tokens.encode("the store").token_id for bos in ("always", "never")}
    assert ids["always"][1:] == ids["never"]
    assert ids["always"][0] == tiny().tokens.bos_id


def test_batches_hold_every_prompt_once_and_keep_to_their_size(tiny):
    prompts = harness.load_prompts("ioi", tiny(), n=30)
    cut = batches(prompts, tokens=100, at_most=7)
    assert sorted(row for batch in cut for row in batch) == list(range(30))
    assert len(cut) > 30 // 7
    assert all(len(batch) == 1 or len(batch) * prompts.length[batch].max() <= 100 for batch in cut)
    assert any(len(set(prompts.length[batch])) > 1 for batch in batches(prompts, padding=0.1))
    assert all(len(set(prompts.length[batch])) == 1 for batch in batches(prompts, padding=0))


def test_a_part_is_padded_only_as_far_as_it_needs(tiny):
    prompts = harness.load_prompts("inline", tiny(), text=["the store", "When Mary and John went to the store"])
    part = prompts.take([0])
    assert part.token_id.shape == (1, prompts.length[0])
    assert part.text == ("the store",)


# --- tokens without an embedding --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def widened(tmp_path_factory):
    """A model to whose tokenizer a token was added, and not to its embeddings; and the number of those."""
    folder = tmp_path_factory.mktemp("widened")
    plain, tokenizer, _ = random_models.build("llama", 0)
    tokenizer.add_tokens(["<call>"])
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    rows = plain.get_input_embeddings().num_embeddings
    assert tokenizer("<call>", add_special_tokens=False)["input_ids"] == [rows]
    return harness.load_model("path", path=str(folder)), rows


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"text": ["a store", "a <call> store"]}, "prompts.text='a <call> store'"),
        ({"text": ["a store"], "answer": ["<call>"]}, "prompts='a store'"),
        ({"text": ["a store"], "answer": [" Mary"], "distractor": ["<call>"]}, "prompts='a store'"),
        ({"rows": {"text": "a <call>"}}, "line 1, 'a <call>'"),
        ({"rows": {"text": "a store", "twin": "a <call>"}, "counterfactual": "twin"}, "prompts='a store'"),
        ({"rows": {"text": "a store", "answer": "<call>"}, "answer": "answer"}, "prompts='a store'"),
    ],
)
def test_prompts_refuse_a_token_without_an_embedding(widened, tmp_path, given, key):
    model, rows = widened
    if "rows" in given:
        path = tmp_path / "rows.jsonl"
        path.write_text(json.dumps(given["rows"]))
        given = {**given, "path": str(path)}
        del given["rows"]
    if "twin" in str(given):
        path.write_text(
            json.dumps({"text": "a store", "twin": "a" + "<call>" * (len(model.tokenizer("a store")[0]) - 2)})
        )
    with pytest.raises(RequestError) as refused:
        harness.load_prompts("file" if "path" in given else "inline", model, **given)
    said = str(refused.value)
    assert key in said
    assert f"the tokenizer has a token '<call>' (number {rows}) and the model embeddings for 0-{rows - 1}: say " in said
    assert "model.resize_token_embeddings(len(tokenizer))" in said


def test_prompts_without_the_added_token_are_as_before(widened, tiny):
    ours, plain = (harness.load_prompts("ioi", model, n=2) for model in (widened[0], tiny()))
    assert (ours.token_id == plain.token_id).all()
