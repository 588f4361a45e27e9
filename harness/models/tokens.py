"""A tokenizer with one policy for the beginning-of-sequence token, stated in every manifest."""

from dataclasses import dataclass
from typing import Any

from harness.config import Bos, RequestError


@dataclass(frozen=True)
class Encoded:
    """One text, or a pair, as tokens: ids, the string each token stands for, which are special, and character spans.

    `span` is ``None`` for special tokens, and for every token of a tokenizer that gives no offsets. `segment` is 1
    for the second text of a pair.
    """

    token_id: tuple[int, ...]
    token: tuple[str, ...]
    special: tuple[bool, ...]
    span: tuple[tuple[int, int] | None, ...]
    segment: tuple[int, ...]


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
        """The token that stands for a hidden one; only masked-LMs are asked for it."""
        return self.tokenizer.mask_token_id

    @property
    def policy(self) -> str:
        """The policy in words."""
        match self.bos:
            case "never":
                return "no BOS token, no special tokens added"
            case "always":
                return f"one BOS token ({self.string(self.bos_id or 0)}) before every prompt"
        return "whatever special tokens the model's tokenizer adds itself"

    def encode(self, text: str, pair: str | None = None) -> Encoded:
        """The text, or the pair of texts, under the policy. Nothing is cut, however long it is."""
        fast = bool(getattr(self.tokenizer, "is_fast", False))
        out = self.tokenizer(
            text,
            text_pair=pair,
            add_special_tokens=self.bos == "auto",
            return_offsets_mapping=fast,
            return_token_type_ids=True,
            verbose=False,
            truncation=False,
        )
        ids, segment = list(out["input_ids"]), list(out["token_type_ids"])
        spans = [tuple(span) for span in out["offset_mapping"]] if fast else [None] * len(ids)
        if self.bos == "always":
            if self.bos_id is None:
                raise RequestError("model.bos", "always", "this tokenizer has no BOS token")
            ids, spans, segment = [self.bos_id, *ids], [None, *spans], [0, *segment]
        return self.describe(ids, spans, segment)

    def describe(self, ids: list[int], spans: list[Any] | None = None, segment: list[int] | None = None) -> Encoded:
        """Token ids as an `Encoded`, with their strings; `spans` are character ranges where they are known."""
        special = [token_id in self.special_ids for token_id in ids]
        spans = spans or [None] * len(ids)
        return Encoded(
            token_id=tuple(ids),
            token=tuple(self.string(token_id) for token_id in ids),
            special=tuple(special),
            span=tuple(None if flag else span for flag, span in zip(special, spans, strict=True)),
            segment=tuple(segment or [0] * len(ids)),
        )

    @property
    def special_ids(self) -> frozenset[int]:
        return frozenset(self.tokenizer.all_special_ids)

    def string(self, token_id: int) -> str:
        """What the token stands for, leading space included."""
        text = self.tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
        piece = self.tokenizer.convert_ids_to_tokens(token_id)
        # Tokenizers that write a space as \u2581 drop it at the beginning of what they decode.
        if isinstance(piece, str) and piece.startswith("\u2581") and "\u2581" not in text:
            return piece.replace("\u2581", " ")
        return text

    def single(self, text: str, key: str) -> int:
        """The id of a text that is exactly one token here; a `RequestError` that names `key` if it is not."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            pieces = " + ".join(repr(self.string(token_id)) for token_id in ids)
            raise RequestError(key, repr(text), f"this must be one token, but the model's tokenizer makes {pieces}")
        return ids[0]
