"""Prompts that the caller holds: lists of texts, DataFrames and token ids give what a file or a spec of them gives."""

import csv
import doctest
from dataclasses import asdict, fields
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import harness
from harness import config
from harness.config import RequestError
from harness.hooks import plain_model
from harness.prompts import Source
from harness.prompts.spec_of import spec_of

TEXTS = ["When Mary and John went to the store, John gave a drink to", "John gave a drink to"]
ROWS = {
    "text": TEXTS,
    "answer": [" Mary", " Mary"],
    "distractor": [" John", " John"],
    "counterfactual": ["When Mary and John went to the store, Mary gave a drink to", "Mary gave a drink to"],
    "cluster": ["a", "b"],
}


def assert_same(left, right):
    """All arrays and texts of two batches are equal, not only what their SHA-256 covers."""
    assert left.sha256 == right.sha256
    for item in fields(left):
        if item.name not in ("name", "spec", "text"):
            np.testing.assert_equal(plain(getattr(left, item.name)), plain(getattr(right, item.name)))


def plain(value):
    return {name: array.tolist() for name, array in vars(value).items()} if isinstance(value, Source) else value


def reloaded(prompts, model):
    """The prompts that a saved spec of these loads."""
    saved = yaml.safe_load(yaml.safe_dump(yaml.safe_load(yaml.safe_dump(listed(asdict(prompts.spec))))))
    return harness.load_prompts(config.parse(config.PromptSpec, saved, "prompts."), model)


def listed(value):
    if isinstance(value, dict):
        return {key: listed(item) for key, item in value.items()}
    return [listed(item) for item in value] if isinstance(value, tuple) else value


# --- one set of prompts, however it is passed ---------------------------------------------------------------------


def by_list(model, path):
    others = {key: values for key, values in ROWS.items() if key != "text"}
    return harness.load_prompts(TEXTS, model, **others)


def by_series(model, path):
    frame = pd.DataFrame(ROWS)
    return harness.load_prompts(tuple(TEXTS), model, **{key: frame[key] for key in ROWS if key != "text"})


def by_frame(model, path):
    return harness.load_prompts(pd.DataFrame({**ROWS, "year": [1999.5, 2000.0]}), model)


def by_renamed_frame(model, path):
    frame = pd.DataFrame(ROWS).rename(columns={"text": "question", "answer": "gold"})
    return harness.load_prompts(frame, model, column="question", answer="gold")


def by_file(model, path):
    pd.DataFrame(ROWS).to_csv(path, index=False, quoting=csv.QUOTE_ALL)
    return harness.load_prompts("file", model, path=path, **{key: key for key in ROWS if key != "text"})


@pytest.mark.parametrize("load", [by_list, by_series, by_frame, by_renamed_frame, by_file])
def test_load_prompts_gives_the_same_from_every_form(tiny, tmp_path, load):
    model = tiny()
    spec = config.InlinePrompts(name="inline", **ROWS)
    expected, prompts = harness.load_prompts(spec, model), load(model, tmp_path / "rows.csv")
    assert_same(prompts, expected)
    other = model.tokens.encode(ROWS["counterfactual"][1]).token_id
    assert expected.counterfactual[1].tolist()[: len(other)] == list(other)
    assert prompts.text == tuple(TEXTS)
    assert_same(reloaded(prompts, model), prompts)


def test_load_prompts_of_a_list_without_answers_scores_every_prediction(tiny):
    prompts = harness.load_prompts(TEXTS, tiny())
    assert_same(prompts, harness.load_prompts("inline", tiny(), text=TEXTS))
    assert prompts.cluster == ("text 0", "text 1")


def test_load_prompts_of_a_frame_draws_rows_and_copies_tags(tiny):
    frame = pd.DataFrame({"text": [f"the store {word}" for word in ("a", "to", "and", "the")], "topic": list("wxyz")})
    prompts = harness.load_prompts(frame, tiny(), tags=["topic"], n=2, seed=1)
    drawn = sorted(np.random.default_rng(1).choice(4, 2, replace=False))
    assert prompts.text == tuple(frame["text"][drawn])
    assert [tags["topic"] for tags in prompts.tags] == frame["topic"][drawn].tolist()
    assert_same(reloaded(prompts, tiny()), prompts)


