"""Spec to a hooked model.

`sources` finds the weights, `cache` keeps what was converted, `random` and `planted` build models from nothing,
`in_memory` takes one that the caller holds. `tokens` holds the tokenizer's policies, `output_kind` says what a model
gives at its end, `pooling` how one vector is made of a text, `load` puts it together, `checks` compares the hooked
model with the plain one before anyone uses it, and `traits` measures what holds of its attention; `config_shape` reads
how many heads a model has before anything is loaded.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, cast

from harness import config, hooks
from harness.models.pooling import Pooling
from harness.models.tokens import Tokens

if TYPE_CHECKING:
    from torch import Tensor
    from transformers.cache_utils import Cache

    from harness.models.bridge import Bridge


P = ParamSpec("P")
T = TypeVar("T")

#: What a model gives at its end: the next token (GPT-style, or T5-style with a source text), a masked token
#: (BERT-style), a label for the text, or one vector per text.
Kind = Literal["decoder", "encoder_decoder", "masked_lm", "classifier", "embedding"]


@dataclass(frozen=True)
class Shape:
    """The sizes of a model. `n_layers` and `d_vocab` are the decoder's in an encoder-decoder, whose stacks share the
    other sizes; `n_encoder_layers` is 0 in all others."""

    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_model: int
    d_vocab: int
    n_ctx: int
    n_encoder_layers: int = 0

    @property
    def stacks(self) -> dict[str, int]:
        """How many layers each stack has, in the order in which they run; a stack alone is ``""``."""
        if not self.n_encoder_layers:
            return {"": self.n_layers}
        return {"encoder": self.n_encoder_layers, "decoder": self.n_layers, "cross": self.n_layers}

    @property
    def sites(self) -> tuple[hooks.Site, ...]:
        """Every attention of the model."""
        return tuple(hooks.Site(layer, stack) for stack, n_layers in self.stacks.items() for layer in range(n_layers))

    @property
    def depth(self) -> int:
        """The layers of the deepest stack: the size of the dimension ``layer``."""
        return max(self.stacks.values())

    def block(self, site: hooks.Site) -> int:
        """Which of the blocks, counted in the order in which they run, an attention belongs to."""
        return site.layer + (self.n_encoder_layers if site.stack in ("decoder", "cross") else 0)


@dataclass(frozen=True)
class Inputs:
    """What a model is run on: right-padded token ids with a mask [row, position]; `segment`, which sentence of a pair
    a token belongs to, for models that know the difference; and the source text of an encoder-decoder. Instead of the
    mask an encoder, and the written side of an encoder-decoder, takes one that is added to the scores of every layer,
    [row, 1, query, key].

    `past` holds keys and values of positions before these (the mask counts them too), or takes those of these.
    """

    token_id: "Tensor"
    mask: "Tensor"
    segment: "Tensor | None" = None
    source_id: "Tensor | None" = None
    source_mask: "Tensor | None" = None
    past: "Cache | None" = None

    def first(self) -> "Inputs":
        """The first token of the first row."""
        return replace(self, past=None, **{name: value[:1, :1] for name, value in self._tensors().items()})

    def repeated(self, copies: int) -> "Inputs":
        """The rows that many times, one copy after the other."""
        rows = {name: value.repeat(copies, *[1] * (value.ndim - 1)) for name, value in self._tensors().items()}
        return replace(self, past=None, **rows)

    def _tensors(self) -> "dict[str, Tensor]":
        return {name: value for name, value in vars(self).items() if value is not None and name != "past"}


@dataclass(frozen=True)
class Traits:
    """What holds of a family's attention beside its sizes; see `harness.models.traits`, which measures it at load.

    `learnt_sink`: rows of patterns sum to less than 1, a sink in the softmax takes the rest (gpt-oss). `mixes_values`:
    z is pattern · v (BitNet normalises it before W_O). `has_scores`: the softmax of the scores is the pattern.
    `write_scale`: by what the write of each attention is multiplied before it joins the residual stream; empty where
    direct effects are not defined, and `no_direct` says why. `per_row`: how many entries along its first axis each
    argument of a block has for one row, 0 if rows share it.
    """

    learnt_sink: bool = False
    mixes_values: bool = True
    has_scores: bool = True
    write_scale: Mapping[hooks.Site, float] = field(default_factory=dict)
    no_direct: str = ""
    per_row: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A hooked model, ready to run.

    `bridge` is TransformerLens's bridge (it reads text by the token policy), `tokens` the tokenizer with its policies,
    `identity` what the manifest says about weights and tokenizer, `truth` which heads do what, where someone set them
    by hand. `head` is what the model makes of the last block's output [row, d_model], where the bridge does not know it
    (`None`: it does), `labels` what a classifier chooses from, `start_id` the token with which an encoder-decoder
    begins to write, `pooling` how a model that gives one vector per text makes it of the last block's output, and
    `traits` what holds of its attention.
    """

    spec: Any
    bridge: "Bridge"
    tokens: Tokens
    shape: Shape
    kind: Kind
    identity: dict[str, Any]
    truth: dict[str, list[hooks.Head]] = field(default_factory=dict)
    head: "Callable[[Tensor], Tensor] | None" = None
    labels: tuple[str, ...] = ()
    start_id: int | None = None
    pooling: Pooling = "mean"
    traits: Traits = Traits()

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

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside, no other thread hooks or runs this model: the hooks of one would fire in the forwards of the other.

        Tensors made inside are ordinary ones that gradients can flow through, also under `torch.inference_mode`.
        """
        import torch

        # Switching it off switches gradients on, which is only wanted where it was on.
        ordinary = torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()
        with self.bridge.lock, ordinary:
            yield

    def forward(self, given: Inputs) -> "Tensor":
        """What the bridge gives, logits [row, position, vocabulary]; hook points fire on the way."""
        match self.kind:
            case "decoder":
                past = {} if given.past is None else {"past_key_values": given.past}
                return self.bridge(given.token_id, attention_mask=given.mask, use_cache=False, **past)
            case "encoder_decoder":
                source, mask = given.source_id, given.source_mask
                own = {"decoder_attention_mask": given.mask} if given.mask.ndim == 4 else {}
                return self.bridge(source, attention_mask=mask, decoder_input=given.token_id, use_cache=False, **own)
        segments = {} if given.segment is None else {"token_type_ids": given.segment}
        return self.bridge(given.token_id, attention_mask=given.mask, **segments)

    def last_hidden(self, given: Inputs) -> "Tensor":
        """What comes out of the last block, [row, position, d_model]."""
        seen: list[Tensor] = []
        last = hooks.blocks(self.bridge)[-1]
        with self.bridge.lock:
            handle = last.register_forward_hook(
                lambda _, args, out: seen.append(out[0] if isinstance(out, tuple) else out)
            )
            try:
                self.forward(given)
            finally:
                handle.remove()
        return seen[0]

    def label_logits(self, given: Inputs) -> "Tensor":
        """What a classifier says of each row, [row, label]: it reads the first token."""
        assert self.head is not None
        return self.head(self.last_hidden(given)[:, 0])

    def heads(self, asked: Any = "all", key: str = "heads") -> tuple[hooks.Head, ...]:
        """The heads that a request names under `key`, checked against this model."""
        return hooks.parse_heads(asked, self.name, self.shape.stacks, self.shape.n_heads, key)


def alone(method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
    """A method of what has a `model`, as one that runs `Model.alone`."""

    @wraps(method)
    def held(self: Any, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.model.alone():
            return method(self, *args, **kwargs)

    return held


def load_model(model: Any, tokenizer: Any = None, **overrides: object) -> Model:
    """A hooked model, checked against the plain Hugging Face model.

    `model` is the name of a file in ``conf/model`` (``"smollm2"``), a folder that `save_pretrained` wrote, an id on the
    Hugging Face hub (``"org/name"``), a spec, or an object in memory: a Hugging Face model, with its `tokenizer` where
    it is apart, or a TransformerLens bridge. An object is copied and left as it was. `overrides` take the place of the
    spec's values.

    Raises `RequestError` when the name, the weights or the environment are wrong, and `ModelMismatch` when the
    hooked model does not compute what the plain Hugging Face model computes.

    >>> import harness
    >>> harness.load_model("random", shape="gpt2").shape.n_layers
    3
    """
    from harness.models import load

    if isinstance(model, str | Path):
        return load.boot(_by_name(str(model), overrides))
    if isinstance(model, config.ModelBase):
        return load.boot(replace(cast(Any, model), **overrides))
    from harness.models import in_memory

    return load.boot(*in_memory.describe(model, tokenizer, **overrides))


def _by_name(name: str, overrides: Mapping[str, object]) -> Any:
    """The spec of a preset, a folder or a hub id, in this order."""
    if name in config.model_names():
        return config.named_model(name, **overrides)
    if Path(name).expanduser().is_dir():
        values = {"source": "path", "name": Path(name).name, "path": name}
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        values = {"source": "hub", "name": name.rpartition("/")[2], "id": name}
    else:
        return config.named_model(name, **overrides)  # which says what names there are
    return config.parse(config.ModelSpec, {**values, **overrides}, "model.")
