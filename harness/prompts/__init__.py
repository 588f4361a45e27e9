"""Load prompts from specs: tokens, targets, answers, counterfactuals and clusters.

One file per prompt set. `needs` checks what an ablation or a metric needs of a spec, `spec_of` makes a spec of texts, a
DataFrame or token ids that the caller holds, `prompt` makes a prompt of a text, `row` of a text with its other values,
`answers` finds the token of an answer, `generation` appends greedy continuations, `context` splits a long context into
segments, `items` makes a choice between completions (of `tasks`, from templates), `padding` pads prompts to one length,
`choices` the completions of items, and `batching` divides them. All arrays are numpy; only `generation` runs the model,
the others use its tokenizer.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, get_args

from harness import config
from harness.config import PromptSpec, RequestError
from harness.config.describe import options_of
from harness.models import Model
from harness.prompts.batching import batches as batches
from harness.prompts.batching import masked as masked
from harness.prompts.choices import pad_items
from harness.prompts.padding import Prompts as Prompts
from harness.prompts.padding import Source as Source
from harness.prompts.padding import pad as pad
from harness.prompts.prompt import NOUN, check_embedded
from harness.prompts.prompt import Prompt as Prompt
from harness.prompts.prompt import from_text as from_text
from harness.prompts.prompt import with_answer as with_answer


def load_prompts(prompts: Any, model: Model, *, scored: bool = True, **overrides: object) -> Prompts:
    """Load prompts for a model: a prompt set by name or spec, or texts, a table or token ids that the caller holds.

    `prompts` is one of

    - the name of a prompt set, with its keys as `overrides` (``load_prompts("ioi", model, n=8)``), or a spec;
    - a list of texts, with ``answer=``, ``distractor=``, ``counterfactual=``, ``cluster=``, ``pair=``, ``target=`` as
      lists of the same length (or one text for a list of one);
    - a pandas DataFrame with columns of these names and ``text``, or others named by ``column="question",
      answer="gold"``; ``tags=["topic"]`` copies columns to the results. Other columns are ignored;
    - token ids, used as they are (no BOS is added): lists of lists, an array or tensor [prompt, position], or a
      tokenizer's output, whose attention mask says what is padding. Words and labels are what the tokenizer decodes.

    The result's `spec` holds plain values and loads the same prompts again. With ``scored=False`` a prompt may have no
    token whose prediction is scored: enough to be continued.

    Raises `RequestError` for a text that is empty or too long for the model, for a name or answer that is not a single
    token under the model's tokenizer, for ids outside its vocabulary, and for prompts that this kind of model cannot
    run.

    >>> import harness
    >>> model = harness.load_model("random")
    >>> prompts = harness.load_prompts(["John gave a drink to"], model, answer=" Mary", distractor=" John")
    >>> prompts.answer_text, prompts.target.sum(axis=1).tolist()
    ((' Mary',), [1])
    >>> ids = model.tokenizer(["John gave a drink to"])
    >>> harness.load_prompts(ids, model, answer=" Mary", distractor=" John").sha256 == prompts.sha256
    True
    """
    from harness.prompts import generation

    spec, places = _spec(prompts, model, overrides)
    if model.kind != "decoder" and isinstance(spec, config.IoiPrompts | config.InductionPrompts):
        remedy = f"it scores next tokens, and {model.name} is {NOUN[model.kind]}; give prompts=inline or file"
        raise RequestError("prompts", spec.name, remedy)
    with model.alone():  # tokenizers are not thread-safe either
        made = _of_rows(spec, model, places) if places else _maker(spec)(spec, model)
        for prompt in made:
            check_embedded(_all_tokens(prompt, model), prompt.text, model, "prompts")
        if n := getattr(spec, "generate", 0):
            made = generation.generate(model, made, n)
        if model.kind == "classifier":
            made = generation.label_prompts(model, made)
        if isinstance(spec, config.ChoicePrompts):
            return replace(pad_items(spec.name, made, model), spec=spec)
        return replace(pad(spec.name, made, model, scored), spec=spec)


def _spec(prompts: Any, model: Model, overrides: dict[str, object]) -> tuple[Any, list[str]]:
    """Return the spec of what the caller passed, and the places of a DataFrame's rows."""
    import pandas as pd

    from harness.prompts.spec_of import spec_of, spec_of_frame

    if isinstance(prompts, str):
        config.check_names({"name": prompts}, "prompts.")
        names = prompt_sets()
        if prompts not in names:
            remedy = f"{config.near(prompts, names)}; pass a list to use it as a text: load_prompts([text], model)"
            raise RequestError("prompts", config.quoted(prompts), remedy)
        return config.parse(PromptSpec, {"name": prompts, **overrides}, "prompts."), []
    if isinstance(prompts, get_args(get_args(PromptSpec)[0])):
        return config.parse(PromptSpec, {**asdict(prompts), **overrides}, "prompts."), []
    if isinstance(prompts, pd.DataFrame):
        return spec_of_frame(prompts, overrides)
    return spec_of(prompts, model.tokenizer, overrides), []


def prompt_sets() -> tuple[str, ...]:
    """Return the names of the prompt sets."""
    return tuple(sorted(options_of(PromptSpec)))


def _of_rows(spec: config.InlinePrompts, model: Model, places: Sequence[str]) -> list[Prompt]:
    """Make the prompts of a DataFrame's rows; errors in their tokens name the row."""
    from harness.prompts import inline
    from harness.prompts.spec_of import of_frame

    made = []
    for number, place in enumerate(places):
        with of_frame(place):
            made.append(inline.prompt_at(spec, model, number))
    return made


def check_prompts(spec: Any) -> None:
    """Check what needs neither a model nor torch, the files of a spec included.

    Raises `RequestError` for a file that is missing or damaged, for columns, rows and parts that are not there or
    empty, and for lists of different lengths.
    """
    from harness.prompts import context, file, inline, items, token_ids

    checks = {
        config.FilePrompts: file.check,
        config.InlinePrompts: inline.check,
        config.TokenIdPrompts: token_ids.check,
        config.ContextPrompts: context.check,
        config.ChoicePrompts: items.items,
    }
    if check := checks.get(type(spec)):
        check(spec)


def _all_tokens(prompt: Prompt, model: Model) -> Iterator[int]:
    """Yield every token that a prompt feeds to the model or scores."""
    yield from prompt.encoded.token_id
    yield from prompt.source.token_id if prompt.source else ()
    yield from prompt.counterfactual or ()
    for choice in prompt.choices:
        yield from (*choice.encoded.token_id, *choice.correct.values())
    if model.kind == "masked_lm":
        yield model.tokens.mask_id
    if model.kind != "classifier":  # whose answers are labels
        yield from (*prompt.correct.values(), *filter(None, (prompt.answer, prompt.distractor)))


def _maker(spec: PromptSpec) -> Callable[[Any, Model], list[Prompt]]:
    from harness.prompts import context, file, induction, inline, ioi, items, prose, token_ids

    makers = {
        config.IoiPrompts: ioi.make,
        config.InductionPrompts: induction.make,
        config.InlinePrompts: inline.make,
        config.TokenIdPrompts: token_ids.make,
        config.ProsePrompts: prose.make,
        config.FilePrompts: file.make,
        config.ContextPrompts: context.make,
        config.ChoicePrompts: items.make,
    }
    assert set(makers) == set(get_args(get_args(PromptSpec)[0]))
    return makers[type(spec)]
