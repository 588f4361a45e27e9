"""Prompts in a chat template, against transformers' own `apply_chat_template` and `generate`."""

import numpy as np
import pandas as pd
import pytest
import torch

import harness
from harness.config import RequestError
from harness.models import random as random_models
from harness.models.generation import written

#: Begins with the BOS token, as Llama's; trims the message, as most.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}] {{ message['content'] | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
TEXT = "When Mary and John went to the store"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Llama whose tokenizer has the template."""
    path = tmp_path_factory.mktemp("chat")
    model, tokenizer, _ = random_models.build("llama", 0)
    tokenizer.chat_template = TEMPLATE
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module", params=["auto", "always", "never"])
def model(folder, request):
    return harness.load_model(str(folder), bos=request.param)


@pytest.fixture(scope="module")
def one(folder):
    return harness.load_model(str(folder))


def templated(tokenizer, text):
    message = [{"role": "user", "content": text}]
    return tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=True, return_dict=False)


def test_a_message_is_what_transformers_makes_of_it(model):
    prompts = harness.load_prompts([TEXT, "  gave a drink to "], model, chat=True)
    for row, text in zip(prompts.token_id, (TEXT, "  gave a drink to "), strict=True):
        assert row[row >= 0].tolist() == templated(model.tokenizer, text)
    assert (prompts.token_id == model.tokenizer.bos_token_id).sum(axis=1).tolist() == [1, 1]
    assert prompts.text[1] == "<s>[user] gave a drink to\n[assistant]"


@pytest.mark.smollm2
def test_smollm2_answers_a_message_as_in_transformers(smollm2):
    from transformers import LlamaForCausalLM

    prompts = harness.load_prompts(["What is the capital of France?"], smollm2, chat=True)
    ids = templated(smollm2.tokenizer, "What is the capital of France?")
    assert prompts.token_id[0].tolist() == ids
    plain = smollm2.bridge.original_model
    assert isinstance(plain, LlamaForCausalLM)
    new = [token for token, _ in written(smollm2, ids, 3)]
    for at, token in enumerate(new):
        with torch.no_grad():
            assert int(plain(torch.tensor([[*ids, *new[:at]]])).logits[0, -1].argmax()) == token


def test_the_message_is_scored_and_the_template_is_not(one):
    for text in (TEXT, "assistant"):  # which is in the template too
        prompts = harness.load_prompts([text], one, chat=True)
        scored = np.flatnonzero(prompts.target[0]) + 1
        assert "".join(prompts.token[0][scored]).strip() == text
        assert prompts.length[0] > scored[-1] + 1


def test_an_answer_begins_where_the_template_ends(one):
    prompts = harness.load_prompts([TEXT], one, chat=True, answer=" Mary", distractor=" John")
    assert np.flatnonzero(prompts.target[0]).tolist() == [prompts.length[0] - 1]


def test_a_counterfactual_is_a_message_too(one):
    prompts = harness.load_prompts([TEXT], one, chat=True, counterfactual=["When Paul and John went to the store"])
    assert prompts.counterfactual[0].tolist() == templated(one.tokenizer, "When Paul and John went to the store")
    effects = harness.ablate_heads(one, prompts, "patch", heads=["L0H1"])
    assert np.isfinite(effects.data.effect.sel(layer=0, head=1)).all()


def test_rows_of_a_file_and_of_a_dataframe_are_messages(one, tmp_path):
    (tmp_path / "rows.txt").write_text(f"{TEXT}\n", encoding="utf-8")
    ids = templated(one.tokenizer, TEXT)
    assert harness.load_prompts("file", one, path=tmp_path / "rows.txt", chat=True).token_id[0].tolist() == ids
    assert harness.load_prompts(pd.DataFrame({"text": [TEXT]}), one, chat=True).token_id[0].tolist() == ids


def test_a_sweep_of_messages_names_the_template_in_its_manifest(command, folder, one):
    where = ("model=path", f"model.path={folder}", "prompts=inline", f"prompts.text=['{TEXT}']", "heads=[L0H1]")
    hashes = {"true": one.tokens.chat_fingerprint, "false": None}
    for chat, expected in hashes.items():
        code, out, err = command("ablate_heads", *where, f"prompts.chat={chat}", "stats.resamples=99")
        assert code == 0, err
        run = harness.open_run(out.strip())
        assert run.manifest["model"]["chat_template"] == expected
        assert ("chat template" in run.manifest["model"]["bos"]) == (chat == "true")
        assert run.text(0) == (f"<s>[user] {TEXT}\n[assistant]" if chat == "true" else TEXT)


def test_the_hash_is_of_the_template(folder, one):
    before = one.tokens.chat_fingerprint
    assert len(before) == 64
    other = harness.load_model(str(folder), bos="never")
    other.tokenizer.chat_template += " "
    assert other.tokens.chat_fingerprint != before


@pytest.mark.parametrize(
    ("shape", "keys", "says"),
    [
        ("gpt2", {}, "prompts.chat=true: this model's tokenizer has no chat template; leave it out"),
        ("bert", {}, "prompts.chat=true: random is an encoder and answers no message"),
        ("bert", {"pair": ["It ran"]}, "prompts.chat=true: random is an encoder and answers no message"),
        ("t5", {"pair": ["It ran"]}, "prompts.pair='It ran': a message is one text: leave out pair, or prompts.chat"),
    ],
)
def test_what_has_no_template_is_refused_in_one_line(tiny, shape, keys, says):
    with pytest.raises(RequestError) as error:
        harness.load_prompts([TEXT], tiny(shape), chat=True, **keys)
    assert str(error.value) == says


def test_a_template_that_takes_no_single_message_is_refused(folder):
    model = harness.load_model(str(folder), bos="never")
    model.tokenizer.chat_template = "{{ raise_exception('a system message first') }}"
    with pytest.raises(RequestError, match=r"takes no single message of a user \(a system message first\)$"):
        harness.load_prompts([TEXT], model, chat=True)


def test_an_answer_to_a_message_is_that_of_transformers(one):
    texts = [TEXT, "gave a drink to"]
    prompts = harness.load_prompts(texts, one, chat=True)
    table = harness.compare_texts(one, prompts, "L0", max_new_tokens=5).table
    plain = random_models.build("llama", 0)[0].eval()
    for text, row in zip(texts, table.to_dict("records"), strict=True):
        ids = torch.tensor([templated(one.tokenizer, text)])
        new = plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False)
        written = one.tokenizer.decode(new[0, ids.shape[1] :], skip_special_tokens=True)
        assert row["clean"].removeprefix(row["text"]) == written
        assert row["text"].endswith(f"{text}\n[assistant]")
