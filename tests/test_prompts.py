"""Prompt sets: what they promise about tokens, targets, answers and clusters."""

import json

import numpy as np
import pytest

import harness
from harness.config import RequestError
from harness.models import random as random_models
from harness.models.tokens import Tokens
from harness.prompts import batches
from harness.prompts.answers import following


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


def test_ioi_names_the_role_of_each_token(tiny):
    prompts = harness.load_prompts("ioi", tiny("llama"), n=8)
    roles = [row.tolist() for row in prompts.role]
    for row, n in enumerate(prompts.length):
        named = {at: role for at, role in enumerate(roles[row]) if role not in ("", "other")}
        words = [str(prompts.token[row, at]) for at in named]
        answer, subject = prompts.answer_text[row], prompts.distractor_text[row]
        assert dict(zip(named.values(), words, strict=True)) == {
            "indirect object": answer,
            "subject": subject,
            "second subject": subject,
        }
        assert list(named.values()).index("subject") < list(named.values()).index("second subject") == 2
        assert [role == "" for role in roles[row]] == [at >= n for at in range(len(roles[row]))]
    assert prompts.dataset()["token_role"].values.tolist() == roles
    assert "token_role" not in harness.load_prompts(["a drink to"], tiny("llama")).dataset()


def test_induction_names_the_earlier_copy_and_the_repeat(tiny):
    prompts = harness.load_prompts("induction", tiny("llama"), n=2, length=4)
    assert prompts.role.tolist() == [["BOS", *["earlier copy"] * 4, *["repeat"] * 4]] * 2
    assert (prompts.role[prompts.target] == "repeat").all()


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


# --- another model's prompts --------------------------------------------------------------------------------------

