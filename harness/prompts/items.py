"""Items of a choice between completions: ``prompts=choices prompts.task=agreement``, or ``prompts.path=items.jsonl``.

Context and completion are tokenized as by lm-evaluation-harness: white space at the context's end moves to the
completion, and a completion's tokens are those that it adds to as many tokens as the context has alone. The model reads
the context's own tokens, then these.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.config import ChoicePrompts, RequestError, quoted
from harness.models import Model
from harness.prompts import readers
from harness.prompts.answers import without_end
from harness.prompts.prompt import NOUN, Completion, Prompt, check_read, from_encoding, from_text
from harness.prompts.readers import Row
from harness.prompts.tasks import Item, make_items

#: Items of a task set where `prompts.n` is null.
N_ITEMS = 100


def make(spec: ChoicePrompts, model: Model) -> list[Prompt]:
    """Make one prompt for each item. Raises `RequestError` for a model without a vocabulary to score tokens of."""
    if model.kind not in ("decoder", "masked_lm", "encoder_decoder"):
        remedy = f"completions are compared by the probability of their tokens, and {model.name} is {NOUN[model.kind]}"
        raise RequestError("prompts", "choices", f"{remedy} without one; load a language model")
    return [_prompt(spec, model, item, place) for place, item in items(spec)]


def items(spec: ChoicePrompts) -> list[tuple[str, Item]]:
    """Return the items, each with its place, checked as far as possible without a model. Raises `RequestError`."""
    if spec.task:
        return _of_tasks(spec)
    if spec.length is not None:
        raise RequestError("prompts.length", spec.length, "it is for prompts.task=needle; leave it out")
    if spec.path is None:
        rows = [Row(f"item {number}", asdict(item)) for number, item in enumerate(spec.items)]
    else:
        columns = [spec.context, spec.choices, spec.answer, *spec.tags, *([spec.cluster] if spec.cluster else [])]
        rows = list(readers.read(Path(spec.path), {*columns}).rows)
    made = [(row.place, _item(spec, row)) for row in rows]
    if spec.n is None:
        return made
    if spec.n > len(made):
        raise RequestError("prompts.n", spec.n, f"there are {len(made)} items")
    drawn = np.random.default_rng(spec.seed).choice(len(made), spec.n, replace=False)
    return [made[at] for at in sorted(drawn)]


def _of_tasks(spec: ChoicePrompts) -> list[tuple[str, Item]]:
    """Make the items of each task, tagged with its name; a tag that a task does not have is empty."""
    made = [(name, make_items(name, spec.n or N_ITEMS, spec.seed, spec.length)) for name in spec.task]
    names = dict.fromkeys(tag for _, each in made for item in each for tag in item.tags)
    return [
        (f"item {number} of {name}", replace(item, tags={"task": name, **dict.fromkeys(names, ""), **item.tags}))
        for name, each in made
        for number, item in enumerate(each)
    ]


def _item(spec: ChoicePrompts, row: Row) -> Item:
    """Return the item of a row. Raises `RequestError` with the row's place."""
    for column in (spec.context, spec.choices, spec.answer, *spec.tags, *([spec.cluster] if spec.cluster else [])):
        if row.values.get(column) is None:
            raise _wrong(row.place, f"it has no {column!r}, only {', '.join(map(repr, row.values))}")
    context, choices = row.values[spec.context], _listed(row.values[spec.choices])
    if not isinstance(context, str):
        raise _wrong(row.place, f"{spec.context!r} is {readers.kind(context)}, not a text")
    if len(choices) < 2 or not all(isinstance(choice, str) for choice in choices):
        raise _wrong(row.place, f"{spec.choices!r} is {quoted(str(row.values[spec.choices]))}: list at least two texts")
    if len({*choices}) < len(choices):
        twice = next(choice for choice in choices if choices.count(choice) > 1)
        raise _wrong(row.place, f"two of its choices are equal: {twice!r}")
    answer = _number(row.values[spec.answer], choices)
    if answer is None:
        right = quoted(str(row.values[spec.answer]))
        raise _wrong(
            row.place, f"its answer {right} is neither one of its choices nor a number from 0 to {len(choices) - 1}"
        )
    cluster = row.values.get("cluster" if spec.items else spec.cluster or "")
    cluster = row.place if cluster is None else str(cluster)
    return Item(context, choices, answer, cluster, {name: str(row.values[name]) for name in spec.tags})


