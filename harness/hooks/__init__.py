"""Names of hook points and axis orders; heads, parsed from and written as ``L5H1``.

No other file spells a hook point, so a renaming in TransformerLens changes this file only. `head_mask` reads heads
from boolean arrays, `softmax` reads or edits attention scores, `fused_attention` computes attention without a pattern,
`frozen_norm` makes a norm linear, `forward` stops a forward or replaces a module's, `block_stream` reads or replaces
the residual stream between blocks.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral
from typing import Any, Literal, NamedTuple

from harness.config import RequestError
from harness.hooks.block_stream import first_of as first_of
from harness.hooks.head_mask import is_mask, masked_heads

Kind = Literal["pattern", "z", "q", "k", "v", "scores", "allowed"]

_AXES: dict[str, tuple[str, ...]] = {
    "pattern": ("head", "query", "key"),
    "scores": ("head", "query", "key"),
    "allowed": ("query", "key"),
    "z": ("position", "head", "d_head"),
    "q": ("position", "head", "d_head"),
    "k": ("position", "kv_head", "d_head"),
    "v": ("position", "kv_head", "d_head"),
}
#: A row of a pattern that sums to less leaves a share to a learnt sink; rounding, in half precision too, takes less.
WHOLE_ROW = 1 - 1e-2
#: The position axis that a query or key axis runs over.
POSITIONS = {"query": "position", "key": "position", "source_query": "source_position", "source_key": "source_position"}


def axes(kind: "Kind", stack: str = "") -> tuple[str, ...]:
    """Return the axes of a hook point's tensor after the batch; those of a source text begin with ``source_``."""
    of_source = {
        "encoder": {"position", "query", "key"},
        "cross": {"key"} | ({"position"} if kind in ("k", "v") else set()),
    }
    return tuple(f"source_{axis}" if axis in of_source.get(stack, ()) else axis for axis in _AXES[kind])


#: The stacks of an encoder-decoder, in the order in which they run. A model with one stack has only ``""``.
STACKS = ("encoder", "decoder", "cross")
_PREFIX = {"": "", "decoder": "", "encoder": "encoder_", "cross": "cross_"}


def variable_name(kind: str, stack: str = "") -> str:
    """Return the name of a stack's variable: ``pattern``, ``encoder_pattern``, ``cross_z``."""
    return _PREFIX[stack] + kind


def text_prefixes(stack: str) -> tuple[str, str]:
    """Return the prefixes of the texts of a stack's queries and keys: ``""`` for the prompt, ``"source_"`` for the
    source of an encoder-decoder."""
    query, key = (axis.partition("_")[0] == "source" for axis in axes("pattern", stack)[1:])
    return "source_" * query, "source_" * key


#: The path of a layer's attention in TransformerLens, by stack.
_ATTENTION = {
    "": "blocks.{}.attn",
    "encoder": "encoder_blocks.{}.attn",
    "decoder": "decoder_blocks.{}.self_attn",
    "cross": "decoder_blocks.{}.cross_attn",
}


#: What a head's z is made of.
Input = Literal["q", "k", "v", "pattern"]
INPUTS: tuple[Input, ...] = ("q", "k", "v", "pattern")


class Site(NamedTuple):
    """The attention or the MLP of one layer, or the residual stream that enters it, in an encoder-decoder of one stack.
    Of an attention the heads' z is meant, or one of their other activations.

    ``str(Site(5, "cross")) == "cross.L5"`` and ``str(Site(5, part="mlp")) == "L5.mlp"``. The stream that leaves the
    last layer is that of a layer more.
    """

    layer: int
    stack: str = ""
    part: Literal["attention", "mlp", "resid", "q", "k", "v", "pattern"] = "attention"

    def __str__(self) -> str:
        name = f"{self.stack}.L{self.layer}" if self.stack else f"L{self.layer}"
        return name if self.part == "attention" else f"{name}.{self.part}"

    @property
    def text_stack(self) -> str:
        """The stack whose queries stand at this site's positions: cross attention has its keys in the source."""
        return "encoder" if self.stack == "cross" and self.part in ("k", "v") else self.stack


