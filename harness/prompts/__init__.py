"""Load prompts from specs: tokens, targets, answers, counterfactuals and clusters.

One file per prompt set. `prompt` makes a prompt of a text, `answers` finds the token of an answer, `generation`
appends greedy continuations, `context` splits a long context into segments, `padding` pads prompts to one length. All
arrays are numpy; only `generation` runs the model, the others use its tokenizer.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, get_args

from harness import config
from harness.config import PromptSpec, RequestError
from harness.models import Model
from harness.prompts.padding import Prompts as Prompts
from harness.prompts.padding import Source as Source
from harness.prompts.padding import batches as batches
from harness.prompts.padding import masked as masked
from harness.prompts.padding import pad as pad
from harness.prompts.prompt import NOUN, check_embedded
from harness.prompts.prompt import Prompt as Prompt
from harness.prompts.prompt import from_text as from_text
from harness.prompts.prompt import with_answer as with_answer


def load_prompts(prompts: str | Any, model: Model, **overrides: object) -> Prompts:
    """Load prompts for a model, from the name of a prompt set (with keywords) or a spec.

    Raises `RequestError` for a text that is empty or too long for the model, for a name or answer that is not a single
    token under the model's tokenizer, and for prompts that this kind of model cannot run.
    """
    from harness.prompts import generation

    if isinstance(prompts, str) and config.is_a_text(prompts):
        remedy = 'this is the name of a prompt set; give a text as load_prompts("inline", model, text=["…"])'
        raise RequestError("prompts", config.quoted(prompts), remedy)
    if isinstance(prompts, str):
        spec = config.parse(PromptSpec, {"name": prompts, **overrides}, "prompts.")
    else:
        spec = replace(prompts, **overrides)
    if model.kind != "decoder" and isinstance(spec, config.IoiPrompts | config.InductionPrompts):
        remedy = f"it scores next tokens, and {model.name} is {NOUN[model.kind]}; give prompts=inline or file"
        raise RequestError("prompts", spec.name, remedy)
    with model.alone():  # tokenizers are not thread-safe either
        made = _maker(spec)(spec, model)
        for prompt in made:
            check_embedded(_all_tokens(prompt, model), prompt.text, model, "prompts")
        if n := getattr(spec, "generate", 0):
            made = generation.generate(model, made, n)
        if model.kind == "classifier":
            made = generation.label_prompts(model, made)
        return replace(pad(spec.name, made, model), spec=spec)


def check_prompts(spec: Any) -> None:
    """Check what needs neither a model nor torch, the files of a spec included.

    Raises `RequestError` for a file that is missing or damaged, for columns, rows and parts that are not there or
    empty, and for lists of different lengths.
    """
    from harness.prompts import context, file, inline

    checks = {config.FilePrompts: file.check, config.InlinePrompts: inline.check, config.PartsPrompts: context.check}
    if check := checks.get(type(spec)):
        check(spec)


def _all_tokens(prompt: Prompt, model: Model) -> Iterator[int]:
    """Yield every token that a prompt feeds to the model or scores."""
    yield from prompt.encoded.token_id
    yield from prompt.source.token_id if prompt.source else ()
    yield from prompt.counterfactual or ()
    if model.kind == "masked_lm":
        yield model.tokens.mask_id
    if model.kind != "classifier":  # whose answers are labels
        yield from (*prompt.correct.values(), *filter(None, (prompt.answer, prompt.distractor)))


def _maker(spec: PromptSpec) -> Callable[[Any, Model], list[Prompt]]:
    from harness.prompts import context, file, induction, inline, ioi, prose

    makers = {
        config.IoiPrompts: ioi.make,
        config.InductionPrompts: induction.make,
        config.InlinePrompts: inline.make,
        config.ProsePrompts: prose.make,
        config.FilePrompts: file.make,
        config.PartsPrompts: context.make,
    }
    assert set(makers) == set(get_args(get_args(PromptSpec)[0]))
    return makers[type(spec)]
