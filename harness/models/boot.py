"""From a folder of weights to a hooked model that was compared with the plain one.

The plain Hugging Face model answers first, before TransformerLens wraps it; the hooked model must then give the same
logits, and its hook points must carry what `harness.hooks` says they carry.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import hooks
from harness.config import GgufModel, ModelSpec, RandomModel, RequestError, WheelModel
from harness.models import Kind, Model, Shape, cache, random, sources
from harness.models.tokens import Tokens

if TYPE_CHECKING:
    import torch

#: The text on which the hooked model is compared with the plain one, in two lengths so that padding is in it.
PROBE = ("The old map showed three roads, but only one of them led to the sea.", "Rain fell.")


class ModelMismatch(RuntimeError):
    """The hooked model is not the model that was asked for: other logits, or hook points of another shape."""


def boot(spec: ModelSpec) -> Model:
    """Load, hook and check. See `harness.load_model`."""
    import torch
    from transformer_lens.model_bridge import TransformerBridge

    device = _checked_device(spec.device)
    with _quiet(), torch.no_grad():
        loaded = _random(spec) if isinstance(spec, RandomModel) else _from_folder(spec)
        plain = loaded.plain.to(device=device, dtype=getattr(torch, spec.dtype)).eval().requires_grad_(False)
        tokens = Tokens(loaded.tokenizer, spec.bos)
        token_id, mask = _probe(tokens, device)
        expected = _answer(plain, token_id, mask)
        architecture = (plain.config.architectures or [type(plain).__name__])[0]
        # The bridge prepares the tokenizer it is given; ours keeps its own policy.
        try:
            bridge = TransformerBridge.boot_transformers(
                f"local/{spec.name}", hf_model=_with_head(plain, loaded.kind), tokenizer=loaded.tokenizer
            )
        except (ValueError, AttributeError, KeyError, NotImplementedError) as error:
            raise _unhooked(spec, architecture, str(error) or type(error).__name__) from error
        if not any(name.endswith(".attn.hook_pattern") for name in bridge.hook_dict):
            raise _unhooked(spec, architecture, "no attention heads")
        model = Model(spec, bridge, tokens, _shape(bridge.cfg, plain.config), loaded.kind, {})
        difference = _compare(model, token_id, mask, expected)
        _check_hooks(model, token_id, mask)
    identity = {
        **loaded.weights,
        "architecture": architecture,
        "kind": loaded.kind,
        "tokenizer": type(loaded.tokenizer).__name__,
        "bos": tokens.policy,
        "hf_difference": difference,
    }
    return replace(model, identity=identity)


@dataclass(frozen=True)
class Loaded:
    """A plain Hugging Face model and its tokenizer, what it gives at its end, and what identifies its weights."""

    plain: Any
    tokenizer: Any
    kind: Kind
    weights: dict[str, Any]


def _unhooked(spec: ModelSpec, architecture: str, reason: str) -> RequestError:
    first = reason.splitlines()[0]
    return RequestError(
        "model", spec.name, f"TransformerLens does not hook this architecture ({architecture}: {first})"
    )


def _answer(plain: Any, token_id: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
    """What the plain model gives: logits, or the last hidden states of a model without a head."""
    out = plain(token_id, attention_mask=mask)
    return out.logits if "logits" in out else out.last_hidden_state


def _with_head(plain: Any, kind: Kind) -> Any:
    """The model in the form TransformerLens knows: a bare encoder goes into its masked-LM class, head unused."""
    if kind != "embedding":
        return plain
    from transformers import AutoModelForMaskedLM

    whole = AutoModelForMaskedLM.from_config(plain.config, attn_implementation="eager")
    setattr(whole, whole.base_model_prefix, plain)
    whole.config.architectures = [type(whole).__name__]
    return whole.eval().requires_grad_(False)


def _checked_device(device: str) -> Any:
    import torch

    try:
        checked = torch.device(device)
        if checked.type == "meta":
            raise RuntimeError("the meta device holds no numbers")
        torch.empty(0, device=checked)
    except (RuntimeError, AssertionError):
        there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise RequestError("model.device", device, f"this machine has {', '.join(there)}") from None
    return checked


def _random(spec: RandomModel) -> Loaded:
    plain, tokenizer, kind = random.build(spec.shape, spec.seed)
    return Loaded(plain, tokenizer, kind, {"weights": {"random": f"{spec.shape} seed {spec.seed}"}})


def _from_folder(spec: Any) -> Loaded:
    import torch
    import transformers

    folder = sources.local_folder(spec)
    asked: dict[str, Any] = {
        "local_files_only": True,
        "trust_remote_code": getattr(spec, "trust_remote_code", False),
    }
    try:
        kind = _kind(transformers.AutoConfig.from_pretrained(folder, **asked), spec)
        if not (sources.has_tokenizer(folder) or asked["trust_remote_code"]):
            raise RequestError("model", spec.name, f"{folder} has no tokenizer: save it there too")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **asked)
        loader = getattr(transformers, _LOADER[kind])
        plain, info = loader.from_pretrained(
            folder,
            dtype=getattr(torch, spec.dtype),
            attn_implementation="eager",
            use_safetensors=True,
            output_loading_info=True,
            **asked,
        )
        sources.check_whole(info, "model", spec.name, kind)
    except RequestError:
        raise
    except (ValueError, OSError, KeyError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RequestError("model", spec.name, f"{folder} cannot be loaded ({reason})") from error
    return Loaded(plain, tokenizer, kind, _weights(folder, cached=isinstance(spec, WheelModel | GgufModel)))


def _weights(folder: Path, cached: bool) -> dict[str, Any]:
    """What decides the numbers of a model on disk: the SHA-256 of each weight file, and a hub snapshot's commit.

    The weight cache has just verified the digests of a `cached` folder.
    """
    known = cache.recorded(folder) if cached else {}
    found: dict[str, Any] = {
        "weights": {path.name: known.get(path.name) or cache.sha256(path) for path in sources.weight_files(folder)}
    }
    if folder.parent.name == "snapshots":
        found["revision"] = folder.name
    return found


_LOADER: dict[Kind, str] = {
    "decoder": "AutoModelForCausalLM",
    "masked_lm": "AutoModelForMaskedLM",
    "embedding": "AutoModel",
}
#: Encoders whose blocks TransformerLens hooks.
ENCODERS = ("bert", "roberta")


def _kind(settings: Any, spec: Any) -> Kind:
    """What the model gives at its end, from its config. A `RequestError` for what cannot be studied here."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as DECODERS

    name, architectures = settings.model_type, settings.architectures or []
    if settings.is_encoder_decoder:
        raise RequestError("model", spec.name, f"{name} is an encoder-decoder, which is not supported yet")
    if name in ENCODERS:
        if any("MaskedLM" in architecture for architecture in architectures):
            return "masked_lm"
        if any(architecture.endswith("Model") for architecture in architectures):
            return "embedding"
        raise RequestError(
            "model", spec.name, f"{name} with the head {architectures} is not supported: masked-LM or no head"
        )
    if name not in DECODERS or any("MaskedLM" in architecture for architecture in architectures):
        known = ", ".join(ENCODERS)
        raise RequestError("model", spec.name, f"{name} is neither a decoder nor an encoder that is known ({known})")
    return "decoder"