class Head(NamedTuple):
    """A query head: layer and head, both zero-based, and in an encoder-decoder the stack.

    It is written ``L5H1``, in an encoder-decoder ``cross.L5H1``; `parse` reads both. Raises `RequestError` there for
    anything else.

    >>> import harness
    >>> str(harness.Head(5, 1)), str(harness.Head(5, 1, "cross"))
    ('L5H1', 'cross.L5H1')
    >>> harness.Head.parse("L5H1")
    Head(layer=5, head=1, stack='')
    """

    layer: int
    head: int
    stack: str = ""

    def __str__(self) -> str:
        return f"{self.site}H{self.head}"

    @property
    def site(self) -> Site:
        return Site(self.layer, self.stack)

    @property
    def place(self) -> dict[str, Any]:
        """The head's coordinates in labelled arrays, as `sel` takes them."""
        stack = {"stack": self.stack} if self.stack else {}
        return {**stack, "layer": self.layer, "head": self.head}

    @classmethod
    def parse(cls, name: "str | tuple[Any, ...]") -> "Head":
        """Parse ``"L5H1"`` or ``(5, 1)`` to ``Head(5, 1)``. Raises `RequestError` for anything else."""
        stack, layer, head = _parts(_written(name))
        if layer is None or head is None:
            raise RequestError("heads", name, "a head is written L5H1 (layer 5, head 1)")
        return cls(layer, head, stack)


class Mlp(NamedTuple):
    """A layer's MLP, edited as if it were the one head of its site, with d_model for d_head."""

    layer: int
    stack: str = ""

    def __str__(self) -> str:
        return str(self.site)

    @property
    def head(self) -> int:
        return 0

    @property
    def site(self) -> Site:
        return Site(self.layer, self.stack, "mlp")


class Resid(NamedTuple):
    """The residual stream that enters a layer (after the last: that leaves it), edited as if it were the one head of
    its site, with d_model for d_head."""

    layer: int
    stack: str = ""

    def __str__(self) -> str:
        return str(self.site)

    @property
    def head(self) -> int:
        return 0

    @property
    def site(self) -> Site:
        return Site(self.layer, self.stack, "resid")


class HeadInput(NamedTuple):
    """The q, k, v or pattern of one query head; of grouped heads the key or value that this head reads."""

    layer: int
    head: int
    stack: str
    part: Input

    @property
    def site(self) -> Site:
        return Site(self.layer, self.stack, self.part)


#: The config key of a soft cap on logits, in Hugging Face's models.
_SOFT_CAP = "final_logit_softcapping"
#: What an intervention replaces.
Part = Head | Mlp | Resid | HeadInput

#: How many layers a model has; of an encoder-decoder, how many each stack has.
Layers = int | Mapping[str, int]


def check_head(head: Head, model: str, n_layers: Layers, n_heads: int) -> Head:
    """Return the head if the model has it; raise a `RequestError` that names what it has otherwise."""
    _named(str(head), model, _by_stack(n_layers), n_heads, "heads")
    return head


def parse_heads(names: Any, model: str, n_layers: Layers, n_heads: int, key: str = "heads") -> tuple[Head, ...]:
    """Parse names to heads in the order in which they run, each once.

    `names` is ``"all"``, one of the following, or a list that mixes them:

    - a head: ``"L5H1"``, ``(5, 1)``, ``Head(5, 1)``, in an encoder-decoder ``"cross.L5H1"``;
    - a layer ``"L7"``, a stack ``"cross"``; a range of layers ``"L15-L29"`` or of one layer's heads ``"L5H0-L5H3"``;
    - a boolean mask [layer, head] in numpy, torch or xarray, in an encoder-decoder [stack, layer, head].

    Raises `RequestError` with `key` for a head that the model does not have, for a reversed range, for a mask of
    numbers or of another shape, and for none.

    >>> parse_heads(["L1", (0, 1), "L2H0-L2H1"], "tiny", n_layers=3, n_heads=2)[:2]
    (Head(layer=0, head=1, stack=''), Head(layer=1, head=0, stack=''))
    """
    listed = [names] if isinstance(names, str) or _is_head(names) or is_mask(names) else _items(names)
    stacks = _by_stack(n_layers)
    if len(listed) == 1 and isinstance(listed[0], str) and listed[0] == "all":
        return _all(stacks, n_heads)
    written = [
        text
        for name in listed
        for text in (masked_heads(name, stacks, n_heads, model, key) if is_mask(name) else [_written(name)])
    ]
    wanted = {head for text in written for head in _in_range(text, model, stacks, n_heads, key)}
    if not wanted:
        raise RequestError(key, "[]", f"name at least one head, or set {key}=all")
    return tuple(head for head in _all(stacks, n_heads) if head in wanted)


