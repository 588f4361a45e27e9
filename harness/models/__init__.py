"""Load hooked models from specs.

`sources` fetches weights, `cache` stores converted ones, `random` and `planted` build models without a download,
`in_memory` takes one that the caller holds, `tokens` applies the tokenizer's policies, `generation` continues texts,
`output_kind` identifies a model's output, `pooling` makes one vector of a text, `load` assembles the model, `checks`
compares it with the plain one, `traits` measures properties of its attention, and `config_shape` reads its number of
heads before anything is loaded.
"""

import html
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

#: The output of a model: the next token (GPT-style, or T5-style with a source text), a masked token
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
        """The number of layers of each stack, in the order in which they run; a single stack is ``""``."""
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
        """Return the number of a site's block, counted in the order in which blocks run; the stream that leaves a stack
        is the last block's."""
        layer = site.layer - self.leaves(site)
        return layer + (self.n_encoder_layers if site.stack in ("decoder", "cross") else 0)

    def leaves(self, site: hooks.Site) -> bool:
        """Whether a site is the residual stream that leaves a stack's last block."""
        return site.part == "resid" and site.layer == self.stacks[site.stack]


@dataclass(frozen=True)
class Inputs:
    """Inputs of a forward: right-padded token ids with a mask, both [row, position].

    `segment` is the sentence of a pair that a token belongs to (token type), `source_id` the source text of an
    encoder-decoder. An encoder, and the decoder of an encoder-decoder, may take an additive mask [row, 1, query, key]
    instead. `past` is a key–value cache: it holds the positions before these (the mask counts them too) and collects
    those of these. `encoded` is the encoder's output for the source, [row, source position, d_model]: with it the
    encoder does not run again.
    """

    token_id: "Tensor"
    mask: "Tensor"
    segment: "Tensor | None" = None
    source_id: "Tensor | None" = None
    source_mask: "Tensor | None" = None
    past: "Cache | None" = None
    encoded: "Tensor | None" = None

    def first(self) -> "Inputs":
        """Return the first token of the first row."""
        return replace(self, past=None, **{name: value[:1, :1] for name, value in self._tensors().items()})

    def repeated(self, copies: int) -> "Inputs":
        """Return the rows repeated `copies` times, one copy after the other."""
        rows = {name: value.repeat(copies, *[1] * (value.ndim - 1)) for name, value in self._tensors().items()}
        return replace(self, past=None, **rows)

    def _tensors(self) -> "dict[str, Tensor]":
        return {name: value for name, value in vars(self).items() if value is not None and name != "past"}


