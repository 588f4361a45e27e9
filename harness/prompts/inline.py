"""Texts written in the request itself: ``prompts.text=['The capital of France is']``, with answers if there are any."""

from harness.config import InlinePrompts, RequestError
from harness.models import Model
from harness.prompts.prompt import Prompt, from_text, with_answer, with_relations
from harness.prompts.relations import parse_triples
from harness.prompts.word_tags import check_tags, check_used, with_tags


def make(spec: InlinePrompts, model: Model) -> list[Prompt]:
    """Make one prompt per text; answer and distractor are single tokens, written with their leading space, or labels
    of a classifier; a target is what an encoder-decoder should write."""
    check(spec)
    made = [with_tags(_prompt(spec, model, number), spec.words) for number in range(len(spec.text))]
    check_used(made, spec.words, "prompts.words")
    return made


def check(spec: InlinePrompts) -> None:
    """Check what needs no model: that lists are equally long, tags and relations. Raises `RequestError`."""
    if not spec.text:
        raise RequestError("prompts.text", "[]", "give at least one text")
    for key in ("pair", "target", "answer", "distractor", "cluster", "relations"):
        values = getattr(spec, key)
        if values is not None and len(values) != len(spec.text):
            raise RequestError(f"prompts.{key}", list(values), f"give one for each of the {len(spec.text)} texts")
    if spec.distractor and not spec.answer:
        raise RequestError(
            "prompts.distractor", list(spec.distractor), "a distractor needs an answer: prompts.answer=[…]"
        )
    check_tags(spec.words, "prompts.words")
    for relations in spec.relations or ():
        parse_triples(relations)


def _prompt(spec: InlinePrompts, model: Model, number: int) -> Prompt:
    pair, target = (each[number] if each else None for each in (spec.pair, spec.target))
    cluster = spec.cluster[number] if spec.cluster else f"text {number}"
    prompt = from_text(model, spec.text[number], cluster, pair=pair, target=target)
    if spec.relations:
        prompt = with_relations(prompt, spec.relations[number])
    if not spec.answer:
        return prompt
    return with_answer(model, prompt, spec.answer[number], spec.distractor[number] if spec.distractor else None)
