"""From a folder of weights to a hooked model that was compared with the plain one.

The plain Hugging Face model answers first, before TransformerLens wraps it; the hooked model must then give the same
logits, and its hook points must carry what `harness.hooks` says they carry.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import hooks
from harness.config import ModelSpec, RandomModel, RequestError
from harness.models import Model, Shape, cache, random, sources
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
        plain, tokenizer, weights = _random(spec) if isinstance(spec, RandomModel) else _from_folder(spec)
        plain = plain.to(device=device, dtype=getattr(torch, spec.dtype)).eval().requires_grad_(False)
        tokens = Tokens(tokenizer, spec.bos)
        token_id, mask = _probe(tokens, device)
        expected = plain(token_id, attention_mask=mask, use_cache=False).logits
        # The bridge prepares the tokenizer it is given; ours keeps its own policy.
        bridge = TransformerBridge.boot_transformers(f"local/{spec.name}", hf_model=plain, tokenizer=tokenizer)
        shape = _shape(plain.config)
        difference = _compare(bridge, token_id, mask, expected, spec)
        _check_hooks(bridge, shape, token_id, mask, spec.name)
    identity = {
        **weights,
        "architecture": (plain.config.architectures or [type(plain).__name__])[0],
        "tokenizer": type(tokenizer).__name__,
        "bos": tokens.policy,
        "hf_difference": difference,
    }
    return Model(spec=spec, bridge=bridge, tokens=tokens, shape=shape, identity=identity)


def _checked_device(device: str) -> Any:
    import torch

    try:
        checked = torch.device(device)
        torch.empty(0, device=checked)
    except (RuntimeError, AssertionError):
        there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise RequestError("model.device", device, f"this machine has {', '.join(there)}") from None
    return checked


def _random(spec: RandomModel) -> tuple[Any, Any, dict[str, Any]]:
    plain, tokenizer = random.build(spec.shape, spec.seed)
    return plain, tokenizer, {"weights": {"random": f"{spec.shape} seed {spec.seed}"}}


def _from_folder(spec: Any) -> tuple[Any, Any, dict[str, Any]]:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = sources.local_folder(spec)
    asked: dict[str, Any] = {
        "local_files_only": True,
        "trust_remote_code": getattr(spec, "trust_remote_code", False),
    }
    try:
        settings = AutoConfig.from_pretrained(folder, **asked)
        _check_decoder(settings, spec)
        tokenizer = AutoTokenizer.from_pretrained(folder, **asked)
        plain = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, spec.dtype), attn_implementation="eager", use_safetensors=True, **asked
        )
    except RequestError:
        raise
    except (ValueError, OSError, KeyError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RequestError("model", spec.name, f"{folder} cannot be loaded ({reason})") from error
    return plain, tokenizer, _weights(folder)


def _weights(folder: Path) -> dict[str, Any]:
    """What decides the numbers of a model on disk: the SHA-256 of each weight file, and a hub snapshot's commit."""
    found: dict[str, Any] = {"weights": {path.name: cache.sha256(path) for path in sources.weight_files(folder)}}
    if folder.parent.name == "snapshots":
        found["revision"] = folder.name
    return found


def _check_decoder(settings: Any, spec: Any) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = settings.model_type
    masked = any("MaskedLM" in name for name in settings.architectures or ())
    if settings.is_encoder_decoder or masked or kind == "bert" or kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise RequestError("model", spec.name, f"a {kind} model is not a decoder: give a GPT-style language model")


def _probe(tokens: Tokens, device: "torch.device") -> tuple["torch.Tensor", "torch.Tensor"]:
    import torch
    from torch.nn.utils.rnn import pad_sequence

    rows = [torch.tensor(tokens.encode(text).token_id, device=device) for text in PROBE]
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return pad_sequence(rows, batch_first=True), mask


def _compare(bridge: Any, token_id: "torch.Tensor", mask: "torch.Tensor", expected: "torch.Tensor", spec: Any) -> float:
    """The largest difference of logits from the plain model where there are tokens, as a share of the largest."""
    import torch

    got = bridge(token_id, attention_mask=mask, use_cache=False)
    real = mask.bool()
    scale = float(expected[real].abs().max())
    difference = float((got - expected)[real].abs().max()) / scale
    allowed = max(spec.tolerance, 8 * torch.finfo(expected.dtype).eps)
    if not difference <= allowed:
        raise ModelMismatch(
            f"{spec.name}: the hooked model's logits differ from the plain model's by {difference:.2g} of the largest "
            f"logit (allowed: {allowed:.2g}); TransformerLens does not reproduce this architecture faithfully"
        )
    return difference


def _shape(settings: Any) -> Shape:
    heads = settings.num_attention_heads
    return Shape(
        n_layers=settings.num_hidden_layers,
        n_heads=heads,
        n_kv_heads=getattr(settings, "num_key_value_heads", None) or heads,
        d_head=getattr(settings, "head_dim", None) or settings.hidden_size // heads,
        d_model=settings.hidden_size,
        d_vocab=settings.vocab_size,
        n_ctx=settings.max_position_embeddings,
    )


def _check_hooks(bridge: Any, shape: Shape, token_id: "torch.Tensor", mask: "torch.Tensor", name: str) -> None:
    """Every hook point that the harness uses fires, once, with the shape it is said to have."""
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
    bridge.run_with_hooks(token_id, attention_mask=mask, use_cache=False, fwd_hooks=looks)
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
