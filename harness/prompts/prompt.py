"""One prompt before padding: tokens, scored positions, answer."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness import config
from harness.config import RequestError
from harness.models import Kind, Model
from harness.models.tokens import Encoding
from harness.prompts.answers import filling, following
from harness.prompts.relations import Relation, relations
from harness.words import Words

#: What messages call a model, by its kind of output.
NOUN: dict[Kind, str] = {
    "decoder": "a decoder",
    "encoder_decoder": "an encoder-decoder",
    "masked_lm": "an encoder",
    "classifier": "a classifier",
    "embedding": "an encoder",
}


#: Reserved names of segments: what follows the named ones, what is scored, and what belongs to none.
QUESTION, ANSWER, OTHER, SPECIAL = "question", "answer", "other", "special"


@dataclass(frozen=True)
class Completion:
    """What completes a context: its text, its number among the item's choices, and whether it is the right one.

    `merges` says that the tokenizer would merge it with the context's last token where the two are read together.
    """

    text: str
    number: int
    right: bool
    merges: bool = False


@dataclass(frozen=True)
class Prompt:
    """One prompt before padding.

    `words` are those of `encoded`, and `correct` maps each scored position to the token that should come next there.
    `answer` and `distractor` are token ids (labels, for a classifier), `counterfactual` the tokens of the corrupted
    prompt, of the same length. An encoder-decoder reads `source` and writes `encoded`; its counterfactual is another
    source. `tags` are a file's columns for sorting, `relations` syntactic relations between words of the text (the
    source, where there is one), `part` names the segment of each token of `encoded`, if there are segments, `role` what
    each is in its prompt set. An item of a choice between completions is the prompt with the right one; `choices` are
    the prompts of all, each with its `completion`.
    """

    text: str
    encoded: Encoding
    words: Words
    correct: dict[int, int]
    cluster: str
    answer: int | None = None
    distractor: int | None = None
    counterfactual: tuple[int, ...] | None = None
    source: Encoding | None = None
    source_words: Words | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    part: tuple[str, ...] = ()
    role: tuple[str, ...] = ()
    relations: tuple[Relation, ...] = ()
    choices: tuple["Prompt", ...] = ()
    completion: "Completion | None" = None


def from_text(
    model: Model,
    text: str,
    cluster: str,
    key: str = "prompts.text",
    pair: str | None = None,
    target: str | None = None,
    chat: bool = False,
) -> Prompt:
    """Make a prompt of a text (or a pair) under the model's token policy, with all possible predictions scored.

    Those are every next token of a decoder, every token in turn of a masked-LM, every token of the `target` that an
    encoder-decoder writes (with the one that ends it), none of a model that gives a label or a vector. With `chat` the
    text is a user's message in the tokenizer's chat template, whose own tokens are not scored.
    """
    if pair is not None:
        _check_pair(model, pair)
    if chat:
        return _from_message(model, text, cluster, key, pair, target)
    encoded = model.tokens.encode(text, pair)
    _check_length(encoded, text, model, key)
    return from_encoding(model, encoded, text if pair is None else f"{text} | {pair}", cluster, target)


def _from_message(model: Model, text: str, cluster: str, key: str, pair: str | None, target: str | None) -> Prompt:
    """Make a prompt of a user's message. Raises `RequestError` for a model that does not write, and for a pair."""
    if model.kind not in ("decoder", "encoder_decoder"):
        raise RequestError("prompts.chat", "true", f"{model.name} is {NOUN[model.kind]} and answers no message")
    if pair is not None:
        raise RequestError(
            "prompts.pair", config.quoted(pair), "a message is one text: leave out pair, or prompts.chat"
        )
    encoded, own = model.tokens.encode_message(text)
    _check_length(encoded, text, model, key)
    prompt = from_encoding(model, encoded, encoded.texts[0], cluster, target)
    if model.kind != "decoder" or own is None:
        return prompt
    inside = [span is not None and own[0] < span[1] and span[0] < own[1] for span in encoded.span]
    return replace(prompt, correct={at: token for at, token in prompt.correct.items() if inside[at + 1]})


def from_encoding(model: Model, encoded: Encoding, text: str, cluster: str, target: str | None = None) -> Prompt:
    """Make a prompt of tokens, with all possible predictions scored as in `from_text`."""
    read = Prompt(text, encoded, encoded.words(model.tokens.segmenter), {}, cluster)
    if model.kind == "encoder_decoder":
        return _to_write(model, read, target)
    if target is not None:
        raise RequestError(
            "prompts.target", config.quoted(target), f"{model.name} is {NOUN[model.kind]} and writes no target"
        )
    unscored = model.tokens.special_ids
    ordinary = {at: token for at, token in enumerate(encoded.token_id) if token not in unscored}
    match model.kind:
        case "decoder":
            return replace(read, correct={at - 1: token for at, token in ordinary.items() if at > 0})
        case "masked_lm":
            return replace(read, correct=ordinary)
    return read


