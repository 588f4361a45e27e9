"""Generation of text, greedy or sampled, from a key–value cache where the family allows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice, takewhile

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer, EncoderDecoderCache

from harness import hooks
from harness.config import RequestError, quoted
from harness.models import Inputs, Model

#: Chooses the next token from its logits.
Choose = Callable[[Float[Tensor, " vocab"]], int]


def greedy(logits: Float[Tensor, " vocab"]) -> int:
    """Choose the most likely token."""
    return int(logits.argmax())


def sampler(seed: int, temperature: float = 1.0, device: str = "cpu") -> Choose:
    """Return a choice that draws each token from the softmax of its logits over `temperature`.

    The draws are those of `torch.multinomial` after ``manual_seed(seed)``, so that two models that agree draw the same.
    """
    generator = torch.Generator(device).manual_seed(seed)
    return lambda logits: int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator))


def generate(model: Model, text: str, max_new_tokens: int) -> str:
    """Continue a text greedily (`Model.generate`)."""
    read = readable(model, text, max_new_tokens)
    with model.alone():
        new = [token for token, _ in written(model, read, max_new_tokens)]
    return spelled(model, text, read, new)


def readable(model: Model, text: str, max_new_tokens: int) -> list[int]:
    """Return a text's tokens. Raises `RequestError` for a model that writes no text, and for a text that is empty or
    has no room for the new tokens."""
    check_writes(model)
    read = model.tokens.encode(text).token_id
    if not read:
        raise RequestError("text", quoted(text), "give a text with at least one token")
    check_room(model, len(read), max_new_tokens)
    return [*read]


def check_writes(model: Model) -> None:
    """Raise `RequestError` for a model that writes no text."""
    if model.kind not in ("decoder", "encoder_decoder"):
        raise RequestError("model", model.name, "it does not continue a text: load a decoder or an encoder-decoder")


def check_room(model: Model, n_read: int, max_new_tokens: int, key: str = "max_new_tokens") -> None:
    """Raise `RequestError` with `key` where the model does not take this many new tokens after those that it reads."""
    if max_new_tokens < 1:
        raise RequestError(key, max_new_tokens, "write at least one token")
    begins = n_read if model.kind == "decoder" else 1  # an encoder-decoder writes after its start token
    if (total := max(n_read, begins + max_new_tokens)) > model.shape.n_ctx:
        raise RequestError(key, max_new_tokens, f"this makes {total} tokens, {model.name} takes {model.shape.n_ctx}")


def written(
    model: Model, read: Sequence[int], max_new_tokens: int, choose: Choose = greedy
) -> Iterator[tuple[int, Float[Tensor, " vocab"]]]:
    """Yield each new token with the logits that it was chosen from; the end-of-text token is the last."""
    for token, logits in islice(next_tokens(model, read, choose=choose), max_new_tokens):
        yield token, logits
        if token == model.tokenizer.eos_token_id:
            return


def spelled(model: Model, text: str, read: Sequence[int], new: Sequence[int]) -> str:
    """Return what was written as text: of a decoder after the text, without the end-of-text token."""
    new = [*takewhile(lambda token: token != model.tokenizer.eos_token_id, new)]
    if model.kind == "encoder_decoder":
        return model.tokenizer.decode(new, skip_special_tokens=True)
    added, _ = model.tokens.spelled(new, after=[read[-1]])
    return text + added


def next_logits(model: Model, read: Sequence[int], cached: bool = True) -> Iterator[Float[Tensor, " vocab"]]:
    """Yield the logits of each next token after a text, the most likely of which is appended (`next_tokens`)."""
    return (logits for _, logits in next_tokens(model, read, cached))


def next_tokens(
    model: Model, read: Sequence[int], cached: bool = True, choose: Choose = greedy
) -> Iterator[tuple[int, Float[Tensor, " vocab"]]]:
    """Yield each next token after a text (of an encoder-decoder: of what it writes for it) with its logits."""
    return ((chosen[0], logits[0]) for chosen, logits in next_of_rows(model, [read], [choose], cached))


@torch.no_grad()
def next_of_rows(
    model: Model, reads: Sequence[Sequence[int]], choose: Sequence[Choose], cached: bool = True
) -> Iterator[tuple[list[int], Float[Tensor, "row vocab"]]]:
    """Yield the next token of each of several texts of one length (of an encoder-decoder: of what it writes for them),
    each by its own choice, with their logits; the tokens are appended before the next step.

    Without `cached`, and in a model with a recurrent mixer, whose state is not in the cache, each step runs the whole
    texts again.
    """
    inputs = _begin(model, reads)
    if cached and not hooks.has_mixer(model.bridge):
        inputs = replace(inputs, past=_empty_cache(model))
    while True:
        logits = model.forward(inputs)[:, -1]
        chosen = [of_row(row) for of_row, row in zip(choose, logits, strict=True)]
        yield chosen, logits
        token = torch.tensor(chosen, device=model.device)[:, None]
        mask = torch.cat([inputs.mask, torch.ones_like(token)], dim=1)
        kept = token if inputs.past is not None else torch.cat([inputs.token_id, token], dim=1)
        inputs = replace(inputs, token_id=kept, mask=mask)


def _begin(model: Model, reads: Sequence[Sequence[int]]) -> Inputs:
    """Return the inputs of the first step; an encoder-decoder's sources are encoded once."""
    ids = torch.tensor([[*read] for read in reads], device=model.device)
    if model.kind == "decoder":
        return Inputs(ids, torch.ones_like(ids))
    assert model.start_id is not None
    start, mask = torch.full_like(ids[:, :1], model.start_id), torch.ones_like(ids)
    encoded = hooks.stack_modules(model.bridge)["encoder"](input_ids=ids, attention_mask=mask)[0]
    return Inputs(start, torch.ones_like(start), source_id=ids, source_mask=mask, encoded=encoded)


def _empty_cache(model: Model) -> Cache:
    caches = [Cache(layer_class_to_replicate=DynamicLayer) for _ in range(2)]
    return caches[0] if model.kind == "decoder" else EncoderDecoderCache(*caches)
