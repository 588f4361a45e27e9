"""Indirect-object identification (Wang et al. 2022, arXiv:2211.00593): "When Mary and John went to the store, John
gave a drink to" is followed by "Mary".

Half of the prompts name the answer first (ABBA), half second (BABA). The counterfactual puts a third name where the
repeated one stands, which leaves the answer undetermined. Roles of tokens: the indirect object is the answer, the
subject the repeated name, the second subject its repetition.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from harness import words
from harness.config import IoiPrompts, RequestError
from harness.models import Model
from harness.prompts.prompt import Prompt, from_text, with_answer


def make(spec: IoiPrompts, model: Model) -> list[Prompt]:
    """Make `spec.n` prompts with three names each; templates in random order, repeated only when all were used."""
    rng = np.random.default_rng(spec.seed)
    names = _names(spec, model)
    templates = words.ioi_data()["templates"]
    order = np.concatenate([rng.permutation(len(templates)) for _ in range(-(-spec.n // len(templates)))])[: spec.n]
    return [
        _prompt(model, templates[which], int(which), [names[at] for at in rng.permutation(len(names))[:3]], flip)
        for which, flip in zip(order, rng.permutation(spec.n) % 2 == 0, strict=True)
    ]


def _names(spec: IoiPrompts, model: Model) -> list[str]:
    """Return names that are one token each. Raises `RequestError` for a user's name that is not."""
    if spec.names is None:
        pool = [name for name in words.ioi_data()["names"] if _is_single(model, name)]
        remedy = "the model's tokenizer splits nearly all built-in names; give prompts.names=[…] or prompts=induction"
    else:
        for name in spec.names:
            model.tokens.single(f" {name}", "prompts.names")
        pool, remedy = list(dict.fromkeys(spec.names)), "give at least three different names"
    if len(pool) < 3:
        raise RequestError("prompts.names", pool, remedy)
    return pool


def _is_single(model: Model, name: str) -> bool:
    try:
        model.tokens.single(f" {name}", "prompts.names")
    except RequestError:
        return False
    return True


def _prompt(model: Model, template: str, number: int, names: list[str], answer_first: Any) -> Prompt:
    answer, subject, third = (f" {name}" for name in names)
    first, second = (answer, subject) if answer_first else (subject, answer)
    prompt = from_text(model, template.format(A=first, B=second, S=subject), f"template {number}", "prompts")
    other = model.tokens.encode(template.format(A=first, B=second, S=third))
    named = with_answer(model, prompt, answer, subject, ("prompts.names", "prompts.names"))
    return replace(named, counterfactual=other.token_id, role=_roles(named))


def _roles(prompt: Prompt) -> tuple[str, ...]:
    """Return what each token is: names are single tokens, and the repeated one is the subject."""
    ids = prompt.encoded.token_id
    role = ["indirect object" if token == prompt.answer else "other" for token in ids]
    places = [at for at, token in enumerate(ids) if token == prompt.distractor]
    for at, name in zip(places, ("subject", "second subject"), strict=True):
        role[at] = name
    return tuple(role)