@dataclass(frozen=True)
class Traits:
    """Properties of a family's attention, measured at load by `harness.models.traits`.

    `learnt_sink`: rows of patterns sum to less than 1, a sink in the softmax takes the rest (gpt-oss). `mixes_values`:
    z is pattern · v (BitNet normalises it before W_O). `has_scores`: the softmax of the scores is the pattern.
    `write_scale`: the factor on each attention's output before it joins the residual stream; empty where direct effects
    are not defined, for the reason in `no_direct`. `linear_logits`: logits are linear in the final norm's output
    (Gemma 2 has a soft cap); `linear_uncapped_logits`: they are so without the cap. `per_row`: entries along the first
    axis of each argument of a block for one row, 0 if rows share it.
    """

    learnt_sink: bool = False
    mixes_values: bool = True
    has_scores: bool = True
    write_scale: Mapping[hooks.Site, float] = field(default_factory=dict)
    no_direct: str = ""
    linear_logits: bool = True
    linear_uncapped_logits: bool = True
    per_row: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Model:
    """A hooked model, ready to run.

    `bridge` is TransformerLens's bridge (with the token policy), `tokens` the tokenizer with its policies, `identity`
    the manifest's record of weights and tokenizer, `truth` the roles of planted heads. `head` maps the last block's
    output [row, d_model] to the model's where the bridge does not (`None`: it does), `labels` are a classifier's,
    `start_id` is the first token that an encoder-decoder writes, `pooling` the pooling of a sentence encoder, `traits`
    the properties of its attention.
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

    def __repr__(self) -> str:
        return f"Model({self.name}: {self.kind.replace('_', '-')}, {self._size}, {self.spec.dtype} on {self.device})"

    def _repr_html_(self) -> str:
        shape = self.shape
        facts = {
            "model": self.name,
            "kind": self.kind.replace("_", "-"),
            "size": self._size,
            "key–value heads": shape.n_kv_heads if shape.n_kv_heads != shape.n_heads else None,
            "width": f"d_model {shape.d_model}, d_head {shape.d_head}",
            "vocabulary, context": f"{shape.d_vocab:,}, {shape.n_ctx:,} tokens",
            "computes in": f"{self.spec.dtype} on {self.device}",
            "planted heads": "; ".join(f"{role}: {', '.join(map(str, heads))}" for role, heads in self.truth.items()),
            "ablated now": self.inside.get("inside"),
        }
        left = "style='text-align:left'"
        rows = "".join(
            f"<tr><th {left}>{name}</th><td {left}>{html.escape(str(value))}</td></tr>"
            for name, value in facts.items()
            if value
        )
        return f"<table>{rows}</table>"

    @property
    def _size(self) -> str:
        n_layers, n_encoder = self.shape.n_layers, self.shape.n_encoder_layers
        layers = f"{n_encoder} + {n_layers}" if n_encoder else str(n_layers)
        return f"{layers} layers × {self.shape.n_heads} heads"

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

    @property
    def no_mixing(self) -> str:
        """Why z is not pattern · v (`Traits.mixes_values`; or heads are ablated at the moment); empty where it is."""
        if self.bridge.interventions:
            return f"heads of {self.name} are ablated here, so that their output is not pattern times values"
        if not self.traits.mixes_values:
            return f"in {self.name} a head's output is not its pattern times its values"
        return ""

    @property
    def inside(self) -> dict[str, str]:
        """What `harness.ablated` ablates at the moment, as an attribute of arrays: ``{"inside": "zero('L5H1')"}``; or
        nothing."""
        names = [check.name for check in self.bridge.interventions if check.name]
        return {"inside": "; ".join(names)} if names else {}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the model: inside, no other thread hooks or runs it, or hooks would fire in the other's forwards.

        Tensors made inside allow gradients, also under `torch.inference_mode`.
        """
        import torch

        # Switching it off switches gradients on, which is only wanted where it was on.
        ordinary = torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()
        with self.bridge.lock, ordinary:
            yield

    def forward(self, inputs: Inputs) -> "Tensor":
        """Run the bridge and return logits [row, position, vocabulary]; hook points fire."""
        past = {} if inputs.past is None else {"past_key_values": inputs.past}
        match self.kind:
            case "decoder":
                return self.bridge(inputs.token_id, attention_mask=inputs.mask, use_cache=False, **past)
            case "encoder_decoder":
                source, mask = inputs.source_id, inputs.source_mask
                own = {"decoder_attention_mask": inputs.mask} if inputs.mask.ndim == 4 else {}
                own |= past if inputs.encoded is None else {**past, "encoder_outputs": (inputs.encoded,)}
                return self.bridge(source, attention_mask=mask, decoder_input=inputs.token_id, use_cache=False, **own)
        segments = {} if inputs.segment is None else {"token_type_ids": inputs.segment}
        return self.bridge(inputs.token_id, attention_mask=inputs.mask, **segments)

    def last_hidden(self, inputs: Inputs) -> "Tensor":
        """Return the output of the last block, [row, position, d_model]."""
        outputs: list[Tensor] = []
        last = hooks.blocks(self.bridge)[-1]
        with self.bridge.lock:
            handle = last.register_forward_hook(
                lambda _, args, out: outputs.append(out[0] if isinstance(out, tuple) else out)
            )
            try:
                self.forward(inputs)
            finally:
                handle.remove()
        return outputs[0]

    def label_logits(self, inputs: Inputs) -> "Tensor":
        """Return a classifier's logits [row, label], which it reads from the first token."""
        assert self.head is not None
        return self.head(self.last_hidden(inputs)[:, 0])

    def generate(self, text: str, max_new_tokens: int = 20) -> str:
        """Continue a text greedily: the most likely token, again and again, up to the end-of-text token.

        A decoder returns the text with its continuation, an encoder-decoder what it writes for the text. Keys and
        values are cached where the family allows. Inside `harness.ablated` the ablated model writes. Raises
        `RequestError` for an encoder, and for more tokens than the model takes.

        >>> import harness
        >>> model = harness.load_model("random", shape="gpt2")
        >>> model.generate("When Mary and", max_new_tokens=4).startswith("When Mary and")
        True
        """
        from harness.models import generation

        return generation.generate(self, text, max_new_tokens)

    def heads(self, names: Any = "all", key: str = "heads") -> tuple[hooks.Head, ...]:
        """Parse the heads that a request names under `key`. Raises `RequestError` for those the model lacks."""
        return hooks.parse_heads(names, self.name, self.shape.stacks, self.shape.n_heads, key)


def alone(method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
    """Decorate a method of a class with a `model` to run inside `Model.alone`."""

    @wraps(method)
    def held(self: Any, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.model.alone():
            return method(self, *args, **kwargs)

    return held


def load_model(model: Any, tokenizer: Any = None, **overrides: object) -> Model:
    """Load a hooked model and check it against the plain Hugging Face model.

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
