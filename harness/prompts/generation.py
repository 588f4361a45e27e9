"""Greedy continuations, and a classifier's own labels, as what is scored."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.config import RequestError
from harness.models import Model
from harness.prompts.batching import batches
from harness.prompts.padding import pad
from harness.prompts.prompt import ANSWER, NOUN, Prompt


def generate(model: Model, made: Sequence[Prompt], n: int) -> list[Prompt]:
    """Continue each prompt greedily by `n` tokens, or up to the end-of-text token; these tokens are scored.

    Contexts of named segments are continued up to a line break, and not at all where they have an answer.

    In a decoder, a position's attention does not depend on what comes after it: the patterns of the whole text are
    those that the model had while it wrote.
    """
    if model.kind not in ("decoder", "encoder_decoder"):
        raise RequestError("prompts.generate", n, f"{model.name} is {NOUN[model.kind]}: it does not continue a text")
    answered = [ANSWER in prompt.part for prompt in made]
    for prompt, done in zip(made, answered, strict=True):
        if done:
            continue
        if prompt.answer is not None:
            remedy = "an answer is scored in place of what the model writes: leave out one of them"
            raise RequestError("prompts.generate", n, remedy)
        total, limit = len(prompt.encoded.token_id) + n, model.shape.n_ctx
        if total > limit:
            raise RequestError("prompts.generate", n, f"this makes {total} tokens, {model.name} takes {limit}")
    unscored = [replace(prompt, correct={}) for prompt in made]
    growing = [
        prompt if done else replace(prompt, correct={len(prompt.encoded.token_id) - 1: 0})
        for prompt, done in zip(made, answered, strict=True)
    ]
    new: list[list[int]] = [[] for _ in made]
    for _ in range(n):
        going = [at for at, tokens in enumerate(new) if not answered[at] and not _ended(model, made[at], tokens)]
        for at, token in _next_tokens(model, growing, going):
            new[at].append(token)
            growing[at] = _continued(model, unscored[at], new[at])
    return growing


def _ended(model: Model, prompt: Prompt, new: Sequence[int]) -> bool:
    """Whether the last new token ends the text, or the answer to a context's question."""
    if not new:
        return False
    return new[-1] == model.tokenizer.eos_token_id or (bool(prompt.part) and "\n" in model.tokens.string(new[-1]))


def _next_tokens(model: Model, made: Sequence[Prompt], going: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the most likely next token of each of these prompts."""
    import torch

    if not going:
        return
    prompts = pad("", [made[at] for at in going], model)
    for batch in batches(prompts):
        rows = prompts.take(batch)
        with torch.no_grad():
            logits = model.forward(rows.inputs(model.device))
        last = logits[torch.arange(len(rows)), torch.as_tensor(rows.length - 1)]
        for at, token in zip(batch, last.argmax(-1).tolist(), strict=True):
            yield going[at], token


def _continued(model: Model, prompt: Prompt, new: list[int]) -> Prompt:
    """Append tokens to a prompt, each scored where it is predicted."""
    before = prompt.encoded
    first, number = len(before.token_id) - 1, before.sentence[-1]
    added, spans = model.tokens.spelled(new, after=[before.token_id[-1]])
    texts = [*before.texts, *[""] * (number + 1 - len(before.texts))]
    end, texts[number] = len(texts[number]), texts[number] + added
    encoded = model.tokens.describe(
        [*before.token_id, *new],
        [*before.span, *((end + start, end + stop) for start, stop in spans)],
        [*before.segment, *[before.segment[-1]] * len(new)],
        [*before.sentence, *[number] * len(new)],
        texts,
    )
    return replace(
        prompt,
        text=prompt.text + ("" if prompt.source is None else " → ") + model.tokenizer.decode(new),
        encoded=encoded,
        words=encoded.words(model.tokens.segmenter),
        correct={first + at: token for at, token in enumerate(new)},
        part=(*prompt.part, *[ANSWER] * len(new)) if prompt.part else (),
    )


def label_prompts(model: Model, made: Sequence[Prompt]) -> list[Prompt]:
    """Return a classifier's prompts, with the model's own label where they have none."""
    import torch

    labelled = list(made)
    missing = [at for at, prompt in enumerate(made) if not prompt.correct]
    if not missing:
        return labelled
    padded = pad("", [replace(made[at], correct={0: 0}) for at in missing], model)
    for batch in batches(padded):
        with torch.no_grad():
            labels = model.label_logits(padded.take(batch).inputs(model.device)).argmax(-1).tolist()
        for at, label in zip(batch, labels, strict=True):
            labelled[missing[at]] = replace(made[missing[at]], correct={0: label}, answer=label)
    return labelled
