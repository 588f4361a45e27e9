"""Load a model, hook it, and compare it with the plain one."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import RLock
from typing import Any

from harness.config import GgufModel, MemoryModel, ModelSpec, PlantedModel, RandomModel, RequestError, WheelModel
from harness.hooks import Head
from harness.models import Kind, Model, Shape, Traits, cache, checks, output_kind, planted, random, sources, traits
from harness.models.pooling import CONFIG, Pooling, config_of, pooling_of
from harness.models.tokens import Tokens

#: One model is loaded at a time.
_LOADING = RLock()


def boot(spec: ModelSpec | MemoryModel, held: "PlainModel | None" = None) -> Model:
    """Load (or take what is `held` in memory), hook and check a model; see `harness.load_model`."""
    import torch
    from transformer_lens.model_bridge import TransformerBridge

    from harness.models.bridge import Bridge

    device = _checked_device(spec.device)
    # Loaders set global state (the default dtype, the seed), and what is made in inference mode never has gradients.
    with _LOADING, quiet(), torch.inference_mode(False), torch.no_grad():
        loaded = held or _loaded(spec)
        plain = loaded.plain.to(device=device, dtype=getattr(torch, spec.dtype)).eval().requires_grad_(False)
        tokens = Tokens(loaded.tokenizer, spec.bos)
        probe = checks.probe(tokens, plain.config.vocab_size, loaded.kind, device)
        expected = checks.answer(plain, probe, loaded.kind)
        architecture = (plain.config.architectures or [type(plain).__name__])[0]
        # The bridge changes its tokenizer (MiniLM's unknown token becomes BOS), so it gets a copy.
        hookable, own = output_kind.hookable(plain, loaded.kind), deepcopy(loaded.tokenizer)
        try:
            bridge = TransformerBridge.boot_transformers(f"local/{spec.name}", hf_model=hookable, tokenizer=own)
        except Exception as error:  # the bridge raises errors of many types for families that it does not support
            raise _unhooked(spec, architecture, str(error) or type(error).__name__) from error
        if not any(name.endswith("attn.hook_pattern") for name in bridge.hook_dict):
            raise _unhooked(spec, architecture, "no attention heads")
        model = Model(
            spec,
            Bridge.adopt(bridge, tokens),
            tokens,
            _shape(bridge.cfg, plain.config),
            loaded.kind,
            {},
            truth=loaded.truth,
            head=output_kind.head_of(plain, loaded.kind),
            labels=output_kind.labels_of(plain.config, loaded.kind),
            start_id=getattr(plain.config, "decoder_start_token_id", None),
            pooling=loaded.pooling or "mean",
        )
        with checks.running_probe(spec.name, spec.dtype):
            difference = checks.compare(model, probe, expected)
            checks.check_hooks(model, probe)
        model = replace(model, traits=traits.measure(model, probe))
    identity = {
        **loaded.weights,
        "architecture": architecture,
        "kind": loaded.kind,
        "tokenizer": type(loaded.tokenizer).__name__,
        "bos": tokens.policy,
        "hf_difference": difference,
        **_pooling(loaded),
        **_noted(model.traits),
    }
    return replace(model, identity=identity)


def _pooling(loaded: "PlainModel") -> dict[str, str]:
    """Return the manifest's entry for the pooling of a sentence encoder."""
    if loaded.kind != "embedding":
        return {}
    return {"pooling": loaded.pooling or f"mean (it has no {CONFIG})"}


def _noted(traits: Traits) -> dict[str, Any]:
    """Return the manifest's entries for traits that differ from those of most families."""
    record: dict[str, Any] = {}
    if traits.learnt_sink:
        record["learnt_sink"] = "rows of patterns sum to 1 with the share of a learnt sink"
    if scales := sorted(set(traits.write_scale.values()) - {1.0}):
        record["write_scale"] = (
            scales[0] if len(scales) == 1 else {str(at): each for at, each in traits.write_scale.items()}
        )
    return record


def plain_model(spec: ModelSpec) -> Any:
    """Load the Hugging Face model alone, without TransformerLens."""
    import torch

    with _LOADING, quiet(), torch.inference_mode(False), torch.no_grad():
        plain = _loaded(spec).plain
    return plain.to(device=_checked_device(spec.device), dtype=getattr(torch, spec.dtype)).eval().requires_grad_(False)


@dataclass(frozen=True)
class PlainModel:
    """A plain Hugging Face model with its tokenizer, kind of output, identity of its weights and roles of planted
    heads."""

    plain: Any
    tokenizer: Any
    kind: Kind
    weights: dict[str, Any]
    truth: dict[str, list[Head]] = field(default_factory=dict)
    #: The pooling of a sentence encoder, where its files name one.
    pooling: Pooling | None = None


