"""One prompt from a row of values, named as the keys of `InlinePrompts`: a text of a request or a row of a file."""

from collections.abc import Mapping, Sequence
from typing import Any

from harness.config import RequestError, quoted
from harness.models import Model
from harness.prompts.prompt import Prompt, from_text, with_answer, with_counterfactual, with_relations
from harness.prompts.word_tags import Tags, with_tags


def from_row(model: Model, row: Mapping[str, Any], cluster: str, words: Tags, chat: bool = False) -> Prompt:
    """Make the prompt of a row: its ``text`` and, where they are there and not None, ``pair``, ``target``, ``answer``,
    ``distractor``, ``relations`` and ``counterfactual``; `words` are its word tags. With `chat` text and
    counterfactual are a user's messages.

    Raises `RequestError` with the key of the value that is wrong.
    """
    pair, answer, relations, other = (row.get(key) for key in ("pair", "answer", "relations", "counterfactual"))
    prompt = from_text(model, row["text"], cluster, pair=pair, target=row.get("target"), chat=chat)
    if answer is not None:
        prompt = with_answer(model, prompt, answer, row.get("distractor"))
    prompt = with_tags(prompt, words)
    if relations is not None:
        prompt = with_relations(prompt, relations)
    if other is None:
        return prompt
    encoded = model.tokens.encode_message(other)[0] if chat else model.tokens.encode(other, pair)
    return with_counterfactual(prompt, encoded.token_id, quoted(other), "prompts.counterfactual")


def check_parallel(spec: Any, keys: Sequence[str], n: int, noun: str) -> None:
    """Raise `RequestError` for a list of values that has not one for each of `n` prompts, and for a distractor without
    an answer."""
    for key in keys:
        values = getattr(spec, key)
        if values is not None and len(values) != n:
            raise RequestError(f"prompts.{key}", list(values), f"give one for each of the {n} {noun}")
    if spec.distractor and not spec.answer:
        remedy = "a distractor needs an answer: prompts.answer=[…]"
        raise RequestError("prompts.distractor", list(spec.distractor), remedy)
