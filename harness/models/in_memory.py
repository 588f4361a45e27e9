"""A model that the caller holds in memory: copied, so that theirs stays as it was, and identified by its weights."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from harness import config, hooks
from harness.config import MemoryModel, RequestError
from harness.models import output_kind, sources
from harness.models.load import PlainModel


def describe(model: Any, tokenizer: Any = None, **overrides: Any) -> tuple[MemoryModel, PlainModel]:
    """The spec of a Hugging Face model or a TransformerLens bridge, and a copy of the plain model with its tokenizer.

    The copy is in the model's own precision and on its device, unless `overrides` say otherwise. Raises `RequestError`
    for a quantised model, unmerged adapters, hooks of the caller's, a model without a tokenizer, and a tokenizer with
    more tokens than the model has embeddings.
    """
    plain, own = _plain(model)
    name = str(overrides.pop("name", "") or Path(getattr(plain.config, "_name_or_path", "") or "in memory").name)
    _check_whole(plain, name)
    chosen = tokenizer or own or _saved_tokenizer(plain)
    if chosen is None:
        raise RequestError("tokenizer", "none", f"{name} has none with it: load_model(model, tokenizer=tokenizer)")
    _check_tokenizer(plain, chosen, name)
    first = next(plain.parameters())
    spec = MemoryModel(
        source="memory",
        name=name,
        **{"dtype": str(first.dtype).removeprefix("torch."), "device": str(first.device), **overrides},
    )
    copy = deepcopy(plain)
    copy.config.architectures = copy.config.architectures or [type(plain).__name__]  # TransformerLens goes by it
    if hasattr(copy, "set_attn_implementation"):
        copy.set_attn_implementation("eager")  # others do not return their patterns
    kind = output_kind.kind_of(plain.config, name)
    return spec, PlainModel(copy, chosen, kind, {"weights": {"in memory": digest(plain)}})


def digest(plain: torch.nn.Module) -> str:
    """The SHA-256 of all parameters and buffers, by name."""
    state = hashlib.sha256()
    for name, tensor in sorted(plain.state_dict().items()):
        state.update(name.encode() + str(tuple(tensor.shape)).encode())
        state.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def _plain(model: Any) -> tuple[Any, Any]:
    """The Hugging Face model in what the caller passed, and the tokenizer that came with it."""
    if hasattr(model, "original_model") and hasattr(model, "hook_dict"):
        hooked = [name for name, point in model.hook_dict.items() if point.fwd_hooks or point.bwd_hooks]
        if hooked:
            raise RequestError("model", hooked[0], "this bridge has hooks on it: model.reset_hooks() first")
        _check_unhooked(model)
        return unwrapped(model), getattr(model, "tokenizer", None)
    if not (hasattr(model, "config") and hasattr(model, "parameters")):
        remedy = "pass a name, a hub id, a folder, a spec, a Hugging Face model or a TransformerLens bridge"
        raise RequestError("model", type(model).__name__, remedy)
    _check_unhooked(model)
    return model, None


def _check_unhooked(model: torch.nn.Module) -> None:
    """Raise `RequestError` for a torch hook of the caller: it would change what is studied, or be lost in the copy."""
    for name, module in model.named_modules():
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
            code = getattr(hook, "func", hook)  # of a `functools.partial`
            owner = str(getattr(code, "__module__", "")).partition(".")[0]
            if owner not in ("torch", "transformers", "transformer_lens"):
                raise RequestError("model", name or "model", "this module has a hook on it: handle.remove() it first")


@torch.no_grad()
def unwrapped(bridge: Any) -> Any:
    """A plain model with the weights of a bridge, which has put its own modules into the one that it was given."""
    wrapped = bridge.original_model
    plain = type(wrapped)(wrapped.config).eval()
    held = {hooks.plain_name(name): each for name, each in wrapped.state_dict().items()}
    first = next(wrapped.parameters())
    plain.load_state_dict({name: held[name] for name in plain.state_dict()})
    plain = plain.to(device=first.device, dtype=first.dtype)
    plain.generation_config = deepcopy(getattr(wrapped, "generation_config", None))
    if not wrapped.config.is_encoder_decoder:
        token_id = torch.arange(2, 10, device=first.device)[None]
        with _evaluating(bridge):
            there = bridge(token_id)
        here = plain(token_id)
        here = here.logits if hasattr(here, "logits") else here.last_hidden_state
        if here.shape == there.shape and not torch.allclose(here, there, rtol=1e-3, atol=1e-3):
            remedy = "its weights were changed apart from the Hugging Face model inside: pass that model"
            raise RequestError("model", "bridge", remedy)
    return plain


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """While this lasts, no module of the model drops out; each is then as it was."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, before in training.items():
            module.training = before


def _check_whole(plain: Any, name: str) -> None:
    if hasattr(plain, "peft_config") or any("lora_" in key for key in plain.state_dict()):
        raise RequestError("model", name, "it has adapters (LoRA): pass model.merge_and_unload()")
    method = sources.quantisation(vars(plain.config)) or getattr(plain, "quantization_method", None)
    if method or any(weight.element_size() < 2 for weight in plain.parameters()):
        raise RequestError("model", name, sources.quantised(str(method or "packed weights")))


def _saved_tokenizer(plain: Any) -> Any:
    """The tokenizer in the folder that the model was loaded from, if there is one."""
    import transformers

    folder = Path(getattr(plain.config, "_name_or_path", "") or "")
    if not (folder.is_dir() and sources.has_tokenizer(folder)):
        return None
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _check_tokenizer(plain: Any, tokenizer: Any, name: str) -> None:
    if not hasattr(tokenizer, "get_vocab"):
        remedy = "pass the tokenizer itself: transformers.AutoTokenizer.from_pretrained(…)"
        raise RequestError("tokenizer", config.quoted(str(tokenizer)), remedy)
    rows = plain.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        remedy = f"{name} has {rows} embeddings and this tokenizer {len(tokenizer)} tokens: it is of another model"
        raise RequestError("tokenizer", type(tokenizer).__name__, remedy)
