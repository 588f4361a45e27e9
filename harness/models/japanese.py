"""A small Japanese BERT tokenizer: MeCab cuts words, WordPiece or single characters spell them."""

import string
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from harness.config import RequestError

MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
#: Words that the WordPiece vocabulary has whole; others are spelled by their characters.
WORDS = ("です", "ます", "する", "した", "いる", "ある", "ない", "から", "まで", "走る", "the", "and", "dog")
KANA = "".join(map(chr, [*range(0x3041, 0x3097), *range(0x30A1, 0x30FB), 0x30FC]))


def tokenizer(name: str, subwords: Literal["wordpiece", "character"] = "wordpiece") -> Any:
    """Build a `BertJapaneseTokenizer` with the characters of the built-in Japanese passages and of ASCII.

    Raises `RequestError` without the extra ``ja``.
    """
    from transformers import BertJapaneseTokenizer

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.txt"
        path.write_text("\n".join(vocabulary()) + "\n", encoding="utf-8")
        try:
            return BertJapaneseTokenizer(
                str(path),
                word_tokenizer_type="mecab",
                subword_tokenizer_type=subwords,
                mecab_kwargs={"mecab_dic": "unidic_lite"},
                name_or_path=name,
            )
        except ModuleNotFoundError:
            remedy = "it cuts words with MeCab, which is not installed: pip install fugashi unidic-lite"
            raise RequestError("model.shape", "bert_japanese", remedy) from None


def vocabulary() -> list[str]:
    """List special tokens, characters at the beginning of a word and within one, a few words."""
    text = files("harness").joinpath("data/prose_ja.txt").read_text(encoding="utf-8")
    letters = sorted({*text, *KANA, *string.printable, *"犬猫追歩"} - {*string.whitespace, "\u3000"})
    return [*MARKS, *letters, *(f"##{letter}" for letter in letters), *WORDS]