def _unhooked(spec: ModelSpec | MemoryModel, architecture: str, reason: str) -> RequestError:
    first = reason.splitlines()[0]
    return RequestError(
        "model", spec.name, f"TransformerLens does not hook this architecture ({architecture}: {first})"
    )


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


def _loaded(spec: ModelSpec | MemoryModel) -> PlainModel:
    match spec:
        case RandomModel():
            return _random(spec)
        case PlantedModel():
            return _planted(spec)
    return _from_folder(spec)


def _planted(spec: PlantedModel) -> PlainModel:
    made = planted.build(spec.seed, spec.variant)
    weights: dict[str, Any] = {"weights": {"planted": f"{spec.variant} seed {spec.seed}"}}
    if made.position is not None:
        weights["position"] = made.position
    return PlainModel(made.model, planted.tokenizer(), "decoder", weights, dict(made.truth))


def _random(spec: RandomModel) -> PlainModel:
    plain, tokenizer, kind = random.build(spec.shape, spec.seed)
    return PlainModel(plain, tokenizer, kind, {"weights": {"random": f"{spec.shape} seed {spec.seed}"}})


def _from_folder(spec: Any) -> PlainModel:
    import torch
    import transformers

    folder = sources.local_folder(spec)
    options: dict[str, Any] = {
        "local_files_only": True,
        "trust_remote_code": getattr(spec, "trust_remote_code", False),
    }
    try:
        kind = output_kind.kind_of(transformers.AutoConfig.from_pretrained(folder, **options), spec.name)
        if not (sources.has_tokenizer(folder) or options["trust_remote_code"]):
            raise RequestError("model", spec.name, f"{folder} has no tokenizer: save it there too")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
        loader = getattr(transformers, output_kind.LOADER[kind])
        plain, info = loader.from_pretrained(
            folder,
            dtype=getattr(torch, spec.dtype),
            attn_implementation="eager",
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # `check_whole` names them
            output_loading_info=True,
            **options,
        )
        sources.check_whole(info, "model", spec.name, kind)
        if any(weight.element_size() < 2 for weight in plain.parameters()):
            raise RequestError("model", spec.name, sources.quantised("packed weights"))
    except RequestError:
        raise
    except ImportError as error:
        raise RequestError("model", spec.name, _missing_package(error)) from error
    except Exception as error:  # loaders raise errors of any type for a damaged config or tokenizer
        raise RequestError("model", spec.name, f"{folder} cannot be loaded ({sources.first_line(error)})") from error
    weights = _weights(folder, cached=isinstance(spec, WheelModel | GgufModel))
    how = config_of(folder, spec.name) if kind == "embedding" else None
    if how is None:
        return PlainModel(plain, tokenizer, kind, weights)
    weights["weights"][how.relative_to(folder).as_posix()] = cache.sha256(how)  # the numbers depend on it too
    return PlainModel(plain, tokenizer, kind, weights, pooling=pooling_of(how, spec.name))


def _missing_package(error: ImportError) -> str:
    """Describe the package that a tokenizer needs and that is not installed."""
    text = " ".join(str(error).split())
    if "fugashi" in text or "unidic" in text:
        return "its tokenizer cuts Japanese with MeCab, which is not installed: pip install fugashi unidic-lite"
    return f"a package that it needs is not installed ({text})"


def _weights(folder: Path, cached: bool) -> dict[str, Any]:
    """Return the identity of a model on disk: the SHA-256 of each weight file, and a hub snapshot's commit.

    The weight cache has just verified the digests of a `cached` folder.
    """
    known = cache.read_digests(folder) if cached else {}
    identity: dict[str, Any] = {
        "weights": {path.name: known.get(path.name) or cache.sha256(path) for path in sources.weight_files(folder)}
    }
    if folder.parent.name == "snapshots":
        identity["revision"] = folder.name
    return identity


def _shape(hooked: Any, settings: Any) -> Shape:
    """Return the sizes from TransformerLens's config, but the context length, which is a mere default there, from the
    Hugging Face config."""
    lengths = ("max_position_embeddings", "max_seq_len", "seq_length")
    return Shape(
        n_layers=getattr(settings, "num_decoder_layers", None) or hooked.n_layers,
        n_encoder_layers=settings.num_layers if settings.is_encoder_decoder else 0,
        n_heads=hooked.n_heads,
        n_kv_heads=hooked.n_key_value_heads or hooked.n_heads,
        d_head=hooked.d_head,
        d_model=hooked.d_model,
        d_vocab=hooked.d_vocab,
        n_ctx=next(filter(None, (getattr(settings, name, None) for name in lengths)), hooked.n_ctx),
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence progress bars and advice of the loaders inside."""
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
