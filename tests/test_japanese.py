"""Japanese BERT: a real `BertJapaneseTokenizer` (MeCab with WordPiece, or characters) over a small random BERT, saved
as a model of the hub is and loaded from its folder."""

import sys

import fugashi
import numpy as np
import plain
import pytest
import torch
import unidic_lite

import harness
from harness.config import RequestError
from harness.hooks import Head
from harness.models import japanese, output_kind
from harness.models import random as random_models
from harness.words import labels, segment

TEXTS = ("犬が猫を追う。", "走る犬と歩く猫", "薔薇の花がｶﾞﾗｽの瓶にある")


def save(folder, subwords):
    """A folder as `save_pretrained` writes it: config, safetensors and the tokenizer's files."""
    model, _, _ = random_models.build("bert_japanese", 0)
    model.save_pretrained(folder)
    japanese.tokenizer("", subwords).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["wordpiece", "character"])
def folder(request, tmp_path_factory):
    return save(tmp_path_factory.mktemp("bert_japanese"), request.param)


@pytest.fixture(scope="module")
def model(folder):
    return harness.load_model("path", path=str(folder))


def mecab(text):
    """MeCab asked without the harness."""
    dictionary = unidic_lite.DICDIR
    return [word.surface for word in fugashi.GenericTagger(f'-d "{dictionary}" -r "{dictionary}/mecabrc"')(text)]


def test_the_folder_is_what_the_hub_gives(folder, model):
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"} <= names
    assert type(model.tokenizer).__name__ == model.identity["tokenizer"] == "BertJapaneseTokenizer"
    assert not model.tokenizer.is_fast
    assert model.kind == "masked_lm"


@pytest.mark.parametrize("text", TEXTS[:2])
def test_words_are_mecabs(model, text):
    encoded = model.tokens.encode(text)
    made = encoded.words(model.tokens.segmenter)
    assert [part for part in made.text if part] == mecab(text)
    assert made.ways == (segment.SPACES, "the tokenizer's own words (mecab)")


def test_a_tokens_characters_are_found_though_it_is_unknown_or_normalised(model):
    encoded = model.tokens.encode("薔薇の花がｶﾞﾗｽの瓶にある")
    unknown = [encoded.texts[0][slice(*span)] for token, span in zip(encoded.token, encoded.span) if token == "[UNK]"]  # noqa: B905
    assert unknown
    assert "".join(unknown) == "薔薇花瓶"
    assert "".join(encoded.words(model.tokens.segmenter).text[1:-1]) == encoded.texts[0]
    assert ("ガ" in encoded.token) or ("##ガ" in encoded.token)


def test_pairs_and_a_mask_in_the_text(model):
    encoded = model.tokens.encode("犬が[MASK]を追う", "猫 です")
    made = encoded.words(model.tokens.segmenter)
    assert [part for part in made.text if part] == [*["犬", "が", "[MASK]", "を", "追う", "猫", " です"]]
    first = encoded.sentence.index(1)
    assert encoded.token[first] == "猫"
    assert [encoded.texts[own][slice(*span)] for own, span in zip(encoded.sentence, encoded.span) if span][-2:] in (  # noqa: B905
        ["猫", "です"],
        ["で", "す"],
    )


def test_unlayable_tokens_are_told_apart_by_their_own_marks(model, monkeypatch):
    monkeypatch.setattr("harness.models.slow_spans.align", lambda text, pieces: None)
    made = model.tokens.encode("追う犬").words()
    assert made.ways == ("the tokens' own marks, a leading space or ##",)
    assert "".join(made.text[1:-1]).startswith("追う")


def by_masking(model, twin, token_id, word, position, heads):
    """The loss of one token of a prompt from the plain model, the later pieces of its word masked too."""
    hidden = token_id.clone()
    hidden[[at for at in range(position, len(token_id)) if word[at] == word[position]]] = model.tokenizer.mask_token_id
    scores = plain.logits(twin, hidden, heads, model.shape.d_head)[position].double().log_softmax(-1)
    return -float(scores[token_id[position]])


def test_masked_lm_effects_equal_plain_hugging_face_with_words_asked_of_mecab(folder, model):
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    twin = AutoModelForMaskedLM.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "犬が猫を追う。"
    pieces = [tokenizer.subword_tokenizer.tokenize(word) for word in mecab(text)]
    word = [-1, *(number for number, group in enumerate(pieces) for _ in group), -2]
    token_id = torch.tensor(tokenizer(text)["input_ids"])
    assert len(word) == len(token_id)
    assert max(map(len, pieces)) == 2  # 追う is two pieces, so that masking only one of them gives another loss

    prompts = harness.load_prompts("inline", model, text=[text, "走る犬と歩く猫です"])
    got = harness.ablate_heads(model, prompts, metrics=["loss"], heads=["L0H1", "L2H3"]).data
    unknown = tokenizer.unk_token_id
    scored = [at for at in range(1, len(word) - 1) if token_id[at] != unknown]
    clean = np.mean([by_masking(model, twin, token_id, word, at, ()) for at in scored])
    assert float(got.clean[0, 0]) == pytest.approx(clean, abs=1e-4)
    for head in (Head(0, 1), Head(2, 3)):
        want = np.mean([by_masking(model, twin, token_id, word, at, [head]) for at in scored])
        assert float(got.ablated[0, 0, head.layer, head.head]) == pytest.approx(want, abs=1e-4)
    assert float(abs(got.effect).max()) > 0.01


def test_a_study_from_the_folder_ends_and_keeps_the_words(command, folder):
    asked = "prompts.text=['犬が猫を追う。','走る犬と歩く猫']"
    code, out, err = command(
        *("study", "model=path", f"model.path={folder}", "prompts=inline", asked, "stats.resamples=200"),
        *("roles.n=2", "roles.length=6", "roles.draws=20", "attribution.targets=1"),
    )
    assert code == 0, err
    run = harness.open_run(out.strip())
    row = run.data.isel(prompt=1)
    end = int(row.length)
    assert harness.words.joined(row.word_text.values) == "走る犬と歩く猫"
    assert "the tokenizer's own words (mecab)" in run.data.word.attrs["method"]
    assert labels(row.token.values[:end], row.word.values[:end], row.word_text.values[:end])[0] == "[CLS]"


def test_a_random_shape_has_it_too(tiny):
    model = tiny("bert_japanese")
    assert output_kind.kind_of(model.bridge.original_model.config, "") == "masked_lm"
    assert model.tokens.encode("犬").token == ("[CLS]", "犬", "[SEP]")


def test_without_mecab_the_package_is_named(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "fugashi", None)
    with pytest.raises(RequestError, match="MeCab, which is not installed: pip install fugashi unidic-lite"):
        harness.load_model("path", path=str(folder))
    with pytest.raises(RequestError, match="model.shape=bert_japanese: it cuts words with MeCab"):
        harness.load_model("random", shape="bert_japanese")