def test_load_prompts_of_a_frame_reads_no_column_that_is_none(tiny):
    prompts = harness.load_prompts(pd.DataFrame(ROWS), tiny(), answer=None, distractor=None)
    assert not prompts.has_answer
    assert prompts.cluster == ("a", "b")


def test_load_prompts_of_a_pair_and_a_target(tiny):
    bert, t5 = tiny("bert"), tiny("t5")
    assert_same(
        harness.load_prompts(["the store"], bert, pair="a drink"),
        harness.load_prompts("inline", bert, text=["the store"], pair=["a drink"]),
    )
    frame = pd.DataFrame({"text": ["the store"], "target": ["a drink"]})
    assert_same(
        harness.load_prompts(frame, t5), harness.load_prompts("inline", t5, text=["the store"], target=["a drink"])
    )


def test_inline_counterfactual_of_a_pair_replaces_both_texts(tiny):
    model = tiny("bert")
    prompts = harness.load_prompts(["John gave"], model, pair="a drink", counterfactual="Mary gave")
    assert prompts.counterfactual[0].tolist() == list(model.tokens.encode("Mary gave", "a drink").token_id)


def test_inline_counterfactual_on_the_command_line_is_patched_in(command, tiny):
    def text(value):
        return "['" + value + "']"

    settings = ["model=random", "prompts=inline", f"prompts.text={text(TEXTS[1])}", "ablation=patch"]
    settings += [f"prompts.counterfactual={text('Mary gave a drink to')}", "metrics=[loss]"]
    code, out, err = command("ablate_heads", *settings)
    assert code == 0, err
    run = harness.open_run(out.strip().splitlines()[-1])
    model = harness.load_model("random", **{"shape": run.spec["model"]["shape"], "seed": run.spec["model"]["seed"]})
    prompts = harness.load_prompts([TEXTS[1]], model, counterfactual="Mary gave a drink to")
    np.testing.assert_equal(run.data["token_id"].values, prompts.token_id)
    effects = harness.ablate_heads(model, prompts, "patch", metrics=["loss"]).data["effect"]
    np.testing.assert_allclose(run.data["effect"].values, effects.values, atol=1e-6)
    assert abs(effects.values).max() > 1e-4


# --- token ids ----------------------------------------------------------------------------------------------------

FORMS = {
    "lists": lambda ids, pad: [list(row) for row in ids],
    "arrays": lambda ids, pad: [np.array(row) for row in ids],
    "array": lambda ids, pad: np.array([ids[0], ids[0]])[:1],
    "tensor": lambda ids, pad: torch.tensor([ids[0]]),
    "right": lambda ids, pad: padded(ids, pad, right=True),
    "left": lambda ids, pad: {key: torch.tensor(value) for key, value in padded(ids, pad, right=False).items()},
    "bool mask": lambda ids, pad: {
        key: torch.tensor(value).to(torch.bool if "mask" in key else torch.long)
        for key, value in padded(ids, pad, right=True).items()
    },
}


def padded(ids, pad, right):
    end = max(map(len, ids))
    gaps = [end - len(row) for row in ids]
    ids = [[*row, *[pad] * gap] if right else [*[pad] * gap, *row] for row, gap in zip(ids, gaps, strict=True)]
    masks = [[1] * (end - gap) + [0] * gap if right else [0] * gap + [1] * (end - gap) for gap in gaps]
    return {"input_ids": ids, "attention_mask": masks}


@pytest.mark.parametrize("form", FORMS)
def test_token_ids_of_every_form_are_the_text(tiny, form):
    model = tiny()
    ids = FORMS[form](model.tokenizer(TEXTS)["input_ids"], model.tokenizer.pad_token_id or 0)
    n = 1 if form in ("array", "tensor") else 2
    others = {"answer": [" Mary"] * n, "distractor": [" John"] * n}
    prompts = harness.load_prompts(ids, model, **others)
    assert_same(prompts, harness.load_prompts(TEXTS[:n], model, **others))
    assert_same(reloaded(prompts, model), prompts)


