"""Tag words of a prompt (emotion words, names, pronouns …); each tag is a segment of the prompt.

Words are compared casefolded, without surrounding white space and punctuation. A word without a tag is ``other``;
special tokens are ``special``.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files

import yaml

from harness.config import RequestError
from harness.prompts.prompt import ANSWER, OTHER, QUESTION, SPECIAL, Prompt

Tags = Mapping[str, Sequence[str]]
PUNCTUATION = "punctuation"


def with_tags(prompt: Prompt, tags: Tags, key: str = "prompts.words") -> Prompt:
    """Return the prompt with each token's tag, the first that lists its word; unchanged without tags.

    Raises `RequestError` for an empty tag that is not built in, for a reserved name, and for phrases.
    """
    if not tags:
        return prompt
    known = {tag: _known(tag, listed, key) for tag, listed in tags.items()}
    text = _whole_words(prompt)
    labels = [
        SPECIAL if special else _tag(text[word], known)
        for word, special in zip(prompt.words.index, prompt.encoded.special, strict=True)
    ]
    return replace(prompt, part=tuple(labels))


def check_tags(tags: Tags, key: str) -> None:
    """Check the tags themselves, without a prompt. Raises `RequestError` as `with_tags` does."""
    for tag, listed in tags.items():
        _known(tag, listed, key)


def check_used(made: Sequence[Prompt], tags: Tags, key: str) -> None:
    """Raise `RequestError` for a tag with listed words none of which is in any prompt."""
    there = {part for prompt in made for part in prompt.part}
    for tag, listed in tags.items():
        if listed and tag not in there:
            raise RequestError(f"{key}.{tag}", list(listed), "none of these words stands in any prompt")


def parse_tags(value: object, key: str) -> dict[str, list[str]]:
    """Parse tags of a file: an object, or ``emotion: glad, angry; name: Alonzo``."""
    if isinstance(value, Mapping):
        tags = {str(tag): [words] if isinstance(words, str) else words for tag, words in value.items()}
    else:
        pairs = [pair.partition(":") for pair in str(value).split(";") if pair.strip()]
        tags = {tag.strip(): [word.strip() for word in words.split(",") if word.strip()] for tag, _, words in pairs}
    if not all(isinstance(words, list) and all(isinstance(word, str) for word in words) for words in tags.values()):
        raise RequestError(key, value, "write {tag: [word, …]}, or 'tag: word, word; tag: word'")
    return {tag: list(words) for tag, words in tags.items()}


def _known(tag: str, listed: Sequence[str], key: str) -> frozenset[str]:
    """Return the words of a tag in their compared form; none for ``punctuation``, which is matched by characters."""
    if tag in (OTHER, SPECIAL, QUESTION, ANSWER):
        raise RequestError(key, tag, "this is what words without a tag, or an answer, are called; choose another name")
    phrases = [word for word in listed if len(word.split()) != 1]
    if phrases:
        raise RequestError(f"{key}.{tag}", repr(phrases[0]), "a word is tagged by itself: list its words one by one")
    if listed or tag == PUNCTUATION:
        return frozenset(map(_bare, listed))
    built_in = yaml.safe_load(files("harness").joinpath("data/word_tags.yaml").read_text(encoding="utf-8"))
    if tag not in built_in:
        remedy = f"list its words; without a list there are {', '.join([PUNCTUATION, *built_in])}"
        raise RequestError(f"{key}.{tag}", "[]", remedy)
    return frozenset(built_in[tag])


def _tag(word: str, known: Mapping[str, frozenset[str]]) -> str:
    bare = _bare(word)
    read = {bare, re.split("['’]", bare)[0]}  # she's: she
    for tag, words in known.items():
        if read & words or (tag == PUNCTUATION and not words and word.strip() and not bare):
            return tag
    return OTHER


def _bare(word: str) -> str:
    """Return the word casefolded, without surrounding characters that are neither letters nor numbers."""
    inside = re.sub(r"^\W+|\W+$", "", word)
    return unicodedata.normalize("NFKC", inside).casefold()


def _whole_words(prompt: Prompt) -> dict[int, str]:
    """Return the text of each word."""
    texts: dict[int, str] = {}
    for word, text in zip(prompt.words.index, prompt.words.text, strict=True):
        texts[word] = texts.get(word, "") + text
    return texts
