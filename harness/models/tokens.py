"""A tokenizer with one policy for the beginning-of-sequence token, stated in every manifest."""

from dataclasses import dataclass
from typing import Any

from harness.config import Bos, RequestError


@dataclass(frozen=True)
class Encoded:
    """One text as tokens: ids, the string each token stands for, which are special, and character spans.

    `span` is ``None`` for special tokens, and for every token of a tokenizer that gives no offsets.
    """

    token_id: tuple[int, ...]
    token: tuple[str, ...]
    special: tuple[bool, ...]
    span: tuple[tuple[int, int] | None, ...]


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
    def policy(self) -> str:
        """The policy in words."""
        match self.bos:
            case "never":
                return "no BOS token, no special tokens added"
            case "always":
                return f"one BOS token ({self.string(self.bos_id or 0)}) before every prompt"
        return "whatever special tokens the model's tokenizer adds itself"

    def encode(self, text: str) -> Encoded:
        """The text under the policy. Nothing is cut, however long it is."""
        fast = bool(getattr(self.tokenizer, "is_fast", False))
        out = self.tokenizer(
            text, add_special_tokens=self.bos == "auto", return_offsets_mapping=fast, verbose=False, truncation=False
        )
        ids = list(out["input_ids"])
        spans = [tuple(span) for span in out["offset_mapping"]] if fast else [None] * len(ids)
        if self.bos == "always":
            if self.bos_id is None:
                raise RequestError("model.bos", "always", "this tokenizer has no BOS token")
            ids, spans = [self.bos_id, *ids], [None, *spans]
        return self.describe(ids, spans)

    def describe(self, ids: list[int], spans: list[Any] | None = None) -> Encoded:
        """Token ids as an `Encoded`, with their strings; `spans` are character ranges where they are known."""
        special = [token_id in self.special_ids for token_id in ids]
        spans = spans or [None] * len(ids)
        return Encoded(
            token_id=tuple(ids),
            token=tuple(self.string(token_id) for token_id in ids),
            special=tuple(special),
            span=tuple(None if flag else span for flag, span in zip(special, spans, strict=True)),
        )

    @property
    def special_ids(self) -> frozenset[int]:
        return frozenset(self.tokenizer.all_special_ids)

    def string(self, token_id: int) -> str:
        """What the token stands for, leading space included."""
        return self.tokenizer.decode([token_id], clean_up_tokenization_spaces=False)

    def single(self, text: str, key: str) -> int:
        """The id of a text that is exactly one token here; a `RequestError` that names `key` if it is not."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            pieces = " + ".join(repr(self.string(token_id)) for token_id in ids)
            raise RequestError(key, repr(text), f"this must be one token, but the model's tokenizer makes {pieces}")
        return ids[0]