def _by_stack(n_layers: Layers) -> Mapping[str, int]:
    return {"": n_layers} if isinstance(n_layers, int) else n_layers


def _is_head(value: Any) -> bool:
    """Whether a value is a head or its two numbers, with or without a stack."""
    whole = isinstance(value, tuple) and 2 <= len(value) <= 3 and all(_is_whole(each) for each in value[:2])
    return whole and isinstance(value[-1], str if len(value) == 3 else object)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _items(names: Any) -> list[Any]:
    return list(names) if isinstance(names, Iterable) else [names]


def _written(name: Any) -> str:
    """Return a head as its name; anything else as it prints, to be refused."""
    return str(Head(*name)) if _is_head(name) else str(name)


def _in_range(text: str, model: str, stacks: Mapping[str, int], n_heads: int, key: str) -> list[Head]:
    """Return the heads of a name, or of a range of layers or of one layer's heads, both ends included."""
    first, _, last = (end.strip() for end in text.partition("-"))
    (stack, *start), (of, *stop) = _parts(first), _parts(last)
    if start[0] is None or stop[0] is None:
        return _named(text, model, stacks, n_heads, key)
    if of not in ("", stack) or (start[1] is None) != (stop[1] is None):
        raise RequestError(key, text, "a range is from layer to layer, L15-L29, or from head to head, L5H0-L5H3")
    if start[1] is not None and start[0] != stop[0]:
        raise RequestError(key, text, "a range of heads is of one layer, L5H0-L5H3; of layers it is L15-L29")
    if stop < start:
        raise RequestError(key, text, "this range is reversed: write its lower end first")
    ends = [_named(end, model, stacks, n_heads, key) for end in (first, last if of or not stack else f"{stack}.{last}")]
    return [head for head in _all(stacks, n_heads) if head.stack == stack and ends[0][0] <= head <= ends[1][-1]]


def _all(stacks: Mapping[str, int], n_heads: int) -> tuple[Head, ...]:
    return tuple(
        Head(layer, head, stack) for stack, n in stacks.items() for layer in range(n) for head in range(n_heads)
    )


def _named(name: str, model: str, stacks: Mapping[str, int], n_heads: int, key: str) -> list[Head]:
    """Return the heads of one name. Raises `RequestError` for those that the model does not have."""
    stack, layer, number = _parts(name)
    if layer is None and not stack:
        raise RequestError(key, name, _spelling(stacks))
    if stack not in stacks:
        known = " or ".join(f"{known}.{name}" for known in stacks)
        remedy = f"{model} has only one stack: leave out {stack}" if "" in stacks else f"of which stack? Write {known}"
        raise RequestError(key, name, remedy)
    of = f"the {stack} stack of {model}" if stack else model
    if layer is not None and layer >= stacks[stack]:
        raise RequestError(key, name, f"{name} is outside {of}: it has layers 0-{stacks[stack] - 1}")
    if number is not None and number >= n_heads:
        raise RequestError(key, name, f"{name} is outside {of}: it has heads 0-{n_heads - 1} in each layer")
    return [
        Head(at, head, stack)
        for at in (range(stacks[stack]) if layer is None else [layer])
        for head in (range(n_heads) if number is None else [number])
    ]


def _spelling(stacks: Mapping[str, int]) -> str:
    """Describe how the heads of a model with these stacks are written."""
    if "" in stacks:
        written = "a head is written L5H1 (layer 5, head 1), its whole layer L5, all heads are all, by itself"
        return f"{written}; layers 5 to 9 are L5-L9"
    first = next(iter(stacks))
    return f"a head is written {first}.L5H1, its layer {first}.L5, its stack {first}; stacks: {', '.join(stacks)}"


