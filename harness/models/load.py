"""From a folder of weights to a hooked model that was compared with the plain one."""

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
    """Load (or take what is `held` in memory), hook and check. See `harness.load_model`."""
    import torch
    from transformer_lens.model_bridge import TransformerBridge

    from harness.models.bridge import Bridge

    device = _checked_device(spec.device)
    # Loaders set global state (the default dtype, the seed), and what is made in inference mode never has gradients.
    with _LOADING, _quiet(), torch.inference_mode(False), torch.no_grad():
        loaded = held or _loaded(spec)
        plain = loaded.plain.to(device=device, dtype=getattr(torch, spec.dtype)).eval().requires_grad_(False)
        tokens = Tokens(loaded.tokenizer, spec.bos)
        given = checks.probe(tokens, plain.config.vocab_size, loaded.kind, device)
        expected = checks.answer(plain, given, loaded.kind)
        architecture = (plain.config.architectures or [type(plain).__name__])[0]
        # The bridge changes the tokenizer it is given (MiniLM's unknown token becomes its BOS): ours stays as it was.
        hookable, own = output_kind.hookable(plain, loaded.kind), deepcopy(loaded.tokenizer)
        try:
            bridge = TransformerBridge.boot_transformers(f"local/{spec.name}", hf_model=hookable, tokenizer=own)
        except Exception as error:  # whatever the bridge raises while it wraps a family it does not know well
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
            difference = checks.compare(model, given, expected)
            checks.check_hooks(model, given)
        model = replace(model, traits=traits.measure(model, given))
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
    """What the manifest says of how a text's vector is made, of a model that gives one."""
    if loaded.kind != "embedding":
        return {}
    return {"pooling": loaded.pooling or f"mean (it has no {CONFIG})"}


def _noted(found: Traits) -> dict[str, Any]:
    """What the manifest says of traits that are not those of most families."""
    noted: dict[str, Any] = {}
    if found.learnt_sink:
        noted["learnt_sink"] = "rows of patterns sum to 1 with the share of a learnt sink"
    if scales := sorted(set(found.write_scale.values()) - {1.0}):
        noted["write_scale"] = (
            scales[0] if len(scales) == 1 else {str(at): each for at, each in found.write_scale.items()}
        )
    return noted


def plain_model(spec: ModelSpec) -> Any:
    """The Hugging Face model alone, which TransformerLens never sees."""
    import torch

    with _LOADING, _quiet(), torch.inference_mode(False), torch.no_grad():
        plain = _loaded(spec).plain
    return plain.to(device=_checked_device(spec.device), dtype=getattr(torch, spec.dtype)).eval().requires_grad_(False)


@dataclass(frozen=True)
class PlainModel:
    """A plain Hugging Face model and its tokenizer, what it gives at its end, what identifies its weights, and which
    heads do what, where someone set them by hand."""

    plain: Any
    tokenizer: Any
    kind: Kind
    weights: dict[str, Any]
    truth: dict[str, list[Head]] = field(default_factory=dict)
    #: How an encoder makes one vector, where its files say so.
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
    asked: dict[str, Any] = {
        "local_files_only": True,
        "trust_remote_code": getattr(spec, "trust_remote_code", False),
    }
    try:
        kind = output_kind.kind_of(transformers.AutoConfig.from_pretrained(folder, **asked), spec.name)
        if not (sources.has_tokenizer(folder) or asked["trust_remote_code"]):
            raise RequestError("model", spec.name, f"{folder} has no tokenizer: save it there too")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **asked)
        loader = getattr(transformers, output_kind.LOADER[kind])
        plain, info = loader.from_pretrained(
            folder,
            dtype=getattr(torch, spec.dtype),
            attn_implementation="eager",
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # `check_whole` names them
            output_loading_info=True,
            **asked,
        )
        sources.check_whole(info, "model", spec.name, kind)
    except RequestError:
        raise
    except ImportError as error:
        raise RequestError("model", spec.name, _missing_package(error)) from error
    except Exception as error:  # whatever a loader raises on a damaged config or tokenizer is the folder's fault
        raise RequestError("model", spec.name, f"{folder} cannot be loaded ({sources.first_line(error)})") from error
    weights = _weights(folder, cached=isinstance(spec, WheelModel | GgufModel))
    how = config_of(folder, spec.name) if kind == "embedding" else None
    if how is None:
        return PlainModel(plain, tokenizer, kind, weights)
    weights["weights"][how.relative_to(folder).as_posix()] = cache.sha256(how)  # it decides the numbers as they do
    return PlainModel(plain, tokenizer, kind, weights, pooling=pooling_of(how, spec.name))


def _missing_package(error: ImportError) -> str:
    """What a tokenizer needs that is not installed."""
    said = " ".join(str(error).split())
    if "fugashi" in said or "unidic" in said:
        return "its tokenizer cuts Japanese with MeCab, which is not installed: pip install fugashi unidic-lite"
    return f"a package that it needs is not installed ({said})"


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


def _shape(hooked: Any, settings: Any) -> Shape:
    """From TransformerLens's config, which knows each family's names; its context length can be a mere default."""
    lengths = ("max_position_embeddings", "max_seq_len", "seq_length")
    return Shape(
        n_layers=getattr(settings, "num_decoder_layers", None) or hooked.n_layers,
        n_encoder_layers=settings.num_layers if settings.is_encoder_decoder else 0,
        n_heads=hooked.n_heads,
        n_kv_heads=hooked.n_key_value_heads or hooked.n_heads,
        d_head=hooked.d_head,
        d_model=hooked.d_model,
        d_vocab=hooked.d_vocab,
        n_ctx=next((found for name in lengths if (found := getattr(settings, name, None))), None) or hooked.n_ctx,
    )


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