def _to_write(model: Model, read: Prompt, target: str | None) -> Prompt:
    """Turn a prompt of the source text into one of the target: the start token, then the target without its last token.
    Without a target only the start token."""
    start = model.start_id
    if start is None:
        raise RequestError("model", model.name, "its config has no decoder_start_token_id, so it cannot begin to write")
    written = model.tokens.describe([start])
    writing = replace(read, encoded=written, words=written.words(), source=read.encoded, source_words=read.words)
    if target is None:
        return writing
    to_come = model.tokens.encode(target)
    _check_length(to_come, target, model, "prompts.target")
    last = to_come.span[-1]  # predicted, but never an input of the decoder
    before = target if last is None else target[: last[0]]
    written = model.tokens.describe([start, *to_come.token_id[:-1]], [None, *to_come.span[:-1]], texts=[before])
    return replace(
        writing,
        text=f"{read.text} → {target}",
        encoded=written,
        words=written.words(model.tokens.segmenter),
        correct=dict(enumerate(to_come.token_id)),
    )


def with_counterfactual(prompt: Prompt, token_id: Sequence[int], shown: str, key: str) -> Prompt:
    """Return the prompt with the tokens of its counterfactual, `shown` in the error.

    Raises `RequestError` with `key` unless they are as many as those of the text that is read.
    """
    n = len((prompt.source or prompt.encoded).token_id)
    if len(token_id) != n:
        remedy = f"the text has {n} tokens and its counterfactual {len(token_id)}; they must be equally long"
        raise RequestError(key, shown, remedy)
    return replace(prompt, counterfactual=tuple(token_id))


def with_relations(prompt: Prompt, written: str) -> Prompt:
    """Return the prompt with the relations that a text names between the words of what is read."""
    read, own = prompt.source or prompt.encoded, prompt.source_words or prompt.words
    return replace(prompt, relations=relations(written, own, read.special))


def with_answer(
    model: Model,
    prompt: Prompt,
    answer: str,
    distractor: str | None,
    keys: tuple[str, str] = ("prompts.answer", "prompts.distractor"),
) -> Prompt:
    """Return the prompt with only the answer scored: after its end, at its one mask token, or as a classifier's label.

    An answer is a single token in its place (`harness.prompts.answers`), written with its leading space, or the name of
    a label. Raises `RequestError` with the key otherwise.
    """
    place, texts = _answer_place(model, prompt), prompt.encoded.texts

    def number(text: str, key: str) -> int:
        if model.kind == "masked_lm":
            return filling(model.tokens, texts, text, key)
        if model.kind != "classifier":
            return following(model.tokens, texts[0] if texts else "", text, key)
        if text not in model.labels:
            raise RequestError(key, repr(text), f"{model.name} has no such label; {config.near(text, model.labels)}")
        return model.labels.index(text)

    right = number(answer, keys[0])
    wrong = None if distractor is None else number(distractor, keys[1])
    if wrong == right:
        raise RequestError(keys[1], repr(distractor), "this is the answer: their difference is 0 whatever is ablated")
    return replace(prompt, correct={place: right}, answer=right, distractor=wrong)


def _answer_place(model: Model, prompt: Prompt) -> int:
    """Return the position at which the answer is predicted."""
    match model.kind:
        case "classifier":
            return 0
        case "masked_lm":
            mask = model.tokens.mask_id
            if prompt.encoded.token_id.count(mask) != 1:
                name = model.tokens.string(mask)
                remedy = f"write {name} once, where the answer should stand"
                raise RequestError("prompts.text", config.quoted(prompt.text), remedy)
            return prompt.encoded.token_id.index(mask)
    return len(prompt.encoded.token_id) - 1


def _check_pair(model: Model, pair: str) -> None:
    if model.kind == "decoder":
        remedy = f"{model.name} is a decoder and reads one text: write both in prompts.text"
        raise RequestError("prompts.pair", config.quoted(pair), remedy)
    if not pair.strip():
        raise RequestError("prompts.pair", repr(pair), "a second text must not be empty: write one, or leave out pair")


def check_read(encoded: Encoding, text: str, model: Model, key: str) -> None:
    """Raise `RequestError` for a prompt without a token of text, and for one longer than the model reads."""
    n, limit = len(encoded.token_id), model.shape.n_ctx
    if not text.strip() or all(encoded.special):
        raise RequestError(key, config.quoted(text), "a prompt must have at least one token of text")
    if n > limit:
        raise RequestError(key, config.quoted(text, 20), f"this prompt has {n} tokens, {model.name} takes {limit}")


def check_embedded(token_id: Iterable[int], text: str, model: Model, key: str) -> None:
    """Raise `RequestError` for tokens without an embedding: added to the tokenizer alone, or to a model without words
    (the planted one). Not checked at load: Gemma 3's tokenizer has one token more than its text-only models."""
    n, tokenizer = model.shape.d_vocab, model.tokenizer
    lacking = {token for token in token_id if token >= n}
    if not lacking:
        return
    remedy = f"{model.name} has no tokens for these words; prompts=induction draws from those that it has"
    if added := sorted(lacking & {*tokenizer.get_added_vocab().values()} - {tokenizer.unk_token_id}):
        token = tokenizer.convert_ids_to_tokens(added[0])
        remedy = (
            f"the tokenizer has a token {token!r} (number {added[0]}) and the model embeddings for 0-{n - 1}: call "
            "model.resize_token_embeddings(len(tokenizer)) in transformers, train it, and save both again"
        )
    raise RequestError(key, config.quoted(text), remedy)


def _check_length(encoded: Encoding, text: str, model: Model, key: str) -> None:
    check_embedded(encoded.token_id, text, model, key)
    check_read(encoded, text, model, key)
