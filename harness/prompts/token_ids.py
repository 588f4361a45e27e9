"""Prompts as token ids, used as they are: ``prompts=token_ids prompts.token_id=[[504,3575,282]]``."""

from harness.config import RequestError, TokenIdPrompts
from harness.models import Model
from harness.prompts.prompt import Prompt, check_read, from_encoding, with_answer, with_counterfactual
from harness.prompts.row import check_parallel

#: The keys with one value for each prompt.
PARALLEL = ("target", "answer", "distractor", "cluster", "counterfactual")


def make(spec: TokenIdPrompts, model: Model) -> list[Prompt]:
    """Make one prompt for each list of ids; its text, words and labels are what the tokenizer decodes."""
    check(spec)
    return [_prompt(spec, model, number) for number in range(len(spec.token_id))]


def check(spec: TokenIdPrompts) -> None:
    """Check what needs no model: that lists are equally long. Raises `RequestError`."""
    if not spec.token_id:
        raise RequestError("prompts.token_id", "[]", "give at least one list of token ids")
    check_parallel(spec, PARALLEL, len(spec.token_id), "prompts")


def _prompt(spec: TokenIdPrompts, model: Model, number: int) -> Prompt:
    ids = spec.token_id[number]
    _check_vocabulary(ids, number, model, "prompts.token_id")
    encoded = model.tokens.from_ids(ids)
    text = encoded.texts[0]
    check_read(encoded, text, model, "prompts.token_id")
    cluster = spec.cluster[number] if spec.cluster else f"text {number}"
    prompt = from_encoding(model, encoded, text, cluster, spec.target[number] if spec.target else None)
    if spec.answer:
        prompt = with_answer(model, prompt, spec.answer[number], spec.distractor[number] if spec.distractor else None)
    if spec.counterfactual is None:
        return prompt
    other, key = spec.counterfactual[number], "prompts.counterfactual"
    _check_vocabulary(other, number, model, key)
    return with_counterfactual(prompt, other, str(list(other)), key)


def _check_vocabulary(ids: tuple[int, ...], number: int, model: Model, key: str) -> None:
    n = model.shape.d_vocab
    beyond = [token for token in ids if token >= n]
    if beyond:
        remedy = f"prompt {number} has a token that {model.name} has not: its ids are 0-{n - 1}"
        raise RequestError(key, beyond[0], f"{remedy}; make them with model.tokenizer")
