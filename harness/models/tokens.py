"""A tokenizer with one policy for the beginning-of-sequence token, recorded in every manifest."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from operator import itemgetter
from typing import Any

from harness import words
from harness.config import Bos, RequestError
from harness.models import slow_spans
from harness.words import Segmenter, Span, Words


@dataclass(frozen=True)
class Encoding:
    """One text, or a pair, as tokens: ids, strings, which are special, and their spans.

    `texts` are the encoded texts, `sentence` is the number of the text that a token is in (or follows, for an added
    token), `span` its characters there: ``None`` for an added token, and for all ordinary tokens of a tokenizer whose
    offsets are unknown. `segment` holds the token type ids, for models that read them.
    """

    token_id: tuple[int, ...]
    token: tuple[str, ...]
    special: tuple[bool, ...]
    span: tuple[Span | None, ...]
    segment: tuple[int, ...]
    sentence: tuple[int, ...]
    texts: tuple[str, ...] = ()

    def words(self, segmenter: Segmenter | None = None) -> Words:
        """Split the tokens into words."""
        return words.split(self.texts, self.token, self.special, self.span, self.sentence, segmenter)


@dataclass(frozen=True)
class Tokens:
    """A Hugging Face tokenizer and the policy: `bos` is ``auto``, ``always`` or ``never``."""

    tokenizer: Any
    bos: Bos

    @property
    def bos_id(self) -> int | None:
        """The token that begins a sequence: BOS, or EOS for a model that uses one for both."""
        first = self.tokenizer.bos_token_id
        return self.tokenizer.eos_token_id if first is None else first

    @property
    def mask_id(self) -> int:
        """The mask token; only masked-LMs have one."""
        return self.tokenizer.mask_token_id

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the vocabulary, which identifies what the ids mean."""
        vocabulary = sorted(self.tokenizer.get_vocab().items(), key=itemgetter(1))
        return hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest()

    @property
    def policy(self) -> str:
        """The policy in words."""
        once = "a text that has it already gets no second one"
        match self.bos:
            case "never":
                return "no BOS token, no special tokens added"
            case "always":
                return f"one BOS token ({self.string(self.bos_id or 0)}) before every prompt; {once}"
        return f"whatever special tokens the model's tokenizer adds itself; {once} at its ends"

    @property
    def begins_with_bos(self) -> bool:
        """Whether the policy puts a BOS token before a text."""
        return self.encode("a").token_id[0] == self.bos_id

    def encode(self, text: str, pair: str | None = None) -> Encoding:
        """Encode a text, or a pair of texts, under the policy, without truncation."""
        texts = [text] if pair is None else [text, pair]
        fast = bool(getattr(self.tokenizer, "is_fast", False))
        out = self.tokenizer(
            *texts,
            add_special_tokens=self.bos == "auto",
            return_offsets_mapping=fast,
            return_token_type_ids=True,
            return_special_tokens_mask=True,
            verbose=False,
            truncation=False,
        )
        ids, segment = list(out["input_ids"]), list(out["token_type_ids"])
        if fast:
            owner = out.sequence_ids(0)
            spans = [
                None if own is None else tuple(span) for own, span in zip(owner, out["offset_mapping"], strict=True)
            ]
        else:
            owner, spans = self._laid(texts, len(ids), out["special_tokens_mask"])
        kept = _once(ids, owner)
        ids, spans, segment, owner = ids[kept], spans[kept], segment[kept], owner[kept]
        sentence = list(accumulate(owner, lambda before, own: before if own is None else own, initial=0))[1:]
        if self.bos == "always" and self.bos_id is None:
            raise RequestError("model.bos", "always", "this tokenizer has no BOS token")
        if self.bos == "always" and ids[:1] != [self.bos_id]:
            ids, spans, segment, sentence = [self.bos_id, *ids], [None, *spans], [0, *segment], [0, *sentence]
        return self.describe(ids, spans, segment, sentence, texts)

    @property
    def chat_fingerprint(self) -> str:
        """The SHA-256 of the chat template."""
        return hashlib.sha256(json.dumps(self.tokenizer.chat_template).encode()).hexdigest()

    def encode_message(self, text: str) -> tuple[Encoding, Span | None]:
        """Encode a user's message in the tokenizer's chat template, up to where the answer begins.

        Returns the span of the message in the text too, where it is known. The special tokens are those of the
        template: the policy adds none.

        Raises `RequestError` for a tokenizer without a chat template, and for a template that takes no such message.
        """
        if not self.tokenizer.chat_template:
            raise RequestError("prompts.chat", "true", "this model's tokenizer has no chat template; leave it out")
        from jinja2 import TemplateError  # as late as transformers imports it

        message = [{"role": "user", "content": text}]
        apply = partial(self.tokenizer.apply_chat_template, message, tokenize=False)
        try:
            whole, closed = apply(add_generation_prompt=True), apply()
        except TemplateError as error:
            remedy = f"the tokenizer's chat template takes no single message of a user ({error})"
            raise RequestError("prompts.chat", "true", remedy) from None
        trimmed = text.strip()  # as templates do
        begin = closed.rfind(trimmed)
        return Tokens(self.tokenizer, "never").encode(whole), None if begin < 0 else (begin, begin + len(trimmed))

    def _laid(self, texts: list[str], n: int, added: list[int]) -> tuple[list[int | None], list[Span | None]]:
        """Return each token's text number and span, for a tokenizer without offsets."""
        aligned = ((at, span) for at, text in enumerate(texts) for span in slow_spans.spans(self.tokenizer, text))
        added = added if self.bos == "auto" else [0] * n
        placed = [(None, None) if mark else next(aligned, (None, None)) for mark in added]
        return [own for own, _ in placed], [span for _, span in placed]

    def describe(
        self,
        ids: list[int],
        spans: list[Span | None] | None = None,
        segment: list[int] | None = None,
        sentence: list[int] | None = None,
        texts: Sequence[str] = (),
    ) -> Encoding:
        """Return token ids as an `Encoding`, with their strings, and their spans as far as known."""
        marks, n = self.special_ids, len(ids)
        where, own = spans or list[Span | None]([None]) * n, sentence or [0] * n
        text = [texts[number] if number < len(texts) else "" for number in own]
        read = map(self._is_read, ids, where, text)
        return Encoding(
            token_id=tuple(ids),
            token=tuple(self.string(token_id) for token_id in ids),
            special=tuple(token_id in marks and not as_text for token_id, as_text in zip(ids, read, strict=True)),
            span=tuple(where),
            segment=tuple(segment or [0] * n),
            sentence=tuple(own),
            texts=tuple(texts),
        )

    def from_ids(self, ids: Sequence[int]) -> Encoding:
        """Return token ids as an `Encoding`, with the text and the spans that decoding gives.

        Special tokens at the ends count as added, as those of `encode` do; a mask or an unknown token is text.
        """
        added = self.special_ids - {self.tokenizer.mask_token_id, self.tokenizer.unk_token_id}
        read = [at for at, token_id in enumerate(ids) if token_id not in added]
        start, stop = (read[0], read[-1] + 1) if read else (len(ids), len(ids))
        text, spans = self._decoded(list(ids[start:stop]))
        around = [[None] * n for n in (start, len(ids) - stop)]
        return self.describe(list(ids), [*around[0], *spans, *around[1]], texts=[text])

    def _decoded(self, ids: list[int]) -> tuple[str, Sequence[Span | None]]:
        """Return the text of tokens, and their spans: those of the text's own tokens, where these are the same."""
        for clean in (True, False):  # WordPiece gives "don ' t" unless cleaned, which puts other tokenizers' spaces out
            text = self.tokenizer.decode(ids, clean_up_tokenization_spaces=clean)
            again = Tokens(self.tokenizer, "never").encode(text)
            if list(again.token_id) == ids:
                return text, again.span
        return self.spelled(ids, after=[])

    def spelled(self, ids: list[int], after: list[int]) -> tuple[str, list[Span]]:
        """Return the text that `ids` add after other tokens, and each token's span in it; tokens that spell a character
        together all have its span."""
        decode = self.tokenizer.decode
        read = [decode([*after, *ids[:n]], clean_up_tokenization_spaces=False) for n in range(len(ids) + 1)]
        begin = len(read[0])
        whole = [max(len(text.rstrip("\ufffd")) - begin, 0) for text in read]
        ends = [max(len(text) - begin, 0) for text in read[1:]]
        return read[-1][begin:], [(min(start, end), end) for start, end in zip(whole, ends, strict=False)]

    @property
    def segmenter(self) -> Segmenter | None:
        """The tokenizer's own word segmenter, if it has one."""
        return slow_spans.segmenter(self.tokenizer)

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of the special tokens: beginning, end, padding, and the unknown token."""
        return frozenset(self.tokenizer.all_special_ids)

    def _is_read(self, token_id: int, span: Span | None, text: str) -> bool:
        """Whether a token is the unknown one but stands for characters of the text, and so counts as ordinary."""
        if span is None or token_id != self.tokenizer.unk_token_id:
            return False
        return text[slice(*span)] != self.tokenizer.unk_token

    def string(self, token_id: int) -> str:
        """Return the token's string, leading space included."""
        text = self.tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
        piece = self.tokenizer.convert_ids_to_tokens(token_id)
        # Tokenizers that write a space as \u2581 drop it at the beginning of what they decode.
        if isinstance(piece, str) and piece.startswith("\u2581") and "\u2581" not in text:
            return piece.replace("\u2581", " ")
        return text

    def single(self, text: str, key: str) -> int:
        """Return the id of a text that is exactly one token. Raises `RequestError` with `key` if it is not."""
        ids = self.bare(text)
        if len(ids) != 1:
            raise self.not_single(text, key, ids)
        return ids[0]

    def bare(self, text: str) -> list[int]:
        """Return the tokens of a text alone, without special tokens."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def not_single(self, text: str, key: str, ids: Sequence[int]) -> RequestError:
        """Return the error for a text that is several tokens and should be one."""
        pieces = " + ".join(repr(self.string(token_id)) for token_id in ids)
        return RequestError(key, repr(text), f"this must be one token, but the model's tokenizer makes {pieces}")


def _once(ids: Sequence[int], owner: Sequence[int | None]) -> slice:
    """Return the slice without an added token at an end where the text already has the same one: ``<s><s>``."""

    def doubled(added: int, beside: int) -> bool:
        return len(ids) > 1 and owner[added] is None and owner[beside] is not None and ids[added] == ids[beside]

    return slice(int(doubled(0, 1)), len(ids) - doubled(-1, -2))
