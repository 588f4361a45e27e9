"""Spec to a hooked model.

`sources` finds the weights, `cache` keeps what was converted, `random` and `planted` build models from nothing,
`tokens` holds the tokenizer's policies, and `checks` compares the hooked model with the plain one before anyone
uses it.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from harness import config, hooks
from harness.models.tokens import Tokens

if TYPE_CHECKING:
    from torch import Tensor
    from transformer_lens.model_bridge import TransformerBridge


#: What a model gives at its end: the next token (GPT-style), a masked token (BERT-style), or one vector per text.
Kind = Literal["decoder", "masked_lm", "embedding"]


@dataclass(frozen=True)
class Shape:
    """The sizes of a model's own attention stack."""

    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_model: int
    d_vocab: int
    n_ctx: int


@dataclass(frozen=True)
class Model:
    """A hooked model, ready to run.

    `bridge` is TransformerLens's bridge, `tokens` the tokenizer with its policies, `identity` what the manifest
    says about weights and tokenizer, `truth` which heads do what, where someone set them by hand.
    """

    spec: Any
    bridge: "TransformerBridge"
    tokens: Tokens
    shape: Shape
    kind: Kind
    identity: dict[str, Any]
    truth: dict[str, list[hooks.Head]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer."""
        return self.tokens.tokenizer

    @property
    def device(self) -> str:
        return self.spec.device

    def forward(self, token_id: "Tensor", mask: "Tensor", segment: "Tensor | None" = None) -> "Tensor":
        """Logits [batch, position, vocabulary] of right-padded tokens; hook points fire on the way.

        `segment` says which sentence of a pair a token belongs to, for models that know the difference.
        """
        given: dict[str, Any] = {"use_cache": False} if self.kind == "decoder" else {}
        if segment is not None and self.kind != "decoder":
            given["token_type_ids"] = segment
        return self.bridge(token_id, attention_mask=mask, **given)

    def heads(self, asked: Any = "all") -> tuple[hooks.Head, ...]:
        """The heads that a request names, checked against this model."""
        return hooks.parse_heads(asked, self.name, self.shape.n_layers, self.shape.n_heads)


def load_model(model: str | Any, **overrides: object) -> Model:
    """A hooked model from the name of a file in ``conf/model`` (with keywords in place of its values) or a spec.

    Raises `RequestError` when the name, the weights or the environment are wrong, and `ModelMismatch` when the
    hooked model does not compute what the plain Hugging Face model computes.
    """
    spec = config.named_model(model, **overrides) if isinstance(model, str) else replace(model, **overrides)
    from harness.models import boot

    return boot.boot(spec)
