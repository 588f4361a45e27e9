"""Contexts of named segments: an instruction, documents, a question after them; the answer is scored.

A token belongs to the segment of its last character; the joint of two segments belongs to the first. The answer is a
segment too, since its later tokens read its earlier ones.
"""

import json
from bisect import bisect_right
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml

from harness import config
from harness.config import Context, ContextPrompts, RequestError
from harness.models import Model
from harness.models.tokens import Encoding
from harness.prompts.prompt import ANSWER, NOUN, QUESTION, SPECIAL, Prompt, from_text
from harness.words import is_unspaced

_TAKEN = (QUESTION, ANSWER, SPECIAL)


def make(spec: ContextPrompts, model: Model) -> list[Prompt]:
    """Make one prompt for each context."""
    if model.kind != "decoder":
        raise RequestError("prompts", "context", f"{model.name} is {NOUN[model.kind]}: an answer needs a decoder")
    return [_prompt(spec, model, number, context) for number, context in enumerate(check(spec))]


def check(spec: ContextPrompts) -> tuple[Context, ...]:
    """Read and return the contexts, checked as far as possible without a model: the file, the names of segments."""
    contexts = _contexts(spec)
    for number, context in enumerate(contexts):
        _check_context(f"prompts.contexts.{number}", context)
    return contexts


def _contexts(spec: ContextPrompts) -> tuple[Context, ...]:
    if (spec.path is None) == (not spec.contexts):
        remedy = "set prompts.path=context.json, or prompts.contexts=[{parts: …, question: …}]; one of them"
        raise RequestError("prompts.path", spec.path, remedy)
    if spec.path is None:
        return spec.contexts
    read = _read(Path(spec.path))
    listed = read if isinstance(read, list) else [read]
    if not listed:
        raise RequestError("prompts.path", spec.path, "this file has no context in it")
    return tuple(_context(spec.path, number, one) for number, one in enumerate(listed))


def _context(path: str, number: int, values: Any) -> Context:
    if not isinstance(values, dict):
        raise RequestError("prompts.path", path, f"context {number} is not an object with parts and a question")
    try:
        return config.parse(Context, values)
    except RequestError as error:
        raise RequestError("prompts.path", path, f"context {number}, {error}") from None


def _read(path: Path) -> Any:
    """Read a JSON or YAML file."""
    if path.suffix.lower() not in (".json", ".yaml", ".yml"):
        raise RequestError("prompts.path", path, "contexts are read from .json, .yaml and .yml")
    try:
        text = path.read_text(encoding="utf-8-sig")
        return json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except FileNotFoundError:
        raise RequestError("prompts.path", path, f"there is no such file (looked for {path.absolute()})") from None
    except OSError as error:
        raise RequestError("prompts.path", path, f"this file cannot be opened ({error.strerror})") from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise RequestError("prompts.path", path, f"this file cannot be read ({error})") from None


def _check_context(key: str, context: Context) -> None:
    names = [part.name for part in context.parts]
    for name in names:
        if names.count(name) > 1 or name in _TAKEN:
            why = f"a part needs a name of its own, and not {', '.join(_TAKEN)}"
            raise RequestError(f"{key}.parts", name, why)
    if not context.question.strip():
        raise RequestError(f"{key}.question", repr(context.question), "ask something after the parts")
    if context.answer is not None and not context.answer.strip():
        raise RequestError(f"{key}.answer", repr(context.answer), "write an answer, or leave it out")


def _prompt(spec: ContextPrompts, model: Model, number: int, context: Context) -> Prompt:
    names, key = [part.name for part in context.parts], f"prompts.contexts.{number}"
    pieces = [f"{part.text}{spec.between}" for part in context.parts] + [context.question]
    names = [*names, QUESTION]
    if context.answer is not None:
        pieces, names = [*pieces, _after(context.question, context.answer)], [*names, ANSWER]
    prompt = from_text(model, "".join(pieces), context.cluster or f"context {number}", key)
    part = _part_of(prompt.encoded, pieces, names)
    answer = {at: token for at, token in prompt.correct.items() if part[at + 1] == ANSWER}
    return replace(prompt, part=part, correct=answer or prompt.correct)


def _after(question: str, answer: str) -> str:
    """Return the answer with a space before it, unless the question ends in one or the script has none."""
    if question[-1].isspace():
        return answer.lstrip()
    apart = answer[0].isspace() or is_unspaced(question[-1]) or is_unspaced(answer[0])
    return answer if apart else f" {answer}"


def _part_of(encoded: Encoding, pieces: list[str], names: list[str]) -> tuple[str, ...]:
    """Return the segment of each token."""
    begins = [0, *accumulate(map(len, pieces))][: len(pieces)]
    parts: list[str] = []
    for span, special in zip(encoded.span, encoded.special, strict=True):
        if span is None and not special:
            remedy = "its tokenizer gives no offsets, so its tokens cannot be assigned to parts"
            raise RequestError("model", encoded.token[len(parts)], remedy)
        parts.append(SPECIAL if span is None else names[bisect_right(begins, max(span[0], span[1] - 1)) - 1])
    return tuple(parts)