def _probe(tokens: Tokens, device: "torch.device") -> tuple["torch.Tensor", "torch.Tensor"]:
    import torch
    from torch.nn.utils.rnn import pad_sequence

    rows = [torch.tensor(tokens.encode(text).token_id, device=device) for text in PROBE]
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return pad_sequence(rows, batch_first=True), mask


def _compare(model: Model, token_id: "torch.Tensor", mask: "torch.Tensor", expected: "torch.Tensor") -> float:
    """The largest difference from the plain model's answer where there are tokens, as a share of the largest value."""
    import torch

    got = model.forward(token_id, mask) if model.kind != "embedding" else _last_hidden(model, token_id, mask)
    real = mask.bool()
    scale = float(expected[real].abs().max())
    difference = float((got - expected)[real].abs().max()) / scale
    allowed = max(model.spec.tolerance, 8 * torch.finfo(expected.dtype).eps)
    if not difference <= allowed:
        raise ModelMismatch(
            f"{model.name}: the hooked model's logits differ from the plain model's by {difference:.2g} of the largest "
            f"logit (allowed: {allowed:.2g}); TransformerLens does not reproduce this architecture faithfully"
        )
    return difference


def _last_hidden(model: Model, token_id: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
    """What comes out of the last block."""
    seen: list[torch.Tensor] = []
    last = hooks.blocks(model.bridge)[-1]
    handle = last.register_forward_hook(lambda _, args, out: seen.append(out[0] if isinstance(out, tuple) else out))
    try:
        model.forward(token_id, mask)
    finally:
        handle.remove()
    return seen[0]


def _shape(hooked: Any, settings: Any) -> Shape:
    """From TransformerLens's config, which knows each family's names; its context length can be a mere default."""
    lengths = ("max_position_embeddings", "max_seq_len", "seq_length")
    return Shape(
        n_layers=hooked.n_layers,
        n_heads=hooked.n_heads,
        n_kv_heads=hooked.n_key_value_heads or hooked.n_heads,
        d_head=hooked.d_head,
        d_model=hooked.d_model,
        d_vocab=hooked.d_vocab,
        n_ctx=next((found for name in lengths if (found := getattr(settings, name, None))), None) or hooked.n_ctx,
    )


def _check_hooks(model: Model, token_id: "torch.Tensor", mask: "torch.Tensor") -> None:
    """Every hook point that the harness uses fires, with the shape it is said to have."""
    bridge, shape, name = model.bridge, model.shape, model.name
    batch, position = token_id.shape
    sizes = {
        "head": shape.n_heads,
        "kv_head": shape.n_kv_heads,
        "query": position,
        "key": position,
        "position": position,
        "d_head": shape.d_head,
    }
    kinds: tuple[hooks.Kind, ...] = ("pattern", "z", "q", "k", "v")
    wanted = {
        hooks.hook_name(kind, layer): (batch, *(sizes[axis] for axis in hooks.AXES[kind]))
        for kind in kinds
        for layer in range(shape.n_layers)
    }
    missing = sorted(set(wanted) - set(bridge.hook_dict))
    if missing:
        raise ModelMismatch(f"{name}: TransformerLens offers no hook point {missing[0]} ({len(missing)} are missing)")
    seen: dict[str, tuple[int, ...]] = {}

    def look(tensor: "torch.Tensor", hook: Any, at: str) -> None:
        seen[at] = tuple(tensor.shape)

    looks = [(at, lambda tensor, hook, at=at: look(tensor, hook, at)) for at in wanted]
    with bridge.hooks(fwd_hooks=looks):
        model.forward(token_id, mask)
    for at, expected in wanted.items():
        if seen.get(at) != expected:
            raise ModelMismatch(f"{name}: {at} carries {seen.get(at, 'nothing')}, expected {expected}")


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no advice from the loaders while they run; both as they were afterwards."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
