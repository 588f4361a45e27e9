"""Texts written in the request itself: ``prompts.text=['The capital of France is']``, with answers if there are any."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from harness.config import InlinePrompts, RequestError
from harness.models import Model
from harness.prompts.prompt import Prompt
from harness.prompts.relations import parse_triples
from harness.prompts.row import check_parallel, from_row
from harness.prompts.word_tags import check_tags, check_used

#: The keys with one value for each text.
PARALLEL = ("pair", "target", "answer", "distractor", "cluster", "relations", "counterfactual")


def make(spec: InlinePrompts, model: Model) -> list[Prompt]:
    """Make one prompt per text; answer and distractor are single tokens, written with their leading space, or labels
    of a classifier; a target is what an encoder-decoder should write."""
    check(spec)
    made = [prompt_at(spec, model, number) for number in range(len(spec.text))]
    check_used(made, spec.words, "prompts.words")
    return made


def check(spec: InlinePrompts) -> None:
    """Check what needs no model: that lists are equally long, tags and relations. Raises `RequestError`."""
    if not spec.text:
        raise RequestError("prompts.text", "[]", "give at least one text")
    check_parallel(spec, PARALLEL, len(spec.text), "texts")
    for name, values in spec.tags.items():
        if len(values) != len(spec.text):
            raise RequestError(f"prompts.tags.{name}", list(values), f"give one for each of the {len(spec.text)} texts")
    check_tags(spec.words, "prompts.words")
    for relations in spec.relations or ():
        parse_triples(relations)


def prompt_at(spec: InlinePrompts, model: Model, number: int) -> Prompt:
    """Make the prompt of one text of a checked spec."""

    def at(values: Sequence[str] | None) -> Any:
        return values[number] if values else None

    row = {"text": spec.text[number], **{key: at(getattr(spec, key)) for key in PARALLEL}}
    prompt = from_row(model, row, row["cluster"] or f"text {number}", spec.words, spec.chat)
    return replace(prompt, tags={name: values[number] for name, values in spec.tags.items()})