def _listed(value: Any) -> tuple[Any, ...]:
    """Return the list in a cell; one of a table of text is JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return ()
    return tuple(value) if isinstance(value, list | tuple | np.ndarray) else ()


def _number(answer: Any, choices: Sequence[str]) -> int | None:
    """Return the number of the right choice; its text comes first, so that choices may be numbers."""
    if isinstance(answer, str) and answer in choices:
        return choices.index(answer)
    if isinstance(answer, str) and answer.isdecimal():
        answer = int(answer)
    known = isinstance(answer, int | np.integer) and not isinstance(answer, bool) and 0 <= answer < len(choices)
    return int(answer) if known else None


def _wrong(place: str, remedy: str) -> RequestError:
    return RequestError("prompts", "choices", f"{place}: {remedy}")


def _prompt(spec: ChoicePrompts, model: Model, item: Item, place: str) -> Prompt:
    """Make the prompt of an item: that with the right completion, which has those of all."""
    choices = tuple(_completed(spec, model, item, number, place) for number in range(len(item.choices)))
    tokens = [[*each.correct.values()] for each in choices]
    if all(len(each) == 1 for each in tokens):
        distractor = tokens[1 - item.answer][0] if len(choices) == 2 else None
        choices = tuple(replace(each, answer=tokens[item.answer][0], distractor=distractor) for each in choices)
    return replace(choices[item.answer], choices=choices, tags=item.tags)


def _completed(spec: ChoicePrompts, model: Model, item: Item, number: int, place: str) -> Prompt:
    """Make the prompt of a context with one of its completions, whose tokens alone are scored."""
    context = item.context.rstrip()
    between = "" if spec.task and not context else spec.delimiter  # a task's whole sentences begin without a space
    text = f"{item.context[len(context) :]}{between}{item.choices[number]}"
    if model.kind == "encoder_decoder":
        prompt, merges = _written(model, context, text, item, place), False
    else:
        prompt, merges = _following(model, context, text, item, place)
    if not prompt.correct:
        raise _wrong(place, f"its choice {item.choices[number]!r} has no tokens under {model.name}'s tokenizer")
    return replace(prompt, completion=Completion(text, number, number == item.answer, merges))


def _written(model: Model, context: str, text: str, item: Item, place: str) -> Prompt:
    """Make the prompt of an encoder-decoder, which reads the context and writes the completion, without its end."""
    if not context:
        raise _wrong(place, f"its context is empty, and {model.name} reads a context and writes the completion")
    prompt = from_text(model, context, item.cluster, "prompts", target=text.strip())
    return replace(prompt, correct=dict(enumerate(without_end(model.tokens, text.strip()))))


def _following(model: Model, context: str, text: str, item: Item, place: str) -> tuple[Prompt, bool]:
    """Make the prompt of a decoder or a masked-LM, and say whether the completion merges with the context."""
    tokens = model.tokens
    begin = tokens.bos_id
    if not context and begin is None:
        raise _wrong(place, f"its context is empty, and {model.name} has no token that begins a text")
    before = [begin] if not context and begin is not None else list(without_end(tokens, context))
    encoded = tokens.encode(context + text)
    whole = list(without_end(tokens, context + text))
    if not context and whole[:1] != before:
        whole = [*before, *whole]
    merges, added = whole[: len(before)] != before, whole[len(before) :]
    if model.kind == "decoder" and (merges or not context):
        encoded = tokens.from_ids([*before, *added])
    check_read(encoded, context + text, model, "prompts")
    prompt = from_encoding(model, encoded, context + text, item.cluster)
    first = len(before) - (model.kind == "decoder")
    return replace(prompt, correct=dict(enumerate(added, first))), merges