RUNS = {
    "ablate_heads": lambda model, prompts: harness.ablate_heads(model, prompts, heads=["L0H0"]).data,
    "screen": lambda model, prompts: harness.ablate_heads(model, prompts, method="screen").data,
    "cache_attention": harness.cache_attention,
    "compare_attributions": lambda model, prompts: (
        harness.compare_attributions(model, prompts, methods=["gradient"]).data
    ),
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", ["ioi", "induction"])
def test_prompts_of_another_tokenizer_are_refused(tiny, run, name):
    """Also those that were made of token ids."""
    prompts = harness.load_prompts(name, tiny(), n=1)
    planted = harness.load_model("planted")
    with pytest.raises(RequestError, match=f"prompts={name}: they were made with another tokenizer than planted's"):
        RUNS[run](planted, prompts)


def test_prompts_for_another_kind_of_model_are_refused(tiny):
    prompts = harness.load_prompts("inline", tiny("bert"), text=["John gave a drink"])
    with pytest.raises(
        RequestError, match=r"made for an encoder \(masked_lm\), and random is another kind \(decoder\)"
    ):
        harness.ablate_heads(tiny(), prompts)


def test_prompts_run_on_another_model_with_the_same_tokenizer(tiny):
    prompts = harness.load_prompts("ioi", tiny(), n=1)
    own = harness.load_prompts("ioi", tiny("gpt2"), n=1)
    assert prompts.tokenizer == own.tokenizer == prompts.take([0]).tokenizer
    here, there = (harness.ablate_heads(tiny("gpt2"), each, heads=["L0H0"]).data for each in (prompts, own))
    np.testing.assert_array_equal(here.effect, there.effect)


# --- answers ------------------------------------------------------------------------------------------------------

SPACED = "write ' Mary', with its leading space"


@pytest.mark.parametrize(
    ("shape", "text", "answer", "says"),
    [
        ("llama", "gave a drink to", "Mary", SPACED),
        ("llama", "to whom? A:", "Mary", SPACED),
        (
            "llama",
            "gave a drink to ",
            "Mary",
            f"let the text end with 'ave a drink to', without the space, and {SPACED}",
        ),
        (
            "llama",
            "gave a drink to ",
            " Mary",
            f"let the text end with 'ave a drink to', without the space, and {SPACED}",
        ),
        ("bert", "John gave[MASK] to", "Mary", SPACED),
        (
            "bert",
            "John gave [MASK] to",
            " Mary",
            f"let the text end with 'ohn gave[MASK]', without the space, and {SPACED}",
        ),
    ],
)
@pytest.mark.parametrize("key", ["answer", "file"])
def test_an_answer_that_is_another_token_there_is_refused_with_the_string_to_give(
    tiny, tmp_path, shape, text, answer, says, key
):
    name, asked = "inline", {"text": [text], "answer": [answer]}
    if key == "file":
        (tmp_path / "rows.jsonl").write_text(json.dumps({"text": text, "right": answer}))
        name, asked = "file", {"path": str(tmp_path / "rows.jsonl"), "answer": "right"}
    with pytest.raises(RequestError) as refused:
        harness.load_prompts(name, tiny(shape), **asked)
    assert str(refused.value).startswith("prompts.path" if key == "file" else "prompts.answer")
    assert says in str(refused.value)


def test_a_distractor_without_its_space_is_refused_by_its_own_key(tiny):
    with pytest.raises(RequestError, match=f"prompts.distractor='John': .*{SPACED.replace('Mary', 'John')}"):
        harness.load_prompts("inline", tiny(), text=["gave a drink to"], answer=[" Mary"], distractor=["John"])


@pytest.mark.parametrize(
    ("shape", "text", "answer"),
    [
        ("llama", "gave a drink to", " Mary"),
        ("llama", "from 1732 to the year 17", "4"),  # digits go on: Hanna et al.'s greater-than task
        ("llama", 'He said "', "M"),
        ("llama", "np.", "M"),
        ("llama", "drink\n", "M"),
        ("bert", "John gave[MASK] to", " Mary"),
        ("bert", "([MASK])", "M"),
    ],
)
def test_the_token_of_an_answer_is_what_the_tokenizer_makes_of_the_whole_text(tiny, shape, text, answer):
    model = tiny(shape)
    prompts = harness.load_prompts("inline", model, text=[text], answer=[answer])
    whole = text.replace("[MASK]", answer) if shape == "bert" else text + answer
    at = int(np.flatnonzero(prompts.target[0])[0]) + (shape != "bert")
    assert prompts.answer[0] == prompts.correct.max() == model.tokenizer(whole)["input_ids"][at]


def test_sentencepiece_answers_are_what_follows_the_text(tmp_path):
    """Alone its tokenizer begins every text with a space, so that "Mary" is another token than it is after a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", *"▁abcdefghijklmnopqrstuvwxyzMJ", "▁to", "▁Mary", "Mary"]
    merges = [("▁", "t"), ("▁t", "o"), ("M", "a"), ("Ma", "r"), ("Mar", "y"), ("▁", "Mary")]
    vocabulary = {piece: at for at, piece in enumerate(dict.fromkeys([*pieces, *map("".join, merges)]))}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    core.decoder = decoders.Metaspace()
    tokens = Tokens(PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>"), "never")
    assert tokens.string(following(tokens, "a to", " Mary", "prompts.answer")) == " Mary"
    with pytest.raises(RequestError, match=SPACED):
        following(tokens, "a to", "Mary", "prompts.answer")


@pytest.mark.parametrize(
    ("question", "answer", "joined"),
    [
        ("To whom?", "Mary", " Mary"),
        ("To whom? ", "Mary", "Mary"),
        ("誰に。", "花子", "花子"),
        ("A:", "\nMary", "\nMary"),
    ],
)
def test_the_answer_of_a_context_is_joined_as_its_script_is_written(tiny, question, answer, joined):
    context = {"parts": [{"name": "note", "text": "John gave Mary a drink."}], "question": question, "answer": answer}
    prompts = harness.load_prompts("context", tiny(), contexts=[context])
    assert prompts.text[0].endswith(question + joined)


@pytest.mark.parametrize("name", ["The capital of France is", "iio"])
def test_a_text_in_place_of_a_prompt_sets_name_is_pointed_to_a_list(tiny, name):
    remedy = rf"prompts='{name}': .*; pass a list to use it as a text: load_prompts\(\[text\], model\)"
    with pytest.raises(RequestError, match=remedy):
        harness.load_prompts(name, tiny())


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
    assert (
        f"the tokenizer has a token '<call>' (number {rows}) and the model embeddings for 0-{rows - 1}: call " in said
    )
    assert "model.resize_token_embeddings(len(tokenizer))" in said


def test_prompts_without_the_added_token_are_as_before(widened, tiny):
    ours, plain = (harness.load_prompts("ioi", model, n=2) for model in (widened[0], tiny()))
    assert (ours.token_id == plain.token_id).all()