@pytest.mark.parametrize(
    ("shape", "texts", "others"),
    [
        ("gpt2", TEXTS, {}),
        ("llama", TEXTS, {"answer": [" Mary", " Mary"]}),
        ("bert", ["John doesn't give Mary a drink.", "the store"], {}),
        ("bert", ["John gave [MASK] a drink"], {"answer": [" Mary"]}),
        ("t5", ["John gave a drink to", "the store"], {"target": ["Mary", "a drink"]}),
        ("t5", ["John gave a drink to"], {"answer": [" Mary"]}),
    ],
)
def test_token_ids_have_the_loss_effects_of_the_text(tiny, shape, texts, others):
    model = tiny(shape)
    if "[MASK]" in texts[0]:
        texts = [texts[0].replace(" [MASK]", model.tokens.string(model.tokens.mask_id))]
    held, named = (harness.load_prompts(each, model, **others) for each in (model.tokenizer(texts), texts))
    assert_same(held, named)
    effects = [harness.ablate_heads(model, each, metrics=["loss"]).data["effect"].values for each in (held, named)]
    np.testing.assert_array_equal(*effects)
    assert np.nanmax(abs(effects[0])) > 1e-5


def test_token_ids_of_a_sentence_encoder_are_the_text():
    model = harness.load_model("minilm")
    texts = ["the unhappiness isn't new.", "the dog"]
    held = harness.load_prompts(model.tokenizer(texts, padding=True, return_tensors="pt"), model)
    assert_same(held, harness.load_prompts(texts, model))
    assert held.text == tuple(texts)
    one = harness.load_prompts(model.tokenizer(texts[0]), model)
    assert_same(one, harness.load_prompts(texts[:1], model))


def test_token_ids_are_used_as_they_are(tiny):
    """No BOS is added under a policy that adds one, and ids that no text has are scored by a plain forward."""
    model = tiny(bos="always")
    ids = [[7, 7, 300, 12, 9], [40, 41, 42]]
    prompts = harness.load_prompts(ids, model)
    assert [row[row >= 0].tolist() for row in prompts.token_id] == ids
    clean = harness.ablate_heads(model, prompts, metrics=["loss"], heads=["L0H0"]).data["clean"].values[0]
    for row, loss in zip(ids, clean, strict=True):
        with torch.no_grad():
            logits = plain_model(model.bridge)(torch.tensor([row])).logits[0, :-1].log_softmax(-1)
        expected = -logits[torch.arange(len(row) - 1), torch.tensor(row[1:])].mean()
        assert loss == pytest.approx(float(expected), abs=1e-5)


def test_token_ids_take_a_counterfactual_of_ids(tiny):
    prompts = harness.load_prompts([[40, 41, 42]], tiny(), counterfactual=np.array([[40, 43, 42]]))
    assert prompts.counterfactual.tolist() == [[40, 43, 42]]
    assert_same(reloaded(prompts, tiny()), prompts)


@pytest.mark.parametrize(
    ("pad", "end", "ids", "refused"),
    [
        (None, 2, [5, 6, 2], False),
        (0, 2, [5, 6, 2], False),
        (0, 2, [5, 0, 6], False),
        (0, 2, [5, 6, 0], True),
        (0, 2, [0, 5, 6], True),
        (2, 2, [5, 6, 2], False),
        (2, 2, [5, 6, 2, 2], True),
        (2, 2, [2, 2, 5, 6], True),
    ],
)
def test_token_ids_may_end_in_one_end_token_but_not_in_padding(pad, end, ids, refused):
    tokenizer = SimpleNamespace(pad_token_id=pad, bos_token_id=None, eos_token_id=end)
    if not refused:
        assert spec_of([[5, 6], ids], tokenizer, {}).token_id[1] == tuple(ids)
        return
    with pytest.raises(RequestError) as error:
        spec_of([[5, 6], ids], tokenizer, {})
    remedy = "pass a tokenizer's whole output, with attention_mask, or lists without padding"
    assert str(error.value) == f"prompts={pad}: prompt 1 has padding at an end and no mask: {remedy}"