def _parts(name: str) -> tuple[str, int | None, int | None]:
    """Parse stack, layer and head of ``cross.L5H1``, ``L5H1``, ``L5`` or ``cross``; ``None`` for what is missing."""
    match = re.fullmatch(rf"(?:({'|'.join(STACKS)})(?:\.(?=L)|$))?(?:L(\d+)(?:H(\d+))?)?", name.strip(), re.IGNORECASE)
    stack, layer, head = match.groups() if match else (None, None, None)
    return (stack or "").lower(), None if layer is None else int(layer), None if head is None else int(head)


def hook_name(kind: Kind, site: Site) -> str:
    """Return the hook point of `kind` in this attention. Scores have none in some families: `harness.hooks.softmax`."""
    return f"{_ATTENTION[site.stack].format(site.layer)}.hook_{kind}"


def attention_module(bridge: Any, site: Site) -> Any:
    """Return the module whose forward is this attention, W_O included."""
    return bridge.get_submodule(_ATTENTION[site.stack].format(site.layer))


def blocks(bridge: Any) -> list[Any]:
    """Return the blocks of a model as torch modules, in the order in which they run."""
    if hasattr(bridge, "encoder_blocks"):
        return [*bridge.encoder_blocks, *bridge.decoder_blocks]
    return list(bridge.blocks)


def plain_model(bridge: Any) -> Any:
    """Return the Hugging Face model that a bridge wraps."""
    return bridge.original_model


def decoder_stack(bridge: Any) -> Any | None:
    """Return the torch module of an encoder-decoder's decoder; ``None`` for other models."""
    return bridge.original_model.decoder if hasattr(bridge, "encoder_blocks") else None


def stack_modules(bridge: Any) -> dict[str, Any]:
    """Return the torch modules whose forwards run a stack from its first position on: an encoder-decoder's two, by the
    stack's name, and the whole of any other model, as ``""``."""
    whole = plain_model(bridge)
    decoder = decoder_stack(bridge)
    return {"": whole} if decoder is None else {"encoder": whole.encoder, "decoder": decoder}


def output_projection(bridge: Any, site: Site) -> Any:
    """Return the torch module W_O itself, below TransformerLens; its input is z, [row, position, head × d_head]."""
    return bridge.get_submodule(f"{_ATTENTION[site.stack].format(site.layer)}.o").original_component


def output_projection_of(plain: Any, bridge: Any, site: Site) -> Any:
    """Return W_O of an attention in `plain`, the Hugging Face model of a bridge without TransformerLens's modules."""
    wanted, own = output_projection(bridge, site), dict(plain.named_modules())
    # One module has several names in a bridge, of which the plain model knows one; and an encoder without a masked-LM
    # head, whose names lack a prefix, is wrapped inside one.
    every = (name for name, module in plain_model(bridge).named_modules(remove_duplicate=False) if module is wanted)
    names = [plain_name(name) for name in every]
    names += [name.removeprefix(f"{plain.base_model_prefix}.") for name in names]
    return next(own[name] for name in names if name in own)


def plain_name(name: str) -> str:
    """Return the name of a module or weight of a wrapped Hugging Face model, without TransformerLens's modules.

    >>> plain_name("h.0.attn._original_component.c_proj._original_component.weight")
    'h.0.attn.c_proj.weight'
    """
    return ".".join(part for part in name.split(".") if part not in ("original_component", "_original_component"))


def is_linear(module: Any) -> bool:
    """Whether a torch module is a linear layer, or GPT-2's `Conv1D` with its transposed weight."""
    return type(module).__name__ in ("Linear", "Conv1D")


def beside_keys_and_values(bridge: Any) -> list[Any]:
    """Return the linear modules of the last block's attention and MLP, except K and V.

    Their outputs are read at their own position only. Empty where K and V cannot be identified.
    """
    last, inside, shared = blocks(bridge)[-1], dict[Any, None](), set()
    parts = [getattr(last, name) for name in ("attn", "self_attn", "cross_attn", "mlp") if hasattr(last, name)]
    for module in (module for part in parts for module in part.modules()):
        inside[getattr(module, "original_component", None)] = None
        shared |= {getattr(getattr(module, kind, None), "original_component", None) for kind in ("k", "v", "qkv")}
    known = any(module is not None for module in shared)
    return [module for module in inside if known and is_linear(module) and module not in shared]


