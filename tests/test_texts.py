"""Texts of the clean and the ablated model: against `transformers.generate`, plain forwards, and a planted circuit."""

import numpy as np
import plain
import pytest
import torch

import harness
from harness.config import RequestError
from harness.models.generation import sampler, written

TEXT = "When Mary and John went to the store"
STEPS = 6


@pytest.fixture(scope="module")
def planted():
    return harness.load_model("planted")


@pytest.mark.parametrize("bos", ["auto", "always", "never"])
@pytest.mark.parametrize("shape", ["gpt2", "llama", "t5"])
@pytest.mark.parametrize("temperature", [None, 1.0, 0.7])
def test_text_without_ablation_is_that_of_transformers_token_by_token(tiny, shape, bos, temperature):
    model = tiny(shape, bos=bos) if shape != "t5" else tiny(shape)
    read = model.tokens.encode(TEXT).token_id
    sampled = {} if temperature is None else {"temperature": temperature, "top_k": 0, "top_p": 1.0}
    torch.manual_seed(11)
    ids = torch.tensor([read])
    new = plain.twin(shape).generate(
        ids, max_new_tokens=STEPS, do_sample=bool(sampled), attention_mask=torch.ones_like(ids), **sampled
    )
    expected = new[0, 1:] if shape == "t5" else new[0, len(read) :]
    choose = {} if temperature is None else {"choose": sampler(11, temperature)}
    assert [token for token, _ in written(model, read, STEPS, **choose)] == expected.tolist()


def test_no_heads_change_no_text(tiny):
    for seed in (None, 3):
        table = harness.compare_texts(tiny("gpt2"), [TEXT, "a drink"], [], max_new_tokens=STEPS, seed=seed).table
        assert table["parts_at"].isna().all()
        assert table["clean"].tolist() == table["ablated"].tolist()
        assert table["set"].tolist() == ["no heads"] * 2


def plain_logits(model, ids, heads):
    """The next token's logits of a plain Hugging Face GPT-2 whose heads' z is zeroed where c_proj reads it."""
    twin, size = plain.twin("gpt2"), model.shape.d_head

    def zero(layer):
        def before(_, args):
            z = args[0].clone()
            for head in heads:
                if head.layer == layer:
                    z[..., head.head * size : (head.head + 1) * size] = 0
            return (z,)

        return before

    hooks = [block.attn.c_proj.register_forward_pre_hook(zero(layer)) for layer, block in enumerate(twin.transformer.h)]
    with torch.no_grad():
        logits = twin(torch.tensor([ids])).logits[0, -1]
    for hook in hooks:
        hook.remove()
    return logits


def test_where_texts_part_is_where_plain_models_part_with_their_probabilities(tiny):
    model = tiny("gpt2")
    heads = model.heads("L0")
    row = harness.compare_texts(model, TEXT, "L0", max_new_tokens=STEPS).table.iloc[0]
    ids, at = [*model.tokens.encode(TEXT).token_id], None
    for step in range(STEPS):
        clean, changed = plain_logits(model, ids, ()), plain_logits(model, ids, heads)
        if int(clean.argmax()) != int(changed.argmax()):
            at = step
            break
        ids.append(int(clean.argmax()))
    assert at is not None
    assert row["parts_at"] == at
    for whose, logits in (("clean", clean), ("ablated", changed)):
        share = logits.softmax(-1)
        assert row[f"clean_token_{whose}"] == pytest.approx(float(share[int(clean.argmax())]), abs=1e-5)
        assert row[f"ablated_token_{whose}"] == pytest.approx(float(share[int(changed.argmax())]), abs=1e-5)
    assert row["clean_token"] == model.tokenizer.decode([int(clean.argmax())])


def test_without_its_induction_head_a_model_does_not_go_on_with_the_pattern(planted):
    induction = planted.truth["induction"]
    others = [head for head in planted.heads("all") if head not in {*induction, *planted.truth["previous_token"]}]
    texts = harness.compare_texts(
        planted, " da ko mi da ko", {"induction": induction, "others": others}, max_new_tokens=3, singly=True
    )
    table = texts.table.set_index("set")
    assert table.loc["induction", "clean"] == " da ko mi da ko mi da ko"
    assert table.loc["induction", "parts_at"] == 0
    assert table.loc["induction", "clean_token"].strip() == "mi"
    assert table.loc["induction", "clean_token_clean"] > 0.9 > 0.1 > table.loc["induction", "clean_token_ablated"]
    assert table.loc["induction", "first_head"] == str(induction[0])
    assert np.isnan(table.loc["others", "parts_at"])
    assert table.loc["others", "first_head"] == ""
    assert repr(texts) == "Texts(2 texts, 1 of which change)"


def test_a_mean_is_of_the_prompts(planted):
    prompts = harness.load_prompts("induction", planted, n=4)
    same = harness.compare_texts(planted, " da ko mi da ko", "L0H0", "mean", prompts=prompts, max_new_tokens=2)
    assert same.table["ablated"].tolist() == same.table["clean"].tolist()


def test_texts_stand_side_by_side_and_stay_text(tiny):
    model = tiny("gpt2")
    shown = harness.compare_texts(model, "a <b>drink", "L0", max_new_tokens=2)._repr_html_()
    assert "&lt;b&gt;drink" in shown
    assert "<b>drink" not in shown
    assert shown.count("<tr>") == 2
    assert shown.count("<b>") == shown.count("</b>") == 2


@pytest.mark.parametrize(
    ("shape", "change", "says"),
    [
        ("bert", {}, r"^model=random: it does not continue a text"),
        ("gpt2", {"texts": []}, r"^texts=\[\]: give one or more texts$"),
        ("llama", {"texts": ""}, r"^prompts.text='': a prompt must have at least one token of text$"),
        ("gpt2", {"heads": "L9H9"}, r"L9H9 is outside random"),
        ("gpt2", {"ablation": "mean"}, r"prompts"),
        ("gpt2", {"ablation": "resample"}, r"^ablation.positions=all: the donor of prompt 0 has z at its 12 "),
        ("gpt2", {"ablation": lambda z, head: z}, r"a function may read all positions of z at once"),
        ("gpt2", {"seed": 1, "temperature": 0}, r"^temperature=0: give a number above 0"),
        ("gpt2", {"max_new_tokens": 0}, r"^max_new_tokens=0: write at least one token$"),
    ],
)
def test_what_cannot_be_written_is_one_line(tiny, shape, change, says):
    bos = {"bos": "never"} if change.get("texts") == "" else {}  # else an empty text has the beginning-of-text token
    with pytest.raises(RequestError, match=says) as raised:
        harness.compare_texts(tiny(shape, **bos), **{"texts": TEXT, "heads": "L0", **change})
    assert "\n" not in str(raised.value)