def test_token_ids_on_the_command_line(command, tiny):
    code, out, err = command("ablate_heads", "model=random", "prompts=token_ids", "prompts.token_id=[[40,41,42],[7,8]]")
    assert code == 0, err
    run = harness.open_run(out.strip().splitlines()[-1])
    assert [row[row >= 0].tolist() for row in run.data["token_id"].values] == [[40, 41, 42], [7, 8]]
    code, _, err = command("ablate_heads", "model=random", "prompts=token_ids", "prompts.token_id=[[a]]")
    assert (code, err) == (2, "prompts.token_id.0=a: input should be a valid integer\n")


# --- what is refused ----------------------------------------------------------------------------------------------

FORMS_ALLOWED = "pass a prompt set's name or spec, a list of texts, a pandas DataFrame, or lists of token ids"
FRAME = pd.DataFrame({"text": ["John gave", "a store"], "gold": [" Mary", None], "n": [1, 2]})
WHOLE = 'token ids are whole numbers: pass tokenizer(texts)["input_ids"]'
MASK = "a mask is 1 at the prompt's tokens, which stand together, and 0 at padding before or after them"

REFUSED = [
    ([], {}, "prompts=[]: give at least one text"),
    ([""], {}, "prompts.text='': a prompt must have at least one token of text"),
    (["a store", 3], {}, f"prompts=3: item 1 is a number: {FORMS_ALLOWED}"),
    ([3, "a store"], {}, f"prompts=3: item 0 is a number: {FORMS_ALLOWED}"),
    (["a store", float("nan")], {}, f"prompts=nan: item 1 is a number: {FORMS_ALLOWED}"),
    (["a store", [5, 6]], {}, f"prompts=[5, 6]: item 1 is a list: {FORMS_ALLOWED}"),
    (None, {}, f"prompts=NoneType: {FORMS_ALLOWED}"),
    (
        ["a store"],
        {"answer": [" Mary", " John"]},
        "prompts.answer=[' Mary', ' John']: give one for each of the 1 texts",
    ),
    (["a store"], {"answer": [float("nan")]}, "prompts.answer=nan: item 0 is a number, not a text"),
    (
        ["a store"],
        {"distractor": " Mary"},
        "prompts.distractor=[' Mary']: a distractor needs an answer: prompts.answer=[…]",
    ),
    (
        ["a store"],
        {"pair": "x"},
        "prompts.pair='x': random is a decoder and reads one text: write both in prompts.text",
    ),
    (["a store"], {"target": "x"}, "prompts.target='x': random is a decoder and writes no target"),
    (
        ["the store", "John gave a"],
        {"counterfactual": ["a store", "Mary gave a"]},
        "prompts.counterfactual='a store': the text has 5 tokens and its counterfactual 3; they must be equally long",
    ),
    (["a store"], {"tags": {"x": ["a", "b"]}}, "prompts.tags.x=['a', 'b']: give one for each of the 1 texts"),
    # a DataFrame
    (FRAME[["gold"]], {}, "prompts.column=text: DataFrame has no such column; known: gold"),
    (
        FRAME,
        {"answer": "gole"},
        "prompts.answer=gole: DataFrame has no such column; did you mean 'gold'? known: text, gold, n",
    ),
    (FRAME, {"answer": "gold"}, "prompts.answer=gold: DataFrame: 1 of 2 rows has none (row 2): give one in every row"),
    (FRAME, {"column": "n"}, "prompts=DataFrame: row 1 has a number, not a text, in 'n'"),
    (FRAME, {"distractor": "text"}, "prompts.distractor=text: a distractor needs an answer: prompts.answer=…"),
    (
        FRAME,
        {"words": "gold"},
        "prompts.words=gold: tags of words are the same for all rows of a DataFrame: save it, and "
        "load_prompts('file', …)",
    ),
    (FRAME.iloc[:0], {}, "prompts=DataFrame: it has no rows: it must have at least one prompt"),
    (
        FRAME.assign(text=["a store", ""]),
        {},
        "prompts.column=text: DataFrame: 1 of 2 rows has none (row 2): give one in every row",
    ),
    (FRAME.assign(text=["a store", " "]), {}, "prompts=DataFrame: row 2 has only white space in 'text'"),
    (
        FRAME,
        {"pair": "text"},
        "prompts=DataFrame: row 1, 'John gave': random is a decoder and reads one text: write both in prompts.text",
    ),
    (FRAME, {"n": 3}, "prompts.n=3: DataFrame has 2 rows"),
    (pd.concat([FRAME, FRAME], axis=1), {}, "prompts=DataFrame: it has the column 'text' twice"),
    # token ids
    ([1, 2], {}, "prompts=[1, 2]: the ids of one prompt are a list in a list: [[1, 2]]"),
    ([[]], {}, "prompts=[]: prompt 0 has no token"),
    ([[5, 6], [7, -1]], {}, "prompts=-1: prompt 1 has a negative id; leave padding out, or pass its mask"),
    (
        [[5, 6], [7, 10**6]],
        {},
        "prompts.token_id=1000000: prompt 1 has a token that random has not: its ids are 0-975; make them with "
        "model.tokenizer",
    ),
    ([[5, 6.0]], {}, f"prompts=6.0: prompt 0 has a number in its ids; {WHOLE}"),
    ([[5, True]], {}, f"prompts=True: prompt 0 has true or false in its ids; {WHOLE}"),
    (np.zeros((1, 2)), {}, f"prompts=ndarray of float64: {WHOLE}"),
    (torch.zeros(1, 2), {}, f"prompts=Tensor of float32: {WHOLE}"),
    (np.array([3, 4]), {}, "prompts=ndarray of 2: give ids of two dimensions, [prompt, position]"),
    ([[5, 6]], {"answer": [" a", " b"]}, "prompts.answer=[' a', ' b']: give one for each of the 1 prompts"),
    (
        [[5, 6]],
        {"counterfactual": [[5]]},
        "prompts.counterfactual=[5]: the text has 2 tokens and its counterfactual 1; they must be equally long",
    ),
    (
        [[5, 6]],
        {"pair": "x"},
        "prompts.pair=x: there is no such key; known: name, token_id, target, answer, distractor, cluster, "
        "counterfactual, generate",
    ),
    ({"ids": [[5]]}, {}, "prompts={…}: pass a tokenizer's output, with input_ids and attention_mask; it has ids"),
    (
        {"input_ids": [[5, 6]], "attention_mask": [[1]]},
        {},
        "prompts.attention_mask=another shape: give one 0 or 1 for each of input_ids",
    ),
    (
        {"input_ids": [[5, 6, 7]], "attention_mask": [[1, 0, 1]]},
        {},
        f"prompts.attention_mask=[1, 0, 1]: prompt 0: {MASK}",
    ),
    ({"input_ids": [[5, 6]], "attention_mask": [[0, 0]]}, {}, f"prompts.attention_mask=[0, 0]: prompt 0: {MASK}"),
    (
        {"input_ids": [[5, 6]], "token_type_ids": [[0, 1]]},
        {},
        "prompts.token_type_ids=1: pass pairs as texts: load_prompts([first], model, pair=[second])",
    ),
]


@pytest.mark.parametrize(("prompts", "others", "says"), REFUSED, ids=[row[2][:40] for row in REFUSED])
def test_load_prompts_refuses_in_one_line(tiny, prompts, others, says):
    with pytest.raises(RequestError) as refused:
        harness.load_prompts(prompts, tiny(), **others)
    assert str(refused.value) == says


def test_load_prompts_refuses_ids_that_are_longer_than_the_model_reads(tiny):
    with pytest.raises(RequestError, match=r"prompts.token_id=.*: this prompt has 257 tokens, random takes 256"):
        harness.load_prompts([[40] * 257], tiny())


def test_the_example_of_load_prompts_runs():
    (example,) = doctest.DocTestFinder(recurse=False).find(harness.load_prompts, "load_prompts")
    result = doctest.DocTestRunner().run(example)
    assert (result.attempted, result.failed) == (6, 0)