def has_mlp(bridge: Any, site: Site) -> bool:
    """Whether the layer has exactly one MLP (a mixture of experts has many)."""
    try:
        bridge.get_submodule(f"{_block(site)}.mlp.out")
    except AttributeError:
        return False
    return True


def mlp_output(bridge: Any, site: Site) -> Any:
    """Return the last torch module of a layer's MLP, which gives its output [row, position, d_model]."""
    return bridge.get_submodule(f"{_block(site)}.mlp.out").original_component


def mlp_hook_name(site: Site) -> str:
    """Return the hook point of the output of `mlp_output`."""
    return f"{_block(site)}.mlp.out.hook_out"


def _block(site: Site) -> str:
    return _ATTENTION[site.stack].format(site.layer).rpartition(".")[0]


def parts(block: Any) -> dict[str, Any]:
    """Return the torch modules of a block that write to the residual stream, by the bridge's name.

    These are W_O of each attention, the last linear layer of the MLP (or a whole mixture of experts) and a mixer beside
    them, not the norms. Last layers, since BLOOM adds the stream inside its attention and its MLP, and OPT's MLP is no
    module that runs.
    """
    writers = {}
    for name, module in block.named_children():
        if name.startswith(("ln", "hook_", "_")):
            continue
        last = getattr(module, "o" if "attn" in name else "out", None)
        writers[name] = module if last is None else last.original_component
    return writers


def has_mixer(bridge: Any) -> bool:
    """Whether a block has a part beside attention and MLP (Falcon-H1's Mamba): keys and values lack its state."""
    return any(not name.endswith(("attn", "mlp")) for block in blocks(bridge) for name in parts(block))


def has_final_norm(bridge: Any) -> bool:
    """Whether a norm stands between the last block and the unembedding."""
    return hasattr(bridge, "decoder_ln_final") or hasattr(bridge, "ln_final")


def final_norm(bridge: Any) -> Any:
    """Return TransformerLens's module of the norm before the unembedding; it wraps the torch module."""
    return bridge.decoder_ln_final if hasattr(bridge, "encoder_blocks") else bridge.ln_final


@contextmanager
def uncapped(bridge: Any) -> Iterator[None]:
    """Within this context, the model's head leaves out the soft cap on its logits (Gemma 2's), if it has one."""
    config = bridge.original_model.config.get_text_config(decoder=True)
    cap = getattr(config, _SOFT_CAP, None)
    if cap is None:
        yield
        return
    setattr(config, _SOFT_CAP, None)
    try:
        yield
    finally:
        setattr(config, _SOFT_CAP, cap)


def norm_of_write(bridge: Any, site: Site) -> Any | None:
    """Return the torch module of a norm between W_O and the residual stream (Gemma's), if the layer has one."""
    block = bridge.get_submodule(_block(site))
    return block.ln1_post.original_component if hasattr(block, "ln1_post") else None


def embeddings(bridge: Any) -> dict[str, Any]:
    """Return the torch modules of the token embeddings: ``encoder`` for the source of an encoder-decoder, ``""`` for
    the tokens that every model has."""
    if hasattr(bridge, "encoder_blocks"):
        whole = bridge.original_model
        return {"encoder": whole.encoder.get_input_embeddings(), "": whole.decoder.get_input_embeddings()}
    return {"": bridge.embed.original_component}


def stream_hooks(site: Site, post_norm: bool) -> tuple[str, str]:
    """Return the hook points of the residual stream before an attention and after its output is added (in a post-norm
    model before the norm)."""
    block = _block(site)
    if site.stack == "cross":
        return f"{block}.ln2.hook_in", f"{block}.ln3.hook_in"
    return f"{block}.hook_in", f"{block}.ln1.hook_in" if post_norm else f"{block}.ln2.hook_in"


def post_norm(bridge: Any, site: Site) -> Any:
    """Return the torch module of the norm after the attention of a post-norm layer (BERT's)."""
    return bridge.get_submodule(f"{_block(site)}.ln1").original_component
